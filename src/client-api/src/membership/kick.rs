//! `POST /_matrix/client/v3/rooms/{roomId}/kick`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidkick>

use axum::extract::State;
use myelin_rooms::Rooms;
use ruma::api::client::membership::kick_user::v3::{Request as Operation, Response};

use super::{moderation, refuse_moderation};
use crate::{
    error::Result,
    extract::{Reply, Request},
};

/// Kicks a user.
pub(crate) async fn kick(
    State(rooms): State<Rooms>,
    request: Request<Operation>,
) -> Result<Reply<Response>> {
    let Request { body, caller, .. } = request;
    rooms
        .kick(moderation(
            body.room_id,
            caller.user_id,
            body.user_id,
            body.reason,
        ))
        .await
        .map_err(refuse_moderation)?;
    Ok(Reply(Response::new()))
}
