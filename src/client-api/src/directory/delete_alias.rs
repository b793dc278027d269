//! `DELETE /_matrix/client/v3/directory/room/{roomAlias}`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#delete_matrixclientv3directoryroomroomalias>

use axum::extract::State;
use myelin_rooms::{DeleteAliasError, Rooms};
use ruma::api::client::alias::delete_alias::v3::{Request as Operation, Response};

use crate::{
    error::{Refusal, Result},
    extract::{Reply, Request},
    shared::refuse_failure,
};

fn refuse(error: DeleteAliasError) -> Refusal {
    match error {
        DeleteAliasError::NotFound => Refusal::not_found("No room has this alias."),
        DeleteAliasError::NotAllowed => Refusal::forbidden("You may not delete this alias."),
        DeleteAliasError::Failure(failure) => refuse_failure(failure),
    }
}

/// Deletes an alias.
pub(crate) async fn delete(
    State(rooms): State<Rooms>,
    request: Request<Operation>,
) -> Result<Reply<Response>> {
    let Request { body, caller, .. } = request;
    rooms
        .delete_alias(&body.room_alias, &caller.user_id, caller.admin)
        .await
        .map_err(refuse)?;
    Ok(Reply(Response::new()))
}
