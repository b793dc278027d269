//! `PUT /_matrix/client/v3/presence/{userId}/status`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3presenceuseridstatus>

use axum::extract::State;
use myelin_rooms::Rooms;
use ruma::api::client::presence::set_presence::v3::{Request as Operation, Response};

use super::refuse;
use crate::{
    error::{Refusal, Result},
    extract::{Reply, Request},
    shared::presence_state,
};

/// Sets the caller's presence and his status message; without one, he has none from now on.
pub(crate) async fn set(
    State(rooms): State<Rooms>,
    request: Request<Operation>,
) -> Result<Reply<Response>> {
    let Request { body, caller, .. } = request;
    if body.user_id != caller.user_id {
        return Err(Refusal::forbidden("You can set your own presence alone."));
    }
    let state = presence_state(&body.presence)?;
    rooms
        .set_presence(
            caller.user,
            caller.device_id.as_str(),
            state,
            body.status_msg,
        )
        .await
        .map_err(refuse)?;
    Ok(Reply(Response::new()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::{Value, json};

    use crate::testing::{Server, User, encode, text};

    /// Time goes by, and what was collected is told.
    async fn pass(server: &Server, time: Duration) {
        server.clock.advance(time);
        let presence = server.rooms.presence();
        presence.step().await;
        server.clock.advance(Duration::from_millis(200));
        presence.step().await;
    }

    async fn set(server: &Server, user: &User, body: &Value) {
        let path = format!("/presence/{}/status", user.id);
        server.put(&path, user, body).await.ok();
    }

    /// What `user` is shown after `since`, and his next token. It does not make him online.
    async fn news(server: &Server, user: &User, since: &str, more: &str) -> (Value, String) {
        let query = format!("set_presence=offline&since={since}{more}");
        let sync = server.sync(user, &query).await;
        let events = sync["presence"]["events"].clone();
        (events, text(&sync["next_batch"]))
    }

    #[tokio::test]
    async fn those_who_share_a_room_see_what_is_set() {
        let (server, alice, bob) = Server::with_two_users().await;
        let room = server
            .room(&alice, &json!({ "preset": "public_chat" }))
            .await;
        server.join(&room, &bob).await;
        let stranger = server.register("carol").await;
        let start = text(&server.sync(&bob, "set_presence=offline").await["next_batch"]);
        let outside = text(&server.sync(&stranger, "set_presence=offline").await["next_batch"]);

        set(
            &server,
            &alice,
            &json!({ "presence": "online", "status_msg": "Testing" }),
        )
        .await;
        let (nothing, _) = news(&server, &bob, &start, "").await;
        assert_eq!(nothing, json!([]), "it is collected first");
        pass(&server, Duration::ZERO).await;
        let (told, next) = news(&server, &bob, &start, "").await;
        let expected = json!([{
            "type": "m.presence",
            "sender": alice.id,
            "content": {
                "presence": "online",
                "currently_active": true,
                "last_active_ago": 200,
                "status_msg": "Testing",
            },
        }]);
        assert_eq!(told, expected);
        assert_eq!(news(&server, &bob, &next, "").await.0, json!([]));
        assert_eq!(news(&server, &stranger, &outside, "").await.0, json!([]));

        for body in [
            json!({ "presence": "unavailable" }),
            json!({ "presence": "unavailable" }),
        ] {
            set(&server, &alice, &body).await;
        }
        pass(&server, Duration::ZERO).await;
        let (told, next) = news(&server, &bob, &next, "").await;
        assert_eq!(told[0]["content"]["presence"], "unavailable");
        assert_eq!(told[0]["content"].get("status_msg"), None);
        assert_eq!(told.as_array().map(Vec::len), Some(1));
        // She does not sync, and so she is gone after a while.
        pass(&server, Duration::from_secs(30)).await;
        let (told, _) = news(&server, &bob, &next, "").await;
        assert_eq!(told[0]["content"]["presence"], "offline");
    }

    #[tokio::test]
    async fn a_sync_says_that_somebody_is_there() {
        let (server, alice, bob) = Server::with_two_users().await;
        let room = server
            .room(&alice, &json!({ "preset": "public_chat" }))
            .await;
        server.join(&room, &bob).await;
        let mut next = text(&server.sync(&bob, "set_presence=offline").await["next_batch"]);
        for (query, time, expected) in [
            ("set_presence=unavailable", 0, "unavailable"),
            ("", 0, "online"),
            ("", 299, "unavailable"),
        ] {
            // While she polls on, she is there, and at last idle.
            for _ in 0..time / 20 {
                pass(&server, Duration::from_secs(20)).await;
                server.sync(&alice, query).await;
            }
            server.sync(&alice, query).await;
            pass(&server, Duration::from_secs(time % 20)).await;
            let (told, token) = news(&server, &bob, &next, "").await;
            let told = told.as_array().and_then(|events| events.last());
            let told = told.expect("there is something to tell");
            assert_eq!(told["content"]["presence"], expected);
            next = token;
        }
        // What she does makes her online again.
        server.say(&room, &alice, "I am here").await;
        pass(&server, Duration::ZERO).await;
        let (told, _) = news(&server, &bob, &next, "").await;
        assert_eq!(told[0]["content"]["currently_active"], true);
        server
            .get("/sync?set_presence=asleep", &alice)
            .await
            .refused(400, "M_INVALID_PARAM");
    }

    #[tokio::test]
    async fn filters_say_of_whom_and_of_how_many() {
        let (server, alice, bob) = Server::with_two_users().await;
        let room = server
            .room(&alice, &json!({ "preset": "public_chat" }))
            .await;
        server.join(&room, &bob).await;
        for name in ["carol", "dave"] {
            let user = server.register(name).await;
            server.join(&room, &user).await;
            set(&server, &user, &json!({ "presence": "online" })).await;
        }
        pass(&server, Duration::ZERO).await;
        let senders = |events: &Value| {
            let events = events.as_array().expect("events").iter();
            events
                .map(|event| text(&event["sender"]))
                .collect::<Vec<_>>()
        };
        let filter = |filter: Value| format!("filter={}", encode(&filter.to_string()));
        for (presence, expected) in [
            (json!({}), vec!["@carol:hs1", "@dave:hs1"]),
            (json!({ "senders": ["@dave:hs1"] }), vec!["@dave:hs1"]),
            (json!({ "not_senders": ["@dave:hs1"] }), vec!["@carol:hs1"]),
            (json!({ "not_types": ["m.presence"] }), vec![]),
            (
                json!({ "types": ["m.presence"], "limit": 1 }),
                vec!["@carol:hs1"],
            ),
        ] {
            let query = filter(json!({ "presence": presence }));
            let sync = server
                .sync(&bob, &format!("set_presence=offline&{query}"))
                .await;
            assert_eq!(senders(&sync["presence"]["events"]), expected, "{presence}");
            let next = text(&sync["next_batch"]);
            let (rest, _) = news(&server, &bob, &next, &format!("&{query}")).await;
            let left = presence["limit"] == 1;
            assert_eq!(
                senders(&rest),
                if left { vec!["@dave:hs1"] } else { vec![] }
            );
        }
    }

    #[tokio::test]
    async fn a_waiting_sync_is_woken_in_small_rooms_alone() {
        let server = Server::with(|config| config.presence.max_room_members = 2).await;
        let alice = server.register("alice").await;
        let bob = server.register("bob").await;
        let room = server
            .room(&alice, &json!({ "preset": "public_chat" }))
            .await;
        server.join(&room, &bob).await;
        let start = text(&server.sync(&bob, "set_presence=offline").await["next_batch"]);
        let wait = format!("/sync?timeout=30000&set_presence=offline&since={start}");
        let (sync, ()) = tokio::join!(async { server.get(&wait, &bob).await.ok() }, async {
            tokio::time::sleep(Duration::from_millis(10)).await;
            set(&server, &alice, &json!({ "presence": "online" })).await;
            pass(&server, Duration::ZERO).await;
        });
        assert_eq!(sync["presence"]["events"][0]["sender"], alice.id);

        let carol = server.register("carol").await;
        server.join(&room, &carol).await;
        let next = text(&server.sync(&bob, "set_presence=offline").await["next_batch"]);
        set(&server, &alice, &json!({ "presence": "unavailable" })).await;
        pass(&server, Duration::ZERO).await;
        let (told, _) = news(&server, &bob, &next, "").await;
        assert_eq!(told, json!([]), "three are too many");
        let first = server.sync(&carol, "set_presence=offline").await;
        assert_eq!(first["presence"]["events"], json!([]));
    }

    #[tokio::test]
    async fn a_status_message_outlives_a_restart() {
        let (server, alice, bob) = Server::with_two_users().await;
        let room = server
            .room(&alice, &json!({ "preset": "public_chat" }))
            .await;
        server.join(&room, &bob).await;
        let status = json!({ "presence": "online", "status_msg": "On holiday" });
        set(&server, &alice, &status).await;
        pass(&server, Duration::ZERO).await;
        let next = text(&server.sync(&bob, "set_presence=offline").await["next_batch"]);
        server.clock.advance(Duration::from_secs(5));
        let server = server.restart().await;
        let (told, next) = news(&server, &bob, &next, "").await;
        assert_eq!(told, json!([]), "nobody is known to be there");
        server.sync(&alice, "").await;
        pass(&server, Duration::ZERO).await;
        let (told, _) = news(&server, &bob, &next, "").await;
        assert_eq!(told[0]["content"]["status_msg"], "On holiday");
        assert_eq!(told.as_array().map(Vec::len), Some(1));
    }

    #[tokio::test]
    async fn presence_can_be_turned_off() {
        let server = Server::with(|config| config.presence.enabled = false).await;
        let alice = server.register("alice").await;
        let bob = server.register("bob").await;
        let room = server
            .room(&alice, &json!({ "preset": "public_chat" }))
            .await;
        server.join(&room, &bob).await;
        let status = json!({ "presence": "online", "status_msg": "Testing" });
        set(&server, &alice, &status).await;
        pass(&server, Duration::ZERO).await;
        let first = server.sync(&bob, "").await;
        assert_eq!(first["presence"]["events"], json!([]));
        let path = format!("/presence/{}/status", alice.id);
        let answer = server.get(&path, &bob).await.ok();
        assert_eq!(answer, json!({ "presence": "offline" }));
    }

    #[tokio::test]
    async fn nobody_sets_the_presence_of_another_or_nonsense() {
        let (server, alice, bob) = Server::with_two_users().await;
        let path = format!("/presence/{}/status", alice.id);
        let online = json!({ "presence": "online" });
        server
            .put(&path, &bob, &online)
            .await
            .refused(403, "M_FORBIDDEN");
        let long = json!({ "presence": "online", "status_msg": "x".repeat(2_000) });
        for body in [json!({ "presence": "asleep" }), long] {
            server
                .put(&path, &alice, &body)
                .await
                .refused(400, "M_INVALID_PARAM");
        }
    }
}
