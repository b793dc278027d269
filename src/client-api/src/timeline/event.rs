//! `GET /_matrix/client/v3/rooms/{roomId}/event/{eventId}`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomideventeventid>

use axum::{Json, extract::State};
use myelin_federation::Federation;
use myelin_rooms::read::ReadError;
use ruma::api::client::room::get_room_event::v3::Request as Operation;
use serde_json::value::RawValue;

use crate::{
    error::{Refusal, Result},
    extract::Request,
    shared::{refuse_read, viewer},
};

/// Whether there is no such event or the caller may not see it, the specification does not let him know.
pub(super) fn refuse(error: ReadError) -> Refusal {
    match error {
        ReadError::RoomNotFound | ReadError::NotInRoom | ReadError::NotFound => {
            Refusal::not_found("There is no such event, or you may not see it.")
        }
        error @ (ReadError::Incomplete | ReadError::Store(_)) => refuse_read(error),
    }
}

/// Answers with one event.
pub(crate) async fn get(
    State(federation): State<Federation>,
    request: Request<Operation>,
) -> Result<Json<Box<RawValue>>> {
    let query = request.body;
    federation
        .client_event(&viewer(&request.caller), &query.room_id, &query.event_id)
        .await
        .map(Json)
        .map_err(refuse)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::testing::{Answer, Server, User, encode, in_room};

    async fn fetch(server: &Server, room: &str, event: &str, user: &User) -> Answer {
        let path = in_room(room, &format!("/event/{}", encode(event)));
        server.get(&path, user).await
    }

    /// Who may see a message depends on the history visibility and on what bob did before and after it.
    #[tokio::test]
    async fn the_history_visibility_decides_who_sees_an_event() {
        for (visibility, before, after, seen) in [
            ("shared", "join", "", true),
            ("shared", "", "join", true),
            ("shared", "", "", false),
            ("joined", "", "join", false),
            ("joined", "join", "", true),
            ("invited", "invite", "join", true),
            ("invited", "", "invite join", false),
            ("world_readable", "", "", true),
        ] {
            let (server, alice, bob) = Server::with_two_users().await;
            let state = json!({
                "type": "m.room.history_visibility",
                "content": { "history_visibility": visibility },
            });
            let request = json!({ "preset": "public_chat", "initial_state": [state] });
            let room = server.room(&alice, &request).await;
            let act = async |acts: &str| {
                for act in acts.split_whitespace() {
                    match act {
                        "join" => server.join(&room, &bob).await,
                        act => drop(server.act(act, &room, &alice, &bob).await.ok()),
                    }
                }
            };
            act(before).await;
            let event = server.say(&room, &alice, "Hello world").await;
            act(after).await;
            for _ in 0..2 {
                let answer = fetch(&server, &room, &event, &bob).await;
                if seen {
                    let shown = answer.ok();
                    let content = json!({ "msgtype": "m.text", "body": "Hello world" });
                    assert_eq!(shown["content"], content);
                    assert_eq!(shown["type"], "m.room.message");
                    assert_eq!(shown["room_id"], room);
                    assert_eq!(shown["sender"], alice.id);
                    assert_eq!(shown["event_id"], event);
                    assert!(shown["origin_server_ts"].is_number());
                    let private = [
                        "auth_events",
                        "prev_events",
                        "hashes",
                        "signatures",
                        "depth",
                    ];
                    assert!(
                        private.iter().all(|key| shown[key] == Value::Null),
                        "{shown}"
                    );
                } else {
                    answer.refused(404, "M_NOT_FOUND");
                }
            }
        }
    }

    #[tokio::test]
    async fn an_event_says_what_the_viewer_was_to_the_room_then() {
        let (server, alice, bob) = Server::with_two_users().await;
        let room = server
            .room(&alice, &json!({ "preset": "public_chat" }))
            .await;
        let before = server.say(&room, &alice, "prejoin").await;
        server.join(&room, &bob).await;
        let after = server.say(&room, &alice, "postjoin").await;
        for (event, membership) in [(&before, "leave"), (&after, "join")] {
            let shown = fetch(&server, &room, event, &bob).await.ok();
            assert_eq!(shown["unsigned"]["membership"], membership);
        }
    }

    #[tokio::test]
    async fn what_is_not_there_is_not_found() {
        let server = Server::new().await;
        let alice = server.register("alice").await;
        let (room, other) = (
            server.room(&alice, &json!({})).await,
            server.room(&alice, &json!({})).await,
        );
        let event = server.say(&room, &alice, "here").await;
        for (room, event) in [
            (room.as_str(), "$nothing"),
            (other.as_str(), event.as_str()),
            ("!nowhere:hs1", event.as_str()),
        ] {
            fetch(&server, room, event, &alice)
                .await
                .refused(404, "M_NOT_FOUND");
        }
    }
}
