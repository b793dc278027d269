//! `POST /_matrix/client/v3/rooms/{roomId}/receipt/{receiptType}/{eventId}`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidreceiptreceipttypeeventid>

use axum::{Json, extract::State};
use myelin_accounts::Accounts;
use myelin_data::rooms::ReceiptKind;
use myelin_rooms::{NewReceipt, Rooms, Thread};
use ruma::{EventId, OwnedEventId, OwnedRoomId, api::auth_scheme::AccessToken};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{read_markers::set_fully_read, refuse_receipt};
use crate::{
    error::{Refusal, Result},
    extract::Call,
};

/// The body.
#[derive(Deserialize)]
struct Body {
    thread_id: Option<Value>,
}

/// Notes how far the caller has read.
pub(crate) async fn set(
    State(rooms): State<Rooms>,
    State(accounts): State<Accounts>,
    call: Call<AccessToken>,
) -> Result<Json<Map<String, Value>>> {
    let room_id: OwnedRoomId = call.id(0)?;
    let event_id: OwnedEventId = call.id(2)?;
    let thread = thread(call.json::<Body>()?.thread_id.as_ref())?;
    let kind = match call.arg(1) {
        "m.read" => ReceiptKind::Read,
        "m.read.private" => ReceiptKind::ReadPrivate,
        "m.fully_read" => {
            if thread != Thread::Unthreaded {
                return Err(Refusal::invalid("A fully-read marker has no thread."));
            }
            set_fully_read(&rooms, &accounts, &call.caller, &room_id, &event_id).await?;
            return Ok(Json(Map::new()));
        }
        other => {
            return Err(Refusal::invalid(format!(
                "There is no receipt type {other:?}."
            )));
        }
    };
    let receipt = NewReceipt {
        kind,
        thread,
        event_id,
    };
    rooms
        .set_receipts(&room_id, &call.caller.user_id, vec![receipt])
        .await
        .map_err(refuse_receipt)?;
    Ok(Json(Map::new()))
}

fn thread(thread_id: Option<&Value>) -> Result<Thread> {
    match thread_id {
        None => Ok(Thread::Unthreaded),
        Some(Value::String(text)) if text == "main" => Ok(Thread::Main),
        Some(Value::String(text)) if text.starts_with('$') => EventId::parse(text.as_str())
            .map(Thread::Root)
            .map_err(|error| Refusal::invalid(format!("The thread is no event id: {error}."))),
        Some(_) => Err(Refusal::invalid(
            "The thread is neither main nor an event id.",
        )),
    }
}

#[cfg(test)]
mod tests {
    use http::Method;
    use serde_json::{Value, json};

    use crate::testing::{Server, User, encode, in_room};

    /// The receipts that `viewer` is shown of `user` for an event.
    async fn receipts(
        server: &Server,
        room: &str,
        viewer: &User,
        (event, kind, user): (&str, &str, &User),
    ) -> Vec<Value> {
        let sync = server.sync(viewer, "").await;
        let events = sync["rooms"]["join"][room]["ephemeral"]["events"].clone();
        events
            .as_array()
            .expect("events")
            .iter()
            .filter(|shown| shown["type"] == "m.receipt" && shown.get("room_id").is_none())
            .map(|shown| shown["content"][event][kind][&user.id].clone())
            .filter(|receipt| receipt["ts"].is_number())
            .collect()
    }

    #[tokio::test]
    async fn a_receipt_is_shown_to_those_whom_it_concerns() {
        let (server, alice, bob) = Server::with_two_users().await;
        let room = server
            .room(&alice, &json!({ "preset": "public_chat" }))
            .await;
        server.join(&room, &bob).await;
        for (kind, bob_sees) in [("m.read", true), ("m.read.private", false)] {
            let event = server.say(&room, &bob, "Hello world!").await;
            let path = in_room(&room, &format!("/receipt/{kind}/{}", encode(&event)));
            for _ in 0..2 {
                assert_eq!(server.post(&path, &alice, &json!({})).await.ok(), json!({}));
            }
            for (user, sees) in [(&alice, true), (&bob, bob_sees)] {
                let shown = receipts(&server, &room, user, (&event, kind, &alice)).await;
                assert_eq!(!shown.is_empty(), sees, "{kind} for {}", user.id);
            }
        }
    }

    #[tokio::test]
    async fn a_receipt_may_speak_of_a_thread() {
        let server = Server::new().await;
        let alice = server.register("alice").await;
        let room = server.room(&alice, &json!({})).await;
        let root = server.say(&room, &alice, "root").await;
        let content = json!({
            "msgtype": "m.text",
            "body": "reply",
            "m.relates_to": { "rel_type": "m.thread", "event_id": root },
        });
        let sent = server
            .put(&in_room(&room, "/send/m.room.message/1"), &alice, &content)
            .await
            .ok();
        let reply = sent["event_id"].as_str().expect("an id");
        let path =
            |kind: &str, event: &str| in_room(&room, &format!("/receipt/{kind}/{}", encode(event)));
        for (kind, event, thread, status) in [
            ("m.read", reply, json!(root), 200),
            ("m.read", root.as_str(), json!("main"), 200),
            ("m.read", reply, json!("main"), 400),
            ("m.read", reply, json!(""), 400),
            ("m.read", reply, json!("nonsense"), 400),
            ("m.read", reply, json!(5), 400),
            ("m.fully_read", reply, json!(root), 400),
        ] {
            let body = json!({ "thread_id": thread });
            let answer = server.post(&path(kind, event), &alice, &body).await;
            if status == 200 {
                answer.ok();
            } else {
                answer.refused(400, "M_INVALID_PARAM");
            }
        }
        for (event, thread) in [(reply, root.as_str()), (root.as_str(), "main")] {
            let shown = receipts(&server, &room, &alice, (event, "m.read", &alice)).await;
            assert_eq!(shown.len(), 1);
            assert_eq!(shown[0]["thread_id"], thread);
        }
    }

    #[tokio::test]
    async fn strangers_and_nonsense_are_refused() {
        let (server, alice, bob) = Server::with_two_users().await;
        let room = server.room(&alice, &json!({})).await;
        let event = server.say(&room, &alice, "mine").await;
        let path =
            |room: &str, kind: &str| in_room(room, &format!("/receipt/{kind}/{}", encode(&event)));
        for (user, path, status, errcode) in [
            (&bob, path(&room, "m.read"), 403, "M_FORBIDDEN"),
            (&bob, path(&room, "m.fully_read"), 403, "M_FORBIDDEN"),
            (&alice, path("!nowhere:hs1", "m.read"), 403, "M_FORBIDDEN"),
            (&alice, path(&room, "nonsense"), 400, "M_INVALID_PARAM"),
        ] {
            server
                .post(&path, user, &json!({}))
                .await
                .refused(status, errcode);
        }
        let whole = format!("/_matrix/client/v3{}", path(&room, "m.read"));
        server
            .send(Method::POST, &whole, Some(&alice.token), Vec::new())
            .await
            .ok();
    }
}
