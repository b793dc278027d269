//! `PUT /_matrix/client/v3/rooms/{roomId}/state/{eventType}/{stateKey}`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3roomsroomidstateeventtypestatekey>

use axum::extract::State;
use myelin_rooms::{Rooms, SendError, SendState};
use ruma::api::{
    client::state::send_state_event::v3::{Request as Operation, Response},
    error::ErrorKind,
};

use crate::{
    error::{Refusal, Result},
    extract::{Reply, Request},
    shared::{content, not_in_room, refuse_append, remote_user},
};

/// What the sending of messages and of state is refused with.
pub(super) fn refuse(error: SendError) -> Refusal {
    match error {
        SendError::RoomNotFound => not_in_room(),
        SendError::InvalidAlias(alias) => {
            Refusal::invalid(format!("{alias:?} is not a room alias."))
        }
        SendError::BadAlias(alias) => Refusal::bad_request(
            ErrorKind::BadAlias,
            format!("The alias {alias} does not point to this room."),
        ),
        SendError::BadContent(what) => Refusal::bad_request(ErrorKind::BadJson, what),
        SendError::RedactsUnknown => Refusal::not_found("The room has no such event."),
        SendError::RemoteTarget(user) => remote_user(&user),
        SendError::Append(error) => refuse_append(error),
    }
}

/// Sends a state event.
pub(crate) async fn send(
    State(rooms): State<Rooms>,
    request: Request<Operation>,
) -> Result<Reply<Response>> {
    let event = request.body;
    let event_id = rooms
        .send_state(SendState {
            room_id: event.room_id,
            sender: request.caller.user_id,
            event_type: event.event_type.to_string(),
            state_key: event.state_key,
            content: content(&event.body)?,
        })
        .await
        .map_err(refuse)?;
    Ok(Reply(Response::new(event_id)))
}
