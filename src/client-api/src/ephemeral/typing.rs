//! `PUT /_matrix/client/v3/rooms/{roomId}/typing/{userId}`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3roomsroomidtypinguserid>

use std::time::Duration;

use axum::{Json, extract::State};
use myelin_rooms::{Rooms, TypingError};
use ruma::{OwnedRoomId, OwnedUserId, api::auth_scheme::AccessToken};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{
    error::{Refusal, Result},
    extract::Call,
    shared::{not_in_room, refuse_failure},
};

/// How long somebody types whose client does not say, in milliseconds.
const DEFAULT_TIMEOUT: u64 = 30_000;

/// The body; the time is in milliseconds.
#[derive(Deserialize)]
struct Body {
    typing: bool,
    timeout: Option<u64>,
}

fn refuse(error: TypingError) -> Refusal {
    match error {
        TypingError::RoomNotFound | TypingError::NotInRoom => not_in_room(),
        TypingError::Failure(failure) => refuse_failure(failure),
    }
}

/// Notes that the caller types, or that he stopped.
pub(crate) async fn set(
    State(rooms): State<Rooms>,
    call: Call<AccessToken>,
) -> Result<Json<Map<String, Value>>> {
    let room_id: OwnedRoomId = call.id(0)?;
    let user_id: OwnedUserId = call.id(1)?;
    if user_id != call.caller.user_id {
        return Err(Refusal::forbidden("You can type for yourself alone."));
    }
    let body: Body = call.json()?;
    let timeout = body
        .typing
        .then(|| Duration::from_millis(body.timeout.unwrap_or(DEFAULT_TIMEOUT)));
    rooms
        .set_typing(&room_id, &user_id, timeout)
        .await
        .map_err(refuse)?;
    Ok(Json(Map::new()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::testing::{Server, encode, in_room, text};

    #[tokio::test]
    async fn the_others_in_the_room_see_who_types() {
        let (server, alice, bob) = Server::with_two_users().await;
        let charlie = server.register("charlie").await;
        let room = server
            .room(&alice, &json!({ "preset": "public_chat" }))
            .await;
        server.join(&room, &bob).await;
        let since = text(&server.sync(&bob, "").await["next_batch"]);
        let outside = text(&server.sync(&charlie, "").await["next_batch"]);
        let path = in_room(&room, &format!("/typing/{}", encode(&alice.id)));
        for (body, users) in [
            (
                json!({ "typing": true, "timeout": 10_000 }),
                json!(["@alice:hs1"]),
            ),
            (
                json!({ "typing": true, "timeout": 10_000 }),
                json!(["@alice:hs1"]),
            ),
            (json!({ "typing": false }), json!([])),
            (
                json!({ "typing": true, "timeout": 0 }),
                json!(["@alice:hs1"]),
            ),
            (json!({ "typing": true }), json!(["@alice:hs1"])),
        ] {
            assert_eq!(server.put(&path, &alice, &body).await.ok(), json!({}));
            let sync = server.sync(&bob, &format!("since={since}")).await;
            let events = &sync["rooms"]["join"][&room]["ephemeral"]["events"];
            let typing = json!([{ "type": "m.typing", "content": { "user_ids": users } }]);
            assert_eq!(*events, typing, "{body}");
        }
        let sync = server.sync(&charlie, &format!("since={outside}")).await;
        assert_eq!(sync["rooms"], json!({}));
    }

    #[tokio::test]
    async fn nobody_types_for_others_or_from_outside() {
        let (server, alice, bob) = Server::with_two_users().await;
        let room = server.room(&alice, &json!({})).await;
        let path = |room: &str, user: &str| in_room(room, &format!("/typing/{}", encode(user)));
        let body = json!({ "typing": true, "timeout": 10_000 });
        for (caller, path) in [
            (&alice, path(&room, &bob.id)),
            (&bob, path(&room, &bob.id)),
            (&alice, path("!nowhere:hs1", &alice.id)),
        ] {
            server
                .put(&path, caller, &body)
                .await
                .refused(403, "M_FORBIDDEN");
        }
        let body = json!({ "timeout": 10_000 });
        let own = path(&room, &alice.id);
        server
            .put(&own, &alice, &body)
            .await
            .refused(400, "M_BAD_JSON");
    }
}
