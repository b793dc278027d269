//! `GET /_matrix/client/v3/room_keys/keys/{roomId}`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3room_keyskeysroomid>

use axum::{extract::State, response::Response};
use myelin_e2ee::E2ee;
use ruma::{OwnedRoomId, api::auth_scheme::AccessToken};

use super::{
    Version,
    body::{self, Shape},
    no_such_backup,
};
use crate::{
    error::{Refusal, Result},
    extract::Call,
};

/// Answers with the keys of a room in a backup of the caller.
pub(crate) async fn get(State(e2ee): State<E2ee>, call: Call<AccessToken>) -> Result<Response> {
    let room_id: OwnedRoomId = call.id(0)?;
    let Version { version } = call.query()?;
    let reader = e2ee
        .read_backup(call.caller.user, version, Some(&room_id))
        .await
        .map_err(Refusal::internal)?
        .ok_or_else(no_such_backup)?;
    body::answer(Shape::Sessions, reader).await
}

#[cfg(test)]
mod tests {
    use http::header::CONTENT_LENGTH;
    use serde_json::{Map, Value, json};

    use super::super::testing::{backup, key, put};
    use crate::testing::Server;

    #[tokio::test]
    async fn a_room_has_its_own_keys_alone() {
        let (server, alice, bob) = Server::with_two_users().await;
        let version = backup(&server, &alice).await;
        let path = |room: &str| format!("/room_keys/keys/{room}?version={version}");
        let empty = server.get(&path("!a:hs1"), &alice).await.ok();
        assert_eq!(empty, json!({ "sessions": {} }));
        // One room's id begins as another's.
        let few = json!({ "sessions": { "s": key(1) } });
        put(&server, &alice, &path("!a:hs1"), &few).await;
        let sessions: Map<String, Value> = (0..1_200)
            .map(|number| (format!("s{number}"), key(number)))
            .collect();
        let many = json!({ "sessions": sessions });
        put(&server, &alice, &path("!a:hs12"), &many).await;
        for _ in 0..2 {
            assert_eq!(server.get(&path("!a:hs1"), &alice).await.ok(), few);
            let answer = server.get(&path("!a:hs12"), &alice).await;
            assert!(!answer.headers.contains_key(CONTENT_LENGTH));
            assert_eq!(answer.ok(), many);
        }
        server
            .get(&path("!a:hs1"), &bob)
            .await
            .refused(404, "M_NOT_FOUND");
        server
            .get("/room_keys/keys/!a:hs1?version=17", &alice)
            .await
            .refused(404, "M_NOT_FOUND");
    }
}
