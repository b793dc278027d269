//! `PUT /_matrix/client/v3/rooms/{roomId}/redact/{eventId}/{txnId}`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3roomsroomidredacteventidtxnid>

use axum::extract::State;
use myelin_rooms::{JsonObject, Redact, RedactError, Rooms, TransactionId};
use ruma::api::client::redact::redact_event::v3::{Request as Operation, Response};

use crate::{
    error::{Refusal, Result},
    extract::{Reply, Request},
    shared::{not_in_room, refuse_append},
};

fn refuse(error: RedactError) -> Refusal {
    match error {
        RedactError::RoomNotFound => not_in_room(),
        RedactError::EventNotFound => Refusal::not_found("The room has no such event."),
        RedactError::NotAllowed => Refusal::forbidden("You may not redact this event."),
        RedactError::Append(error) => refuse_append(error),
    }
}

/// Redacts an event.
pub(crate) async fn redact(
    State(rooms): State<Rooms>,
    request: Request<Operation>,
) -> Result<Reply<Response>> {
    let Request {
        body: redaction,
        caller,
        ..
    } = request;
    let mut content = JsonObject::new();
    if let Some(reason) = redaction.reason {
        content.insert("reason".to_owned(), reason.into());
    }
    let transaction = TransactionId {
        device_id: caller.device_id.to_string(),
        path: format!(
            "/rooms/{}/redact/{}",
            redaction.room_id, redaction.event_id
        ),
        id: redaction.txn_id.to_string(),
    };
    let event_id = rooms
        .redact(Redact {
            room_id: redaction.room_id,
            sender: caller.user_id,
            event_id: redaction.event_id,
            content,
            transaction: Some(transaction),
        })
        .await
        .map_err(refuse)?;
    Ok(Reply(Response::new(event_id)))
}
