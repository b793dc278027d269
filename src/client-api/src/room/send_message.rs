//! `PUT /_matrix/client/v3/rooms/{roomId}/send/{eventType}/{txnId}`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3roomsroomidsendeventtypetxnid>

use axum::extract::State;
use myelin_rooms::{Rooms, SendMessage};
use ruma::api::client::message::send_message_event::v3::{Request as Operation, Response};

use super::send_state::refuse;
use crate::{
    error::Result,
    extract::{Reply, Request},
    shared::{content, transaction},
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
    let path = format!("/rooms/{}/send/{event_type}", event.room_id);
    let transaction = transaction(&caller, path, event.txn_id.as_str())?;
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

#[cfg(test)]
mod tests {
    use http::Method;
    use serde_json::{Value, json};

    use crate::testing::{PASSWORD, Server, in_room, proof, text};

    fn hello() -> Value {
        json!({ "msgtype": "m.text", "body": "hello" })
    }

    #[tokio::test]
    async fn a_message_is_sent_and_its_sender_recognises_it() {
        let (server, alice, bob) = Server::with_two_users().await;
        let room = server
            .room(&alice, &json!({ "preset": "public_chat" }))
            .await;
        server.join(&room, &bob).await;
        let path = in_room(&room, "/send/m.room.message/abcdefg");
        let sent = server.put(&path, &alice, &hello()).await.ok();
        let event = in_room(&room, &format!("/event/{}", text(&sent["event_id"])));
        let other = server.login("alice").await;
        for (viewer, transaction) in [
            (&alice, json!("abcdefg")),
            (&other, Value::Null),
            (&bob, Value::Null),
        ] {
            let event = server.get(&event, viewer).await.ok();
            assert_eq!(event["content"], hello());
            assert_eq!(event["unsigned"]["transaction_id"], transaction);
        }
    }

    #[tokio::test]
    async fn a_transaction_id_has_at_most_255_bytes() {
        let server = Server::new().await;
        let alice = server.register("alice").await;
        let room = server.room(&alice, &json!({})).await;
        let path = |length| {
            in_room(
                &room,
                &format!("/send/m.room.message/{}", "x".repeat(length)),
            )
        };
        server.put(&path(255), &alice, &hello()).await.ok();
        let refused = server.put(&path(256), &alice, &hello()).await;
        refused.refused(400, "M_INVALID_PARAM");
    }

    #[tokio::test]
    async fn a_transaction_is_of_one_device_and_one_path() {
        let server = Server::new().await;
        let alice = server.register("alice").await;
        let rooms = [
            server.room(&alice, &json!({})).await,
            server.room(&alice, &json!({})).await,
        ];
        let path = |room: usize| in_room(&rooms[room], "/send/m.room.message/abc");
        let first = server.put(&path(0), &alice, &hello()).await.ok();
        let other = json!({ "msgtype": "m.text", "body": "other" });
        for content in [hello(), other] {
            assert_eq!(server.put(&path(0), &alice, &content).await.ok(), first);
        }
        // Another login to the same device goes on with its transactions.
        let mut login = proof(&alice, PASSWORD);
        login["device_id"] = alice.device.clone().into();
        let mut again = alice.clone();
        let answer = server.stranger(Method::POST, "/login", &login).await.ok();
        again.token = text(&answer["access_token"]);
        assert_eq!(server.put(&path(0), &again, &hello()).await.ok(), first);
        let sync = server.sync(&again, "").await;
        let events = sync["rooms"]["join"][&rooms[0]]["timeline"]["events"].clone();
        let events = events.as_array().expect("a timeline");
        let sent = events
            .iter()
            .find(|event| event["event_id"] == first["event_id"]);
        assert_eq!(
            sent.expect("it is there")["unsigned"]["transaction_id"],
            "abc"
        );

        assert_ne!(server.put(&path(1), &again, &hello()).await.ok(), first);
        let device = server.login("alice").await;
        assert_ne!(server.put(&path(0), &device, &hello()).await.ok(), first);
        let kind = in_room(&rooms[0], "/send/a.b/abc");
        assert_ne!(server.put(&kind, &again, &hello()).await.ok(), first);
    }

    #[tokio::test]
    async fn what_cannot_be_sent_is_refused() {
        let (server, alice, bob) = Server::with_two_users().await;
        let room = server.room(&alice, &json!({})).await;
        let path = in_room(&room, "/send/m.room.message/1");
        server
            .put(&path, &bob, &hello())
            .await
            .refused(403, "M_FORBIDDEN");
        let nowhere = in_room("!nowhere:hs1", "/send/m.room.message/1");
        server
            .put(&nowhere, &alice, &hello())
            .await
            .refused(403, "M_FORBIDDEN");
        let large =
            json!({ "msgtype": "m.text", "body": "and they don't stop coming ".repeat(2700) });
        server
            .put(&path, &alice, &large)
            .await
            .refused(413, "M_TOO_LARGE");
        let whole = format!("/_matrix/client/v3{}", in_room(&room, "/send/a.b/1"));
        for (body, errcode) in [
            (r#"{"body": 9007199254740992}"#, "M_BAD_JSON"),
            (r#"{"body": -9007199254740992}"#, "M_BAD_JSON"),
            (r#"{"body": 1.1}"#, "M_BAD_JSON"),
            (r#"{"body": Infinity}"#, "M_NOT_JSON"),
            (r#"{"body": -Infinity}"#, "M_NOT_JSON"),
            (r#"{"body": NaN}"#, "M_NOT_JSON"),
            ("[]", "M_BAD_JSON"),
            ("5", "M_BAD_JSON"),
        ] {
            server
                .send(Method::PUT, &whole, Some(&alice.token), body.into())
                .await
                .refused(400, errcode);
        }
        // None of these has used the transaction up.
        server.put(&path, &alice, &hello()).await.ok();
    }
}
