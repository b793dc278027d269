//! `GET /_matrix/client/v3/rooms/{roomId}/state`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidstate>

use axum::{Json, extract::State};
use myelin_rooms::Rooms;
use ruma::api::client::state::get_state_events::v3::Request as Operation;
use serde_json::value::RawValue;

use crate::{
    error::Result,
    extract::Request,
    shared::{refuse_read, viewer},
};

/// Answers with the events of the room's state.
pub(crate) async fn get(
    State(rooms): State<Rooms>,
    request: Request<Operation>,
) -> Result<Json<Vec<Box<RawValue>>>> {
    rooms
        .client_state(&viewer(&request.caller), &request.body.room_id)
        .await
        .map(Json)
        .map_err(refuse_read)
}
