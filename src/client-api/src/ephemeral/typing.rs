//! `PUT /_matrix/client/v3/rooms/{roomId}/typing/{userId}`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3roomsroomidtypinguserid>

use axum::extract::State;
use myelin_rooms::{Rooms, TypingError};
use ruma::api::client::typing::create_typing_event::v3::{Request as Operation, Response, Typing};

use crate::{
    error::{Refusal, Result},
    extract::{Reply, Request},
    shared::{not_in_room, refuse_failure},
};

fn refuse(error: TypingError) -> Refusal {
    match error {
        TypingError::RoomNotFound | TypingError::NotInRoom => not_in_room(),
        TypingError::Failure(failure) => refuse_failure(failure),
    }
}

/// Notes that the caller types, or that he stopped.
pub(crate) async fn set(
    State(rooms): State<Rooms>,
    request: Request<Operation>,
) -> Result<Reply<Response>> {
    let Request { body, caller, .. } = request;
    if body.user_id != caller.user_id {
        return Err(Refusal::forbidden("You can type for yourself alone."));
    }
    let timeout = match body.state {
        Typing::Yes(info) => Some(info.timeout),
        Typing::No => None,
    };
    rooms
        .set_typing(&body.room_id, &caller.user_id, timeout)
        .await
        .map_err(refuse)?;
    Ok(Reply(Response::new()))
}
