//! `GET /_matrix/client/v3/rooms/{roomId}/aliases`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidaliases>

use axum::extract::State;
use myelin_rooms::{ListAliasesError, Rooms};
use ruma::api::client::room::aliases::v3::{Request as Operation, Response};

use crate::{
    error::{Refusal, Result},
    extract::{Reply, Request},
    shared::{not_in_room, refuse_failure},
};

fn refuse(error: ListAliasesError) -> Refusal {
    match error {
        ListAliasesError::RoomNotFound | ListAliasesError::NotInRoom => not_in_room(),
        ListAliasesError::Failure(failure) => refuse_failure(failure),
    }
}

/// Lists the aliases that this server has for a room.
pub(crate) async fn list(
    State(rooms): State<Rooms>,
    request: Request<Operation>,
) -> Result<Reply<Response>> {
    let aliases = rooms
        .list_aliases(&request.body.room_id, &request.caller.user_id)
        .await
        .map_err(refuse)?;
    Ok(Reply(Response::new(aliases)))
}
