//! `GET /_matrix/client/v3/rooms/{roomId}/event/{eventId}`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomideventeventid>

use axum::{Json, extract::State};
use myelin_rooms::{Rooms, read::ReadError};
use ruma::api::client::room::get_room_event::v3::Request as Operation;
use serde_json::value::RawValue;

use crate::{
    error::{Refusal, Result},
    extract::Request,
    shared::viewer,
};

/// Whether there is no such event or the caller may not see it, the specification does not let him know.
fn refuse(error: ReadError) -> Refusal {
    match error {
        ReadError::RoomNotFound | ReadError::NotInRoom | ReadError::NotFound => {
            Refusal::not_found("There is no such event, or you may not see it.")
        }
        ReadError::Store(cause) => Refusal::internal(cause),
    }
}

/// Answers with one event.
pub(crate) async fn get(
    State(rooms): State<Rooms>,
    request: Request<Operation>,
) -> Result<Json<Box<RawValue>>> {
    let query = request.body;
    rooms
        .client_event(&viewer(&request.caller), &query.room_id, &query.event_id)
        .await
        .map(Json)
        .map_err(refuse)
}
