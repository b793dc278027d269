//! `PUT /_matrix/client/v3/room_keys/keys`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3room_keyskeys>

use std::collections::BTreeMap;

use axum::{Json, extract::State};
use http::StatusCode;
use myelin_e2ee::{E2ee, PutKeysError, SessionKey};
use ruma::{
    OwnedRoomId,
    api::{
        auth_scheme::AccessToken,
        error::{ErrorKind, WrongRoomKeysVersionErrorData},
    },
};
use serde::Deserialize;

use super::{Counts, KeyData, Version, no_such_backup};
use crate::{
    error::{Refusal, Result},
    extract::Call,
};

fn refuse(error: PutKeysError) -> Refusal {
    match error {
        PutKeysError::NotFound => no_such_backup(),
        PutKeysError::WrongVersion { current } => Refusal::new(
            StatusCode::FORBIDDEN,
            ErrorKind::WrongRoomKeysVersion(WrongRoomKeysVersionErrorData::new(current)),
            "There is a newer backup, and only that one takes keys.",
        ),
        PutKeysError::InvalidSession => {
            Refusal::invalid("The id of a session is empty or too long.")
        }
        PutKeysError::NotAnObject => {
            Refusal::bad_request(ErrorKind::BadJson, "session_data is an object.")
        }
        PutKeysError::TooLarge => Refusal::too_large("A key is too large to be kept."),
        PutKeysError::TooMany => {
            Refusal::too_large("You have as many keys as this server keeps for one user.")
        }
        PutKeysError::Failed(cause) => Refusal::internal(cause),
    }
}

/// The body.
#[derive(Deserialize)]
struct Body {
    rooms: BTreeMap<OwnedRoomId, RoomKeys>,
}

/// The keys of a room.
#[derive(Deserialize)]
pub(super) struct RoomKeys {
    sessions: BTreeMap<String, KeyData>,
}

impl RoomKeys {
    /// These, as keys of `room_id`.
    pub(super) fn of(self, room_id: OwnedRoomId) -> impl Iterator<Item = SessionKey> {
        self.sessions
            .into_iter()
            .map(move |(session_id, data)| SessionKey {
                room_id: room_id.clone(),
                session_id,
                key: data.into(),
            })
    }
}

/// Backs up keys of any rooms.
pub(crate) async fn put(State(e2ee): State<E2ee>, call: Call<AccessToken>) -> Result<Json<Counts>> {
    let body: Body = call.json()?;
    let keys = body.rooms.into_iter();
    let keys = keys.flat_map(|(room_id, keys)| keys.of(room_id)).collect();
    store(&e2ee, &call, keys).await
}

/// Puts `keys` into the backup that the query names.
pub(super) async fn store(
    e2ee: &E2ee,
    call: &Call<AccessToken>,
    keys: Vec<SessionKey>,
) -> Result<Json<Counts>> {
    let Version { version } = call.query()?;
    let counts = e2ee
        .put_backup_keys(call.caller.user, version, keys)
        .await
        .map_err(refuse)?;
    Ok(Json(counts.into()))
}

#[cfg(test)]
mod tests {
    use http::Method;
    use serde_json::{Value, json};

    use super::super::testing::{backup, key, put};
    use crate::testing::Server;

