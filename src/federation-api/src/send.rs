//! `PUT /_matrix/federation/v1/send/{txnId}`
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv1sendtxnid>

use std::{sync::Arc, time::Duration};

use axum::extract::State;
use myelin_federation::{Federation, Transaction, TransactionError};
use ruma::api::{
    error::ErrorKind,
    federation::transactions::send_transaction_message::v1::{Request as Operation, Response},
};

use crate::{
    error::{Refusal, Result},
    extract::{Reply, Request},
};

/// When a server is to send a transaction again for which there is no room.
const FULL: Duration = Duration::from_secs(10);

fn refuse(error: TransactionError) -> Refusal {
    match error {
        TransactionError::TooLarge => Refusal::too_large(error.to_string()),
        TransactionError::LongId => Refusal::invalid(error.to_string()),
        TransactionError::Malformed => Refusal::bad_request(ErrorKind::BadJson, error.to_string()),
        TransactionError::Full => Refusal::too_fast(FULL),
        TransactionError::Failure(_) | TransactionError::Edus(_) | TransactionError::CutShort => {
            Refusal::internal(error)
        }
    }
}

/// Takes in a transaction; answers when its events are durable in the inbox or refused.
///
/// `origin` in the body is not looked at: who sends the transaction is proved by its signature.
pub(crate) async fn put(
    State(federation): State<Federation>,
    request: Request<Operation>,
) -> Result<Reply<Response>> {
    let Request { body, origin } = request;
    let edus = body.edus.into_iter().map(ruma::serde::Raw::into_json);
    let id = body.transaction_id.to_string();
    let transaction = Transaction::new(origin, id, body.pdus, edus.collect()).map_err(refuse)?;
    let results = federation.receive(transaction).await.map_err(refuse)?;
    let results = Arc::unwrap_or_clone(results);
    Ok(Reply(Response::new(results)))
}

#[cfg(test)]
mod tests {
    use http::Method;
    use myelin_config::Rate;
    use serde_json::{Value, json};

    use crate::testing::{CHARLIE, Here, NOW};

    fn transaction(pdus: &[Value], edus: &[Value]) -> Value {
        json!({
            "origin": "there.example",
            "origin_server_ts": NOW.0,
            "pdus": pdus,
            "edus": edus,
        })
    }

    #[tokio::test]
    async fn events_of_a_transaction_become_part_of_their_rooms() {
        let here = Here::new().await;
        let room = here.public_room().await;
        let join = here.charlie_joins(&room).await;
        let message = here.message_of_charlie(&room, &join, "hello");
        let pdu: Value = serde_json::from_str(message.json()).expect("an event is JSON");
        let mut forged = pdu.clone();
        forged["origin_server_ts"] = json!(1);
        let nowhere = json!({ "type": "m.room.message", "room_id": room });
        let body = transaction(&[pdu, forged, nowhere], &[]);
        // The same transaction again, and another one with the same events.
        for id in ["1", "1", "2"] {
            let path = format!("/_matrix/federation/v1/send/{id}");
            let answer = here
                .signed(Method::PUT, &path, Some(body.clone()))
                .await
                .ok();
            // Whether signatures fit shows later. What cannot be read has no id.
            let pdus = answer["pdus"].as_object().expect("results");
            assert_eq!(pdus[message.event_id()], json!({}), "{answer}");
            assert_eq!(pdus.len(), 2, "{answer}");
        }
        here.inbox_is_empty().await;
        assert!(here.has(&room, message.event_id()).await);
    }

    #[tokio::test]
    async fn a_server_that_asks_too_much_is_told_when_to_come_again() {
        let rate = Rate {
            per_second: 0.001,
            burst: 2,
        };
        let here = Here::limited(rate).await;
        let path = "/_matrix/federation/v1/send/1";
        let send = || here.signed(Method::PUT, path, Some(transaction(&[], &[])));
        send().await.ok();
        send().await.ok();
        let refused = send().await.refused(429, "M_LIMIT_EXCEEDED");
        assert!(
            refused["retry_after_ms"].as_u64() > Some(60_000),
            "{refused}"
        );
    }

