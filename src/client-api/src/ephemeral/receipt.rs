//! `POST /_matrix/client/v3/rooms/{roomId}/receipt/{receiptType}/{eventId}`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidreceiptreceipttypeeventid>

use axum::extract::State;
use myelin_accounts::Accounts;
use myelin_data::rooms::ReceiptKind;
use myelin_rooms::{NewReceipt, Rooms, Thread};
use ruma::{
    api::client::receipt::create_receipt::v3::{ReceiptType, Request as Operation, Response},
    events::receipt::ReceiptThread,
};

use super::{read_markers::set_fully_read, refuse_receipt};
use crate::{
    error::{Refusal, Result},
    extract::{Reply, Request},
};

/// Notes how far the caller has read.
pub(crate) async fn set(
    State(rooms): State<Rooms>,
    State(accounts): State<Accounts>,
    request: Request<Operation>,
) -> Result<Reply<Response>> {
    let Request { body, caller, .. } = request;
    let kind = match body.receipt_type {
        ReceiptType::Read => ReceiptKind::Read,
        ReceiptType::ReadPrivate => ReceiptKind::ReadPrivate,
        ReceiptType::FullyRead => {
            if body.thread != ReceiptThread::Unthreaded {
                return Err(Refusal::invalid("A fully-read marker has no thread."));
            }
            set_fully_read(&rooms, &accounts, &caller, &body.room_id, &body.event_id).await?;
            return Ok(Reply(Response::new()));
        }
        other => {
            return Err(Refusal::invalid(format!(
                "There is no receipt type {:?}.",
                other.as_str()
            )));
        }
    };
    let receipt = NewReceipt {
        kind,
        thread: thread(body.thread)?,
        event_id: body.event_id,
    };
    rooms
        .set_receipts(&body.room_id, &caller.user_id, vec![receipt])
        .await
        .map_err(refuse_receipt)?;
    Ok(Reply(Response::new()))
}

fn thread(thread: ReceiptThread) -> Result<Thread> {
    match thread {
        ReceiptThread::Unthreaded => Ok(Thread::Unthreaded),
        ReceiptThread::Main => Ok(Thread::Main),
        ReceiptThread::Thread(root) => Ok(Thread::Root(root)),
        _ => Err(Refusal::invalid(
            "The thread is neither main nor an event id.",
        )),
    }
}

#[cfg(test)]
mod tests {
    use http::Method;
    use serde_json::{Value, json};

    use crate::testing::{Server, User, encode, in_room};

    /// The receipts that a user is shown.
    async fn receipts(server: &Server, room: &str, user: &User) -> Value {
        let sync = server.sync(user, "").await;
        let events = sync["rooms"]["join"][room]["ephemeral"]["events"].clone();
        let events = events.as_array().expect("events");
        let found = events.iter().find(|event| event["type"] == "m.receipt");
        found.map_or(Value::Null, |event| {
            assert!(event.get("room_id").is_none(), "{event}");
            event["content"].clone()
        })
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
                let shown = receipts(&server, &room, user).await;
                let receipt = &shown[&event][kind][&alice.id];
                assert_eq!(
                    receipt["ts"].is_number(),
                    sees,
                    "{kind} for {}: {shown}",
                    user.id
                );
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
        let shown = receipts(&server, &room, &alice).await;
        assert_eq!(shown[reply]["m.read"][&alice.id]["thread_id"], root);
        assert_eq!(shown[&root]["m.read"][&alice.id]["thread_id"], "main");
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
