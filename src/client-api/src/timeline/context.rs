//! `GET /_matrix/client/v3/rooms/{roomId}/context/{eventId}`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidcontexteventid>

use axum::{Json, extract::State};
use myelin_rooms::{Rooms, read::Context};
use ruma::api::client::context::get_context::v3::Request as Operation;

use crate::{
    error::Result,
    extract::Request,
    shared::{count, refuse_read, viewer},
};

/// Answers with an event and what happened around it.
pub(crate) async fn get(
    State(rooms): State<Rooms>,
    request: Request<Operation>,
) -> Result<Json<Context>> {
    let query = request.body;
    rooms
        .context(
            &viewer(&request.caller),
            &query.room_id,
            &query.event_id,
            Some(count(query.limit)),
            query.filter,
        )
        .await
        .map(Json)
        .map_err(refuse_read)
}
