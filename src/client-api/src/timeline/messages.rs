//! `GET /_matrix/client/v3/rooms/{roomId}/messages`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidmessages>

use axum::{Json, extract::State};
use myelin_rooms::{
    Rooms,
    read::{Messages, MessagesQuery},
};
use ruma::api::client::message::get_message_events::v3::Request as Operation;

use crate::{
    error::Result,
    extract::Request,
    shared::{count, refuse_read, token, viewer},
};

/// Answers with a page of the room's history.
pub(crate) async fn page(
    State(rooms): State<Rooms>,
    request: Request<Operation>,
) -> Result<Json<Messages>> {
    let query = request.body;
    let page = MessagesQuery {
        from: token(query.from.as_deref())?,
        to: token(query.to.as_deref())?,
        direction: query.dir,
        limit: Some(count(query.limit)),
        filter: query.filter,
    };
    rooms
        .messages(&viewer(&request.caller), &query.room_id, page)
        .await
        .map(Json)
        .map_err(refuse_read)
}
