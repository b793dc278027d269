//! `GET /_matrix/client/v3/directory/room/{roomAlias}`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3directoryroomroomalias>

use axum::extract::State;
use myelin_rooms::Rooms;
use ruma::api::client::alias::get_alias::v3::{Request as Operation, Response};

use crate::{
    error::{Refusal, Result},
    extract::{Reply, Request},
};

/// Answers with the room that an alias points to.
pub(crate) async fn get(
    State(rooms): State<Rooms>,
    request: Request<Operation>,
) -> Result<Reply<Response>> {
    let resolver = rooms.clone();
    let alias = request.body.room_alias;
    let room = rooms
        .store()
        .read(move |view| resolver.resolve_alias(view, &alias))
        .await
        .map_err(Refusal::internal)?
        .ok_or_else(|| Refusal::not_found("No room has this alias."))?;
    let servers = vec![rooms.server_name().to_owned()];
    Ok(Reply(Response::new(room.room_id().to_owned(), servers)))
}
