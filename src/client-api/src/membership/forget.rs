//! `POST /_matrix/client/v3/rooms/{roomId}/forget`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidforget>

use axum::extract::State;
use myelin_rooms::{ForgetError, Rooms};
use ruma::api::{
    client::membership::forget_room::v3::{Request as Operation, Response},
    error::ErrorKind,
};

use crate::{
    error::{Refusal, Result},
    extract::{Reply, Request},
    shared::{no_such_room, refuse_failure},
};

fn refuse(error: ForgetError) -> Refusal {
    match error {
        ForgetError::RoomNotFound => no_such_room(),
        ForgetError::StillInRoom => {
            Refusal::bad_request(ErrorKind::Unknown, "Leave the room before you forget it.")
        }
        ForgetError::Failure(failure) => refuse_failure(failure),
    }
}

/// Forgets a room that the caller has left.
pub(crate) async fn forget(
    State(rooms): State<Rooms>,
    request: Request<Operation>,
) -> Result<Reply<Response>> {
    rooms
        .forget(&request.body.room_id, &request.caller.user_id)
        .await
        .map_err(refuse)?;
    Ok(Reply(Response::new()))
}
