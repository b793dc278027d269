//! `DELETE /_matrix/client/v3/room_keys/keys/{roomId}`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#delete_matrixclientv3room_keyskeysroomid>

use axum::{Json, extract::State};
use myelin_e2ee::{E2ee, KeysToDelete};
use ruma::{OwnedRoomId, api::auth_scheme::AccessToken};

use super::{Counts, delete_keys::remove};
use crate::{error::Result, extract::Call};

/// Deletes the keys of a room from a backup of the caller.
pub(crate) async fn delete(
    State(e2ee): State<E2ee>,
    call: Call<AccessToken>,
) -> Result<Json<Counts>> {
    let room_id: OwnedRoomId = call.id(0)?;
    remove(&e2ee, &call, KeysToDelete::Room(room_id)).await
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::{backup, key, put};
    use crate::testing::Server;

    #[tokio::test]
    async fn other_rooms_keep_their_keys() {
        let (server, alice, bob) = Server::with_two_users().await;
        let version = backup(&server, &alice).await;
        let all = format!("/room_keys/keys?version={version}");
        let of_room = json!({ "sessions": { "s": key(1), "t": key(1) } });
        let body = json!({ "rooms": { "!a:hs1": of_room, "!a:hs12": of_room } });
        put(&server, &alice, &all, &body).await;
        let path = format!("/room_keys/keys/!a:hs1?version={version}");
        server
            .delete(&path, &bob, &json!({}))
            .await
            .refused(404, "M_NOT_FOUND");
        let counts = server.delete(&path, &alice, &json!({})).await.ok();
        assert_eq!(counts["count"], 2);
        assert_eq!(server.delete(&path, &alice, &json!({})).await.ok(), counts);
        assert_eq!(
            server.get(&all, &alice).await.ok(),
            json!({ "rooms": { "!a:hs12": of_room } })
        );
        server
            .delete("/room_keys/keys/!a:hs1?version=17", &alice, &json!({}))
            .await
            .refused(404, "M_NOT_FOUND");
    }
}
