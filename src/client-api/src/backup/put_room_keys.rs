//! `PUT /_matrix/client/v3/room_keys/keys/{roomId}`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3room_keyskeysroomid>

use axum::{Json, extract::State};
use myelin_e2ee::E2ee;
use ruma::{OwnedRoomId, api::auth_scheme::AccessToken};

use super::{
    Counts,
    put_keys::{RoomKeys, store},
};
use crate::{error::Result, extract::Call};

/// Backs up keys of a room.
pub(crate) async fn put(State(e2ee): State<E2ee>, call: Call<AccessToken>) -> Result<Json<Counts>> {
    let room_id: OwnedRoomId = call.id(0)?;
    let body: RoomKeys = call.json()?;
    store(&e2ee, &call, body.of(room_id).collect()).await
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::{backup, key, put};
    use crate::testing::Server;

    #[tokio::test]
    async fn keys_join_those_that_the_room_has() {
        let (server, alice, bob) = Server::with_two_users().await;
        let version = backup(&server, &alice).await;
        let path = format!("/room_keys/keys/!a:hs1?version={version}");
        let first = json!({ "sessions": { "s1": key(5), "s2": key(5) } });
        let counts = put(&server, &alice, &path, &first).await;
        assert_eq!(counts["count"], 2);
        assert_eq!(put(&server, &alice, &path, &first).await, counts);
        let more = json!({ "sessions": { "s2": key(6), "s3": key(6) } });
        assert_eq!(put(&server, &alice, &path, &more).await["count"], 3);
        assert_eq!(
            server.get(&path, &alice).await.ok(),
            json!({ "sessions": { "s1": key(5), "s2": key(5), "s3": key(6) } })
        );
        server
            .put(&path, &bob, &first)
            .await
            .refused(404, "M_NOT_FOUND");
        let path = format!("/room_keys/keys/nonsense?version={version}");
        server
            .put(&path, &alice, &first)
            .await
            .refused(400, "M_INVALID_PARAM");
    }
}
