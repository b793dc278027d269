//! `GET /_matrix/client/v3/rooms/{roomId}/joined_members`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidjoined_members>

use axum::{Json, extract::State};
use myelin_rooms::{Rooms, read::JoinedMembers};
use ruma::api::client::membership::joined_members::v3::Request as Operation;

use crate::{
    error::Result,
    extract::Request,
    shared::{refuse_read, viewer},
};

/// Lists the joined members with their profiles.
pub(crate) async fn list(
    State(rooms): State<Rooms>,
    request: Request<Operation>,
) -> Result<Json<JoinedMembers>> {
    rooms
        .joined_members(&viewer(&request.caller), &request.body.room_id)
        .await
        .map(Json)
        .map_err(refuse_read)
}