    #[tokio::test]
    async fn receipts_are_shown_when_their_events_are_there() {
        let here = Here::new().await;
        let room = here.public_room().await;
        let join = here.charlie_joins(&room).await;
        let message = here.message_of_charlie(&room, &join, "hello");
        let pdu: Value = serde_json::from_str(message.json()).expect("an event is JSON");
        let read = |user: &str, event: &str| {
            let receipt = json!({ user: { "event_ids": [event], "data": { "ts": 1 } } });
            json!({ "edu_type": "m.receipt", "content": { &room: { "m.read": receipt } } })
        };
        let edus = [
            read(CHARLIE, message.event_id()),
            read("@alice:here.example", join.event_id()),
            read("@nobody:there.example", join.event_id()),
        ];
        let path = "/_matrix/federation/v1/send/1";
        let body = transaction(&[pdu], &edus);
        here.signed(Method::PUT, path, Some(body)).await.ok();
        here.inbox_is_empty().await;
        let receipts = here.receipts(&room);
        assert_eq!(
            receipts,
            [(CHARLIE.to_owned(), message.event_id().to_owned())]
        );
    }

    #[tokio::test]
    async fn a_denied_server_is_told_so_for_each_event() {
        let here = Here::new().await;
        let room = here.public_room().await;
        let join = here.charlie_joins(&room).await;
        here.deny_there(&room).await;
        let message = here.message_of_charlie(&room, &join, "hello");
        let pdu: Value = serde_json::from_str(message.json()).expect("an event is JSON");
        let typing = json!({
            "edu_type": "m.typing",
            "content": { "room_id": room, "user_id": CHARLIE, "typing": true },
        });
        let body = transaction(&[pdu], &[typing]);
        let path = "/_matrix/federation/v1/send/1";
        let answer = here.signed(Method::PUT, path, Some(body)).await.ok();
        let result = &answer["pdus"][message.event_id()];
        assert!(result["error"].is_string(), "{answer}");
        assert!(!here.has(&room, message.event_id()).await);
        assert!(here.typing(&room).is_empty());
    }

    #[tokio::test]
    async fn a_server_says_who_of_its_own_users_types() {
        let here = Here::new().await;
        let room = here.public_room().await;
        here.charlie_joins(&room).await;
        let typing = |user: &str, typing: bool| {
            json!({
                "edu_type": "m.typing",
                "content": { "room_id": room, "user_id": user, "typing": typing },
            })
        };
        let mut id = 0;
        let mut send = async |edus: &[Value]| {
            id += 1;
            let path = format!("/_matrix/federation/v1/send/{id}");
            let body = transaction(&[], edus);
            here.signed(Method::PUT, &path, Some(body)).await.ok();
            here.typing(&room)
        };
        let unknown = json!({ "edu_type": "org.example.unknown", "content": {} });
        assert_eq!(send(&[unknown, typing(CHARLIE, true)]).await, [CHARLIE]);
        assert_eq!(
            send(&[typing("@alice:here.example", true)]).await,
            [CHARLIE]
        );
        assert!(send(&[typing(CHARLIE, false)]).await.is_empty());
    }

    #[tokio::test]
    async fn a_transaction_that_is_too_large_is_refused() {
        let here = Here::new().await;
        let path = "/_matrix/federation/v1/send/1";
        for body in [
            transaction(&vec![json!({}); 51], &[]),
            transaction(&[], &vec![json!({ "edu_type": "a", "content": {} }); 101]),
        ] {
            let answer = here.signed(Method::PUT, path, Some(body)).await;
            answer.refused(413, "M_TOO_LARGE");
        }
        let body = transaction(&vec![json!({}); 50], &[]);
        let answer = here.signed(Method::PUT, path, Some(body)).await.ok();
        assert_eq!(answer, json!({ "pdus": {} }), "nothing in it has a name");
    }
}
