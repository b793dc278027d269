//! `GET /_matrix/client/v3/rooms/{roomId}/context/{eventId}`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidcontexteventid>

use axum::{Json, extract::State};
use myelin_federation::Federation;
use myelin_rooms::read::Context;
use ruma::api::client::context::get_context::v3::Request as Operation;

use super::event::refuse;
use crate::{
    error::Result,
    extract::Request,
    shared::{count, viewer},
};

/// Answers with an event and what happened around it.
pub(crate) async fn get(
    State(federation): State<Federation>,
    request: Request<Operation>,
) -> Result<Json<Context>> {
    let query = request.body;
    federation
        .context(
            &viewer(&request.caller),
            &query.room_id,
            &query.event_id,
            Some(count(query.limit)),
            query.filter,
        )
        .await
        .map(Json)
        .map_err(refuse)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::testing::{Server, encode, in_room, text};

    fn ids(events: &Value) -> Vec<String> {
        let events = events.as_array().expect("events");
        events
            .iter()
            .map(|event| text(&event["event_id"]))
            .collect()
    }

    #[tokio::test]
    async fn whoever_sees_an_event_because_it_is_his_own_sees_nothing_of_the_room() {
        let (server, alice, bob) = Server::with_two_users().await;
        let room = server.room(&alice, &json!({ "name": "secret" })).await;
        server.act("invite", &room, &alice, &bob).await.ok();
        let since = text(&server.sync(&bob, "").await["next_batch"]);
        server.leave(&room, &bob).await;
        let synced = server.sync(&bob, &format!("since={since}")).await;
        let left = &synced["rooms"]["leave"][&room]["timeline"]["events"];
        let declined = ids(left).pop().expect("he is told that he declined");
        let path = in_room(&room, &format!("/context/{}", encode(&declined)));
        let context = server.get(&path, &bob).await.ok();
        assert_eq!(context["event"]["event_id"], declined);
        assert_eq!(context["state"], json!([]));
    }

    #[tokio::test]
    async fn an_event_is_shown_between_its_neighbours() {
        let (server, alice, _) = Server::with_two_users().await;
        let room = server.room(&alice, &json!({})).await;
        let mut said = Vec::new();
        for number in 0..5 {
            said.push(
                server
                    .say(&room, &alice, &format!("message {number}"))
                    .await,
            );
        }
        let path = in_room(&room, &format!("/context/{}", encode(&said[2])));
        for _ in 0..2 {
            let context = server.get(&format!("{path}?limit=4"), &alice).await.ok();
            assert_eq!(context["event"]["event_id"], said[2]);
            assert_eq!(
                ids(&context["events_before"]),
                [said[1].clone(), said[0].clone()]
            );
            assert_eq!(
                ids(&context["events_after"]),
                [said[3].clone(), said[4].clone()]
            );
            let state = context["state"].as_array().expect("state");
            assert!(state.iter().any(|event| event["type"] == "m.room.create"));
            for (token, direction, first) in [("start", "b", None), ("end", "f", Some(&said[4]))] {
                let from = text(&context[token]);
                let page = in_room(&room, &format!("/messages?dir={direction}&from={from}"));
                let page = ids(&server.get(&page, &alice).await.ok()["chunk"]);
                if let Some(first) = first {
                    assert!(!page.contains(first), "{direction}");
                }
                assert!(
                    !page.contains(&said[2]) && !page.contains(&said[1]),
                    "{direction}"
                );
            }
        }
        let context = server.get(&format!("{path}?limit=0"), &alice).await.ok();
        assert_eq!(context["event"]["event_id"], said[2]);
        assert_eq!(
            ids(&context["events_before"]).len() + ids(&context["events_after"]).len(),
            0
        );
    }

    #[tokio::test]
    async fn what_is_not_there_or_not_shown_is_refused() {
        let (server, alice, bob) = Server::with_two_users().await;
        let room = server.room(&alice, &json!({})).await;
        let event = server.say(&room, &alice, "mine").await;
        let path = |room: &str, event: &str| in_room(room, &format!("/context/{}", encode(event)));
        server
            .get(&path(&room, &event), &bob)
            .await
            .refused(404, "M_NOT_FOUND");
        server
            .get(&path(&room, "$nothing"), &alice)
            .await
            .refused(404, "M_NOT_FOUND");
        server
            .get(&path("!nowhere:hs1", &event), &alice)
            .await
            .refused(404, "M_NOT_FOUND");
        let query = format!("{}?limit=nonsense", path(&room, &event));
        server
            .get(&query, &alice)
            .await
            .refused(400, "M_INVALID_PARAM");
    }
}
