//! `GET /_matrix/client/v3/rooms/{roomId}/state/{eventType}/{stateKey}`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidstateeventtypestatekey>

use axum::{Json, extract::State};
use myelin_rooms::{
    Rooms,
    read::{ReadError, StateFormat},
};
use ruma::api::client::state::get_state_event_for_key::v3::{
    Request as Operation, StateEventFormat,
};
use serde_json::value::RawValue;

use crate::{
    error::{Refusal, Result},
    extract::Request,
    shared::{refuse_read, viewer},
};

fn refuse(error: ReadError) -> Refusal {
    match error {
        ReadError::NotFound => Refusal::not_found("The room's state has no such entry."),
        other => refuse_read(other),
    }
}

/// Answers with one entry of the room's state.
pub(crate) async fn get(
    State(rooms): State<Rooms>,
    request: Request<Operation>,
) -> Result<Json<Box<RawValue>>> {
    let query = request.body;
    let format = match query.format {
        StateEventFormat::Event => StateFormat::Event,
        _ => StateFormat::Content,
    };
    rooms
        .client_state_event(
            &viewer(&request.caller),
            &query.room_id,
            &query.event_type.to_string(),
            &query.state_key,
            format,
        )
        .await
        .map(Json)
        .map_err(refuse)
}
