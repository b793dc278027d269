//! `PUT /_matrix/client/v3/sendToDevice/{eventType}/{txnId}`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3sendtodeviceeventtypetxnid>

use axum::extract::State;
use myelin_e2ee::{E2ee, Recipient, SendToDevice, SendToDeviceError};
use ruma::api::{
    client::to_device::send_event_to_device::v3::{Request as Operation, Response},
    error::ErrorKind,
};

use crate::{
    Limit,
    error::{Refusal, Result},
    extract::{Reply, Request},
    routes::Routes,
    shared::transaction,
};

/// The routes of this family.
pub(crate) fn routes(routes: Routes) -> Routes {
    routes.operation::<Operation, _, _>(Limit::Send, send)
}

fn refuse(error: SendToDeviceError) -> Refusal {
    match error {
        SendToDeviceError::NotAnObject => {
            Refusal::bad_request(ErrorKind::BadJson, "The content of a message is an object.")
        }
        SendToDeviceError::ContentTooLong | SendToDeviceError::TooMany => {
            Refusal::too_large(error.to_string())
        }
        SendToDeviceError::Failed(cause) => Refusal::internal(cause),
    }
}

/// Sends messages to devices.
async fn send(State(e2ee): State<E2ee>, request: Request<Operation>) -> Result<Reply<Response>> {
    let Request { body, caller, .. } = request;
    let event_type = body.event_type.to_string();
    let path = format!("/sendToDevice/{event_type}");
    let transaction = transaction(&caller, path, body.txn_id.as_str())?;
    let messages = body.messages.into_iter().map(|(user_id, contents)| {
        let contents = contents.into_iter().map(|(device, content)| {
            let recipient = Recipient::of(device.to_string());
            (recipient, content.into_json())
        });
        (user_id, contents.collect())
    });
    e2ee.send_to_device(SendToDevice {
        sender: caller.user,
        sender_id: caller.user_id,
        event_type,
        transaction,
        messages: messages.collect(),
    })
    .await
    .map_err(refuse)?;
    Ok(Reply(Response::new()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::{Value, json};

    use crate::testing::{Server, User, text};

    const PATH: &str = "/sendToDevice/my.test.type";

    /// Numbers the messages that a sync tells.
    fn told(sync: &Value) -> Vec<u64> {
        let events = sync["to_device"]["events"].as_array().expect("a list");
        let numbers = events.iter().map(|event| event["content"]["n"].as_u64());
        numbers.map(|number| number.expect("a number")).collect()
    }

    fn since(sync: &Value) -> String {
        format!("since={}", text(&sync["next_batch"]))
    }

    /// Waits for what is being deleted, as no client does.
    async fn settled(server: &Server) {
        let empty = server.store.commit(myelin_store::Batch::new()).await;
        empty.expect("the disk works");
    }

    async fn send(server: &Server, from: &User, to: &User, device: &str, n: u64) {
        let messages = json!({ &to.id: { device: { "n": n } } });
        server
            .put(
                &format!("{PATH}/{n}"),
                from,
                &json!({ "messages": messages }),
            )
            .await
            .ok();
    }

    #[tokio::test]
    async fn a_message_is_told_until_it_is_acknowledged() {
        let (server, alice, bob) = Server::with_two_users().await;
        let first = server.sync(&bob, "").await;
        send(&server, &alice, &bob, &bob.device, 1).await;
        // The filter of rooms does not concern it.
        let filter = "filter=%7B%22room%22%3A%7B%22rooms%22%3A%5B%5D%7D%7D";
        let mut sync = Value::Null;
        for _ in 0..3 {
            let query = format!("{filter}&{}", since(&first));
            sync = server.sync(&bob, &query).await;
            let expected = json!([{
                "type": "my.test.type", "sender": alice.id, "content": { "n": 1 },
            }]);
            assert_eq!(sync["to_device"]["events"], expected);
        }
        let after = server.sync(&bob, &since(&sync)).await;
        assert_eq!(told(&after), [0; 0]);
        settled(&server).await;
        // It is deleted now, so that not even the old token finds it.
        assert_eq!(told(&server.sync(&bob, &since(&first)).await), [0; 0]);
        assert_eq!(told(&server.sync(&bob, "").await), [0; 0]);
        send(&server, &alice, &bob, &bob.device, 2).await;
        assert_eq!(told(&server.sync(&bob, &since(&after)).await), [2]);
    }

    #[tokio::test]
    async fn a_restart_neither_loses_nor_repeats() {
        let (server, alice, bob) = Server::with_two_users().await;
        send(&server, &alice, &bob, &bob.device, 1).await;
        let first = server.sync(&bob, "").await;
        assert_eq!(told(&first), [1]);
        let server = server.restart().await;
        assert_eq!(told(&server.sync(&bob, "").await), [1]);
        let second = server.sync(&bob, &since(&first)).await;
        assert_eq!(told(&second), [0; 0]);
        settled(&server).await;
        assert_eq!(told(&server.sync(&bob, "").await), [0; 0]);
        send(&server, &alice, &bob, &bob.device, 2).await;
        let server = server.restart().await;
        assert_eq!(told(&server.sync(&bob, &since(&second)).await), [2]);
    }

    #[tokio::test]
    async fn many_messages_come_in_their_order_a_hundred_at_a_time() {
        let (server, alice, bob) = Server::with_two_users().await;
        let mut sync = server.sync(&bob, "").await;
        for n in 0..250 {
            send(&server, &alice, &bob, &bob.device, n).await;
        }
        let mut all = Vec::new();
        for expected in [100, 100, 50, 0] {
            let again = server.sync(&bob, &since(&sync)).await;
            sync = server.sync(&bob, &since(&sync)).await;
            assert_eq!(told(&again), told(&sync));
            assert_eq!(told(&sync).len(), expected);
            all.extend(told(&sync));
        }
        assert_eq!(all, (0..250).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn who_waits_is_woken() {
        let (server, alice, bob) = Server::with_two_users().await;
        let first = server.sync(&bob, "").await;
        let path = format!("/sync?timeout=60000&{}", since(&first));
        let (sync, ()) = tokio::join!(server.get(&path, &bob), async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            send(&server, &alice, &bob, &bob.device, 1).await;
        });
        assert_eq!(told(&sync.ok()), [1]);
    }

    #[tokio::test]
    async fn all_devices_are_meant_by_a_star_and_unknown_ones_passed_over() {
        let (server, alice, bob) = Server::with_two_users().await;
        let other = server.login("bob").await;
        let messages = json!({
            &bob.id: { "*": { "n": 1 }, "NOWHERE": { "n": 2 } },
            "@nobody:hs1": { "*": { "n": 3 } },
            "@somebody:elsewhere.example": { "*": { "n": 4 } },
        });
        let body = json!({ "messages": messages });
        server.put(&format!("{PATH}/1"), &alice, &body).await.ok();
        for device in [&bob, &other] {
            assert_eq!(told(&server.sync(device, "").await), [1]);
        }
        assert_eq!(told(&server.sync(&alice, "").await), [0; 0]);
    }

    #[tokio::test]
    async fn a_transaction_is_done_once() {
        let (server, alice, bob) = Server::with_two_users().await;
        for _ in 0..2 {
            send(&server, &alice, &bob, &bob.device, 1).await;
        }
        let server = server.restart().await;
        send(&server, &alice, &bob, &bob.device, 1).await;
        assert_eq!(told(&server.sync(&bob, "").await), [1]);
        // Another device of hers, and another type, have transactions of their own.
        let other = server.login("alice").await;
        send(&server, &other, &bob, &bob.device, 1).await;
        let body = json!({ "messages": { &bob.id: { "*": { "n": 2 } } } });
        server
            .put("/sendToDevice/my.other.type/1", &alice, &body)
            .await
            .ok();
        assert_eq!(told(&server.sync(&bob, "").await), [1, 1, 2]);
    }

    #[tokio::test]
    async fn what_is_malformed_or_too_much_is_refused() {
        let (server, alice, bob) = Server::with_two_users().await;
        let put = async |messages: Value| {
            let body = json!({ "messages": messages });
            server.put(&format!("{PATH}/1"), &alice, &body).await
        };
        let long = "x".repeat(70_000);
        for (messages, status, errcode) in [
            (json!({ &bob.id: { "*": 3 } }), 400, "M_BAD_JSON"),
            (json!({ &bob.id: 3 }), 400, "M_BAD_JSON"),
            (json!({ "bob": { "*": {} } }), 400, "M_BAD_JSON"),
            (
                json!({ &bob.id: { "*": { "n": long } } }),
                413,
                "M_TOO_LARGE",
            ),
        ] {
            put(messages).await.refused(status, errcode);
        }
        let nothing = server.put(&format!("{PATH}/1"), &alice, &json!({})).await;
        nothing.refused(400, "M_BAD_JSON");
        assert_eq!(told(&server.sync(&bob, "").await), [0; 0]);
        // None of these has used the transaction up.
        put(json!({ &bob.id: { "*": { "n": 1 } } })).await.ok();
        assert_eq!(told(&server.sync(&bob, "").await), [1]);
    }
}
