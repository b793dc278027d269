//! `POST /_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device/{device_id}/events`, of MSC3814

use axum::{Json, extract::State};
use myelin_e2ee::{DehydratedMessagesError, E2ee};
use myelin_rooms::{Rooms, token::InboxPlace};
use myelin_types::Pos;
use ruma::api::auth_scheme::AccessToken;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{
    error::{Refusal, Result},
    extract::Call,
};

fn refuse(error: DehydratedMessagesError) -> Refusal {
    match error {
        DehydratedMessagesError::OtherDevice => {
            Refusal::forbidden("This is not your dehydrated device.")
        }
        DehydratedMessagesError::Failed(cause) => Refusal::internal(cause),
    }
}

/// The body.
#[derive(Deserialize)]
struct Body {
    next_batch: Option<String>,
}

/// Some of the messages.
#[derive(Serialize)]
pub(crate) struct Answer {
    events: Vec<Box<RawValue>>,
    next_batch: String,
}

/// Answers with messages to the caller's dehydrated device; with none once a client has had all of them.
pub(crate) async fn list(
    State(e2ee): State<E2ee>,
    State(rooms): State<Rooms>,
    call: Call<AccessToken>,
) -> Result<Json<Answer>> {
    let Body { next_batch } = call.json()?;
    let after = match next_batch {
        Some(token) => Some(
            place(&token).ok_or_else(|| Refusal::invalid("next_batch is not a token of ours."))?,
        ),
        None => None,
    };
    let (user, device_id) = (call.caller.user, call.arg(0).to_owned());
    let messages = rooms
        .store()
        .read(move |view| e2ee.dehydrated_messages(view, user, &device_id, after))
        .await
        .map_err(refuse)?;
    Ok(Json(Answer {
        events: messages.events,
        next_batch: token(messages.last),
    }))
}

/// A place in the inbox, as clients carry it.
fn token(InboxPlace { pos, index }: InboxPlace) -> String {
    format!("d{pos}.{index}")
}

/// The place that [`token`] wrote.
fn place(token: &str) -> Option<InboxPlace> {
    let (pos, index) = token.strip_prefix('d')?.split_once('.')?;
    let place = InboxPlace {
        pos: Pos(pos.parse().ok()?),
        index: index.parse().ok()?,
    };
    (self::token(place) == token).then_some(place)
}

#[cfg(test)]
mod tests {
    use http::Method;
    use serde_json::{Value, json};

    use super::super::testing::{body, dehydrated, request};
    use crate::{keys::testing::Pen, testing::Server};

    #[tokio::test]
    async fn messages_are_told_in_parts_and_again() {
        const MANY: usize = 230;
        let (server, alice, bob) = Server::with_two_users().await;
        let device = dehydrated(&alice, "d+/");
        let body = body(&device, &Pen::of(&device, 1));
        request(&server, Method::PUT, "", &alice, &body).await.ok();
        for number in 0..MANY {
            let path = format!("/sendToDevice/m.a/{number}");
            let content = json!({ "messages": { &alice.id: { "d+/": { "number": number } } } });
            server.put(&path, &bob, &content).await.ok();
        }
        let list = async |body: &Value| {
            let rest = "/d%2B%2F/events";
            request(&server, Method::POST, rest, &alice, body).await
        };
        // A client that was lost half way is followed by another.
        for _ in 0..2 {
            let (mut numbers, mut next) = (Vec::new(), json!({}));
            loop {
                let answer = list(&next).await.ok();
                let events = answer["events"].as_array().expect("a list").clone();
                assert!(events.len() <= 100);
                next = json!({ "next_batch": answer["next_batch"] });
                if events.is_empty() {
                    break;
                }
                for event in events {
                    assert_eq!(event["type"], "m.a");
                    assert_eq!(event["sender"], bob.id);
                    numbers.push(event["content"]["number"].as_u64());
                }
            }
            let expected: Vec<_> = (0..MANY as u64).map(Some).collect();
            assert_eq!(numbers, expected);
            assert_eq!(list(&next).await.ok()["events"], json!([]));
        }
    }

    #[tokio::test]
    async fn only_the_dehydrated_device_is_read_so() {
        let (server, alice, bob) = Server::with_two_users().await;
        let device = dehydrated(&alice, "d");
        let body = body(&device, &Pen::of(&device, 1));
        let list = async |user, id: &str, body: &Value| {
            let rest = format!("/{id}/events");
            request(&server, Method::POST, &rest, user, body).await
        };
        let nothing = json!({});
        list(&alice, "d", &nothing)
            .await
            .refused(403, "M_FORBIDDEN");
        request(&server, Method::PUT, "", &alice, &body).await.ok();
        list(&alice, "d", &nothing).await.ok();
        list(&alice, &alice.device, &nothing)
            .await
            .refused(403, "M_FORBIDDEN");
        list(&bob, "d", &nothing).await.refused(403, "M_FORBIDDEN");
        for token in ["", "d1", "d01.0", "x1.1", "d1.99999999999"] {
            list(&alice, "d", &json!({ "next_batch": token }))
                .await
                .refused(400, "M_INVALID_PARAM");
        }
        list(&alice, "d", &json!({ "next_batch": 1 }))
            .await
            .refused(400, "M_BAD_JSON");
    }
}
