//! `PUT /_matrix/client/v3/directory/room/{roomAlias}`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3directoryroomroomalias>

use axum::extract::State;
use http::StatusCode;
use myelin_rooms::{CreateAliasError, Rooms};
use ruma::api::{
    client::alias::create_alias::v3::{Request as Operation, Response},
    error::ErrorKind,
};

use crate::{
    error::{Refusal, Result},
    extract::{Reply, Request},
    shared::{no_such_room, not_in_room, refuse_failure},
};

fn refuse(error: CreateAliasError) -> Refusal {
    match error {
        CreateAliasError::Remote => Refusal::invalid("The alias belongs to another server."),
        CreateAliasError::Exists => Refusal::new(
            StatusCode::CONFLICT,
            ErrorKind::Unknown,
            "The alias points to a room already.",
        ),
        CreateAliasError::RoomNotFound => no_such_room(),
        CreateAliasError::NotInRoom => not_in_room(),
        CreateAliasError::Failure(failure) => refuse_failure(failure),
    }
}

/// Makes an alias for a room.
pub(crate) async fn create(
    State(rooms): State<Rooms>,
    request: Request<Operation>,
) -> Result<Reply<Response>> {
    let Request { body, caller, .. } = request;
    rooms
        .create_alias(&body.room_alias, &body.room_id, &caller.user_id)
        .await
        .map_err(refuse)?;
    Ok(Reply(Response::new()))
}
