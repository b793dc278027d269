//! `GET /_matrix/client/v3/room_keys/keys`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3room_keyskeys>

use axum::{extract::State, response::Response};
use myelin_e2ee::E2ee;
use ruma::api::auth_scheme::AccessToken;

use super::{
    Version,
    body::{self, Shape},
    no_such_backup,
};
use crate::{
    error::{Refusal, Result},
    extract::Call,
};

/// Answers with all keys of a backup of the caller.
pub(crate) async fn get(State(e2ee): State<E2ee>, call: Call<AccessToken>) -> Result<Response> {
    let Version { version } = call.query()?;
    let reader = e2ee
        .read_backup(call.caller.user, version, None)
        .await
        .map_err(Refusal::internal)?
        .ok_or_else(no_such_backup)?;
    body::answer(Shape::Rooms, reader).await
}

#[cfg(test)]
mod tests {
    use http::header::CONTENT_LENGTH;
    use serde_json::{Map, Value, json};

    use super::super::testing::{backup, key, put};
    use crate::testing::Server;

    #[tokio::test]
    async fn a_backup_is_read_whole_by_its_owner() {
        let (server, alice, bob) = Server::with_two_users().await;
        let version = backup(&server, &alice).await;
        let path = format!("/room_keys/keys?version={version}");
        let empty = server.get(&path, &alice).await.ok();
        assert_eq!(empty, json!({ "rooms": {} }));
        let body = json!({ "rooms": { "!a:hs1": { "sessions": { "\"s\"": key(5) } } } });
        put(&server, &alice, &path, &body).await;
        for _ in 0..2 {
            let answer = server.get(&path, &alice).await;
            assert!(answer.headers.contains_key(CONTENT_LENGTH));
            assert_eq!(answer.headers["content-type"], "application/json");
            assert_eq!(answer.ok(), body);
        }
        server.get(&path, &bob).await.refused(404, "M_NOT_FOUND");
        for (path, status, errcode) in [
            ("/room_keys/keys?version=17", 404, "M_NOT_FOUND"),
            ("/room_keys/keys", 400, "M_INVALID_PARAM"),
        ] {
            server.get(path, &alice).await.refused(status, errcode);
        }
    }

    #[tokio::test]
    async fn a_large_backup_comes_in_parts_and_whole() {
        let server = Server::new().await;
        let alice = server.register("alice").await;
        let version = backup(&server, &alice).await;
        let path = format!("/room_keys/keys?version={version}");
        let mut rooms = Map::new();
        for room in 0..30 {
            let sessions: Map<String, Value> = (0..70)
                .map(|number| (format!("s{number}"), key(number)))
                .collect();
            rooms.insert(format!("!{room}:hs1"), json!({ "sessions": sessions }));
        }
        let body = json!({ "rooms": rooms });
        let counts = put(&server, &alice, &path, &body).await;
        assert_eq!(counts["count"], 2_100);
        let answer = server.get(&path, &alice).await;
        assert!(
            !answer.headers.contains_key(CONTENT_LENGTH),
            "its length was known, so that it was made whole"
        );
        assert_eq!(answer.ok(), body);
    }
}
