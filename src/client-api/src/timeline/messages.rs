//! `GET /_matrix/client/v3/rooms/{roomId}/messages`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidmessages>

use axum::{Json, extract::State};
use myelin_federation::Federation;
use myelin_rooms::read::{Direction, Messages, MessagesQuery};
use ruma::{
    OwnedRoomId,
    api::{auth_scheme::AccessToken, client::filter::RoomEventFilter},
};
use serde::Deserialize;

use crate::{
    error::{Refusal, Result},
    extract::Call,
    shared::{refuse_read, token, viewer},
};

/// How many events a page has when the client does not say.
const DEFAULT_LIMIT: usize = 10;

/// The query. `filter` is JSON.
#[derive(Deserialize)]
struct Parameters {
    from: Option<String>,
    to: Option<String>,
    dir: Option<String>,
    limit: Option<usize>,
    filter: Option<String>,
}

/// Answers with a page of the room's history.
pub(crate) async fn page(
    State(federation): State<Federation>,
    call: Call<AccessToken>,
) -> Result<Json<Messages>> {
    let room_id: OwnedRoomId = call.id(0)?;
    let parameters: Parameters = call.query()?;
    let query = MessagesQuery {
        from: token(parameters.from.as_deref())?,
        to: token(parameters.to.as_deref())?,
        direction: direction(parameters.dir.as_deref())?,
        limit: Some(parameters.limit.unwrap_or(DEFAULT_LIMIT)),
        filter: filter(parameters.filter.as_deref())?,
        crossed: Vec::new(),
    };
    federation
        .messages(&viewer(&call.caller), &room_id, query)
        .await
        .map(Json)
        .map_err(refuse_read)
}

/// The direction; forwards for clients that leave it out, though the specification requires it: other servers read it
/// so.
fn direction(dir: Option<&str>) -> Result<Direction> {
    match dir {
        Some("b") => Ok(Direction::Backward),
        Some("f") | None => Ok(Direction::Forward),
        Some(other) => Err(Refusal::invalid(format!(
            "There is no direction {other:?}."
        ))),
    }
}

