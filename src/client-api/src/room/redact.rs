//! `PUT /_matrix/client/v3/rooms/{roomId}/redact/{eventId}/{txnId}`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3roomsroomidredacteventidtxnid>

use axum::extract::State;
use myelin_rooms::{JsonObject, Redact, RedactError, Rooms};
use ruma::api::client::redact::redact_event::v3::{Request as Operation, Response};

use crate::{
    error::{Refusal, Result},
    extract::{Reply, Request},
    shared::{not_in_room, refuse_append, transaction},
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
    let path = format!("/rooms/{}/redact/{}", redaction.room_id, redaction.event_id);
    let transaction = transaction(&caller, path, redaction.txn_id.as_str())?;
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::testing::{Server, encode, in_room, text};

    #[tokio::test]
    async fn the_content_is_gone_and_the_reason_is_there() {
        for version in ["10", "11", "12"] {
            let (server, alice, bob) = Server::with_two_users().await;
            let request = json!({ "preset": "public_chat", "room_version": version });
            let room = server.room(&alice, &request).await;
            server.join(&room, &bob).await;
            let event = server.say(&room, &alice, "expected message body").await;
            let shown = in_room(&room, &format!("/event/{}", encode(&event)));
            assert_eq!(
                server.get(&shown, &bob).await.ok()["content"]["msgtype"],
                "m.text"
            );
            let path = in_room(&room, &format!("/redact/{}/txn", encode(&event)));
            let body = json!({ "reason": "reasons..." });
            let sent = server.put(&path, &alice, &body).await.ok();
            assert_eq!(server.put(&path, &alice, &body).await.ok(), sent);
            let after = server.get(&shown, &bob).await.ok();
            assert_eq!(after["content"], json!({}));
            let because = &after["unsigned"]["redacted_because"];
            assert_eq!(because["event_id"], sent["event_id"]);
            assert_eq!(because["content"]["reason"], "reasons...");
            let redaction = in_room(
                &room,
                &format!("/event/{}", encode(&text(&sent["event_id"]))),
            );
            let redaction = server.get(&redaction, &bob).await.ok();
            let place = if version == "10" {
                &redaction
            } else {
                &redaction["content"]
            };
            assert_eq!(place["redacts"], event);
        }
    }

    #[tokio::test]
    async fn only_some_may_redact_and_only_what_is_there() {
        let (server, alice, bob) = Server::with_two_users().await;
        let room = server
            .room(&alice, &json!({ "preset": "public_chat" }))
            .await;
        let event = server.say(&room, &alice, "mine").await;
        let path = |event: &str| in_room(&room, &format!("/redact/{}/txn", encode(event)));
        let none = json!({});
        server
            .put(&path(&event), &bob, &none)
            .await
            .refused(403, "M_FORBIDDEN");
        server.join(&room, &bob).await;
        server
            .put(&path(&event), &bob, &none)
            .await
            .refused(403, "M_FORBIDDEN");
        server
            .put(&path("$nothing"), &bob, &none)
            .await
            .refused(404, "M_NOT_FOUND");
        // It may come from elsewhere yet, and she may redact whatever comes.
        server.put(&path("$nothing"), &alice, &none).await.ok();
        let nowhere = in_room("!nowhere:hs1", &format!("/redact/{}/txn", encode(&event)));
        server
            .put(&nowhere, &alice, &none)
            .await
            .refused(403, "M_FORBIDDEN");
        // Whoever wrote it may always take it back.
        let own = server.say(&room, &bob, "his").await;
        server.put(&path(&own), &bob, &none).await.ok();
    }
}
