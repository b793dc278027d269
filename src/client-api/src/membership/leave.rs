//! `POST /_matrix/client/v3/rooms/{roomId}/leave`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidleave>

use axum::extract::State;
use myelin_rooms::{LeaveError, Rooms};
use ruma::api::client::membership::leave_room::v3::{Request as Operation, Response};

use crate::{
    error::{Refusal, Result},
    extract::{Reply, Request},
    shared::{no_such_room, not_in_room, refuse_append},
};

fn refuse(error: LeaveError) -> Refusal {
    match error {
        LeaveError::RoomNotFound => no_such_room(),
        LeaveError::NotInRoom => not_in_room(),
        LeaveError::Append(error) => refuse_append(error),
    }
}

/// Leaves a room, declines an invitation, or takes a knock back.
pub(crate) async fn leave(
    State(rooms): State<Rooms>,
    request: Request<Operation>,
) -> Result<Reply<Response>> {
    let Request { body, caller, .. } = request;
    rooms
        .leave(&body.room_id, &caller.user_id, body.reason)
        .await
        .map_err(refuse)?;
    Ok(Reply(Response::new()))
}
