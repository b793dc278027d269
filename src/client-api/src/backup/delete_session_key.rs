//! `DELETE /_matrix/client/v3/room_keys/keys/{roomId}/{sessionId}`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#delete_matrixclientv3room_keyskeysroomidsessionid>

use axum::{Json, extract::State};
use myelin_e2ee::{E2ee, KeysToDelete};
use ruma::{OwnedRoomId, api::auth_scheme::AccessToken};

use super::{Counts, delete_keys::remove};
use crate::{error::Result, extract::Call};

/// Deletes the key of a session from a backup of the caller.
pub(crate) async fn delete(
    State(e2ee): State<E2ee>,
    call: Call<AccessToken>,
) -> Result<Json<Counts>> {
    let room_id: OwnedRoomId = call.id(0)?;
    let session = KeysToDelete::Session(room_id, call.arg(1).to_owned());
    remove(&e2ee, &call, session).await
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::{backup, key, put};
    use crate::testing::Server;

    #[tokio::test]
    async fn other_sessions_keep_their_keys() {
        let (server, alice, bob) = Server::with_two_users().await;
        let version = backup(&server, &alice).await;
        let path = |session: &str| format!("/room_keys/keys/!a:hs1/{session}?version={version}");
        for session in ["s", "st"] {
            put(&server, &alice, &path(session), &key(1)).await;
        }
        server
            .delete(&path("s"), &bob, &json!({}))
            .await
            .refused(404, "M_NOT_FOUND");
        let counts = server.delete(&path("s"), &alice, &json!({})).await.ok();
        assert_eq!(counts["count"], 1);
        let again = server.delete(&path("s"), &alice, &json!({})).await.ok();
        assert_eq!(again, counts);
        server
            .get(&path("s"), &alice)
            .await
            .refused(404, "M_NOT_FOUND");
        server.get(&path("st"), &alice).await.ok();
        server
            .delete("/room_keys/keys/!a:hs1/s?version=17", &alice, &json!({}))
            .await
            .refused(404, "M_NOT_FOUND");
    }
}
