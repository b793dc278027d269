//! `PUT /_matrix/client/v3/rooms/{roomId}/send/{eventType}/{txnId}`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3roomsroomidsendeventtypetxnid>

use axum::extract::State;
use myelin_rooms::{Rooms, SendMessage, TransactionId};
use ruma::api::client::message::send_message_event::v3::{Request as Operation, Response};

use super::send_state::refuse;
use crate::{
    error::Result,
    extract::{Reply, Request},
    shared::content,
};

/// Sends a message event.
pub(crate) async fn send(
    State(rooms): State<Rooms>,
    request: Request<Operation>,
) -> Result<Reply<Response>> {
    let Request {
        body: event,
        caller,
        ..
    } = request;
    let event_type = event.event_type.to_string();
    let transaction = TransactionId {
        device_id: caller.device_id.to_string(),
        path: format!("/rooms/{}/send/{event_type}", event.room_id),
        id: event.txn_id.to_string(),
    };
    let event_id = rooms
        .send_message(SendMessage {
            room_id: event.room_id,
            sender: caller.user_id,
            event_type,
            content: content(&event.body)?,
            transaction: Some(transaction),
        })
        .await
        .map_err(refuse)?;
    Ok(Reply(Response::new(event_id)))
}