fn filter(json: Option<&str>) -> Result<RoomEventFilter> {
    json.map_or_else(
        || Ok(RoomEventFilter::default()),
        |json| {
            serde_json::from_str(json)
                .map_err(|error| Refusal::invalid(format!("This is no filter: {error}.")))
        },
    )
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::testing::{Server, User, encode, in_room, text};

    async fn page(server: &Server, room: &str, user: &User, query: &str) -> Value {
        let path = in_room(room, &format!("/messages?{query}"));
        server.get(&path, user).await.ok()
    }

    fn bodies(page: &Value) -> Vec<String> {
        let chunk = page["chunk"].as_array().expect("a chunk");
        chunk
            .iter()
            .filter_map(|event| event["content"]["body"].as_str().map(str::to_owned))
            .collect()
    }

    #[tokio::test]
    async fn a_message_is_found_from_the_sync_before_it() {
        let server = Server::new().await;
        let alice = server.register("alice").await;
        let room = server
            .room(&alice, &json!({ "preset": "public_chat" }))
            .await;
        let token = text(&server.sync(&alice, "").await["next_batch"]);
        server.say(&room, &alice, "hello").await;
        for _ in 0..2 {
            let found = page(&server, &room, &alice, &format!("dir=f&from={token}")).await;
            assert_eq!(bodies(&found), ["hello"]);
            assert_eq!(found["chunk"].as_array().map(Vec::len), Some(1));
            assert_eq!(found["start"], token);
        }
    }

    #[tokio::test]
    async fn pages_follow_each_other_in_both_directions() {
        let server = Server::new().await;
        let alice = server.register("alice").await;
        let room = server.room(&alice, &json!({})).await;
        let token = text(&server.sync(&alice, "").await["next_batch"]);
        for number in 0..7 {
            server.say(&room, &alice, &number.to_string()).await;
        }
        let mut forwards = Vec::new();
        let mut from = token.clone();
        while forwards.len() < 7 {
            let found = page(
                &server,
                &room,
                &alice,
                &format!("dir=f&limit=3&from={from}"),
            )
            .await;
            assert!(!bodies(&found).is_empty());
            forwards.extend(bodies(&found));
            from = text(&found["end"]);
        }
        assert_eq!(forwards, ["0", "1", "2", "3", "4", "5", "6"]);
        let mut backwards = Vec::new();
        let mut query = format!("dir=b&limit=3&to={token}");
        loop {
            let found = page(&server, &room, &alice, &query).await;
            backwards.extend(bodies(&found));
            match found["end"].as_str() {
                Some(end) => query = format!("dir=b&limit=3&to={token}&from={end}"),
                None => break,
            }
        }
        forwards.reverse();
        assert_eq!(backwards, forwards);
        let all = page(&server, &room, &alice, "dir=b&limit=100").await;
        let chunk = all["chunk"].as_array().expect("a chunk");
        assert_eq!(chunk[chunk.len() - 1]["type"], "m.room.create");
        assert_eq!(all.get("end"), None);
    }

    #[tokio::test]
    async fn a_filter_chooses_events_and_brings_their_senders() {
        let (server, alice, bob) = Server::with_two_users().await;
        let charlie = server.register("charlie").await;
        let room = server
            .room(&alice, &json!({ "preset": "public_chat" }))
            .await;
        for user in [&bob, &charlie] {
            server.join(&room, user).await;
        }
        server.say(&room, &bob, "before").await;
        let from = text(&server.sync(&alice, "").await["next_batch"]);
        server.say(&room, &charlie, "between").await;
        let to = text(&server.sync(&alice, "").await["next_batch"]);
        let lazy = encode(r#"{"lazy_load_members":true}"#);
        let query = format!("dir=f&filter={lazy}&from={from}&to={to}");
        let state = page(&server, &room, &alice, &query).await["state"].clone();
        assert_eq!(state.as_array().map(Vec::len), Some(1));
        assert_eq!(state[0]["type"], "m.room.member");
        assert_eq!(state[0]["state_key"], charlie.id);
        assert_eq!(state[0]["content"]["membership"], "join");
        let members = encode(r#"{"types":["m.room.member"],"senders":["@bob:hs1"]}"#);
        let found = page(&server, &room, &alice, &format!("dir=b&filter={members}")).await;
        assert_eq!(found["chunk"].as_array().map(Vec::len), Some(1));
        assert_eq!(found["chunk"][0]["state_key"], bob.id);
    }

    #[tokio::test]
    async fn lazy_loading_backwards_brings_the_creator() {
        let server = Server::new().await;
        let alice = server.register("alice").await;
        let room = server.room(&alice, &json!({})).await;
        let from = text(&server.sync(&alice, "").await["next_batch"]);
        server.say(&room, &alice, "test").await;
        let lazy = encode(r#"{"lazy_load_members":true}"#);
        let query = format!("dir=b&filter={lazy}&from={from}");
        let state = page(&server, &room, &alice, &query).await["state"].clone();
        assert_eq!(state.as_array().map(Vec::len), Some(1));
        assert_eq!(state[0]["state_key"], alice.id);
    }

    #[tokio::test]
    async fn strangers_and_nonsense_are_refused() {
        let (server, alice, bob) = Server::with_two_users().await;
        let room = server.room(&alice, &json!({})).await;
        let path = in_room(&room, "/messages");
        let get = async |query: &str| server.get(&format!("{path}?{query}"), &alice).await;
        server
            .get(&format!("{path}?dir=b"), &bob)
            .await
            .refused(403, "M_FORBIDDEN");
        let nowhere = in_room("!does-not-exist:hs1", "/messages?dir=b");
        server
            .get(&nowhere, &alice)
            .await
            .refused(403, "M_FORBIDDEN");
        // Without a direction the page goes forwards.
        let forwards = get("").await.ok();
        assert_eq!(forwards["chunk"][0]["type"], "m.room.create");
        for query in [
            "dir=x",
            "dir=b&from=nonsense",
            "dir=b&filter=nonsense",
            "dir=b&limit=x",
        ] {
            get(query).await.refused(400, "M_INVALID_PARAM");
        }
    }
}