    #[tokio::test]
    async fn keys_of_several_rooms_are_backed_up_at_once() {
        let (server, alice, bob) = Server::with_two_users().await;
        let version = backup(&server, &alice).await;
        let path = format!("/room_keys/keys?version={version}");
        let body = json!({ "rooms": {
            "!a:hs1": { "sessions": { "s1": key(5), "s/2": key(5) } },
            "!b": { "sessions": { "s1": key(5) } },
            "!c:hs1": { "sessions": {} },
        }});
        let first = put(&server, &alice, &path, &body).await;
        assert_eq!(first["count"], 3);
        assert_eq!(put(&server, &alice, &path, &body).await, first);
        let better = json!({ "rooms": { "!b": { "sessions": { "s1": key(4) } } } });
        let second = put(&server, &alice, &path, &better).await;
        assert_eq!(second["count"], 3);
        assert_ne!(second["etag"], first["etag"]);
        let info = server.get("/room_keys/version", &alice).await.ok();
        assert_eq!(
            (&info["count"], &info["etag"]),
            (&second["count"], &second["etag"])
        );
        assert_eq!(
            server.get(&path, &alice).await.ok(),
            json!({ "rooms": {
                "!a:hs1": { "sessions": { "s1": key(5), "s/2": key(5) } },
                "!b": { "sessions": { "s1": key(4) } },
            }})
        );
        server
            .put(&path, &bob, &body)
            .await
            .refused(404, "M_NOT_FOUND");
    }

    #[tokio::test]
    async fn whoever_writes_to_an_older_backup_is_told_of_the_newer() {
        let server = Server::new().await;
        let alice = server.register("alice").await;
        let old = backup(&server, &alice).await;
        let new = backup(&server, &alice).await;
        for (path, body) in [
            ("", json!({ "rooms": {} })),
            ("/!a:hs1", json!({ "sessions": {} })),
            ("/!a:hs1/s", key(1)),
        ] {
            let put = async |version: &str| {
                let path = format!("/room_keys/keys{path}?version={version}");
                server.put(&path, &alice, &body).await
            };
            let refused = put(&old).await.refused(403, "M_WRONG_ROOM_KEYS_VERSION");
            assert_eq!(refused["current_version"], new);
            put("17").await.refused(404, "M_NOT_FOUND");
            put(&new).await.ok();
        }
    }

    #[tokio::test]
    async fn what_is_no_key_is_refused() {
        let server = Server::new().await;
        let alice = server.register("alice").await;
        let version = backup(&server, &alice).await;
        let with = |field: &str, value: Value| {
            let mut key = key(1);
            key[field] = value;
            key
        };
        let without = |field: &str| {
            let mut key = key(1);
            key.as_object_mut().expect("an object").remove(field);
            key
        };
        for bad in [
            with("first_message_index", json!(-1)),
            with("first_message_index", json!("1")),
            with("forwarded_count", json!(1.5)),
            with("is_verified", json!("true")),
            with("session_data", json!("text")),
            without("first_message_index"),
            without("forwarded_count"),
            without("is_verified"),
            without("session_data"),
        ] {
            let of_room = json!({ "sessions": { "good": key(1), "bad": bad } });
            for (path, body) in [
                ("", json!({ "rooms": { "!a:hs1": of_room } })),
                ("/!a:hs1", of_room.clone()),
                ("/!a:hs1/bad", bad.clone()),
            ] {
                let path = format!("/room_keys/keys{path}?version={version}");
                server
                    .put(&path, &alice, &body)
                    .await
                    .refused(400, "M_BAD_JSON");
            }
        }
        let path = format!("/room_keys/keys?version={version}");
        let no_room = json!({ "rooms": { "a": { "sessions": { "s": key(1) } } } });
        server
            .put(&path, &alice, &no_room)
            .await
            .refused(400, "M_BAD_JSON");
        let long = json!({ "rooms": { "!a:hs1": { "sessions": { "x".repeat(300): key(1) } } } });
        server
            .put(&path, &alice, &long)
            .await
            .refused(400, "M_INVALID_PARAM");
        server
            .put("/room_keys/keys", &alice, &json!({ "rooms": {} }))
            .await
            .refused(400, "M_INVALID_PARAM");
        let whole = format!("/_matrix/client/v3{path}");
        server
            .send(Method::PUT, &whole, Some(&alice.token), b"{".to_vec())
            .await
            .refused(400, "M_NOT_JSON");
        let info = server.get("/room_keys/version", &alice).await.ok();
        assert_eq!(info["count"], 0);
    }
}
