//! `PUT /_matrix/client/v3/room_keys/keys/{roomId}/{sessionId}`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3room_keyskeysroomidsessionid>

use axum::{Json, extract::State};
use myelin_e2ee::{E2ee, SessionKey};
use ruma::{OwnedRoomId, api::auth_scheme::AccessToken};

use super::{Counts, KeyData, put_keys::store};
use crate::{error::Result, extract::Call};

/// Backs up the key of a session.
pub(crate) async fn put(State(e2ee): State<E2ee>, call: Call<AccessToken>) -> Result<Json<Counts>> {
    let room_id: OwnedRoomId = call.id(0)?;
    let data: KeyData = call.json()?;
    let key = SessionKey {
        room_id,
        session_id: call.arg(1).to_owned(),
        key: data.into(),
    };
    store(&e2ee, &call, vec![key]).await
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::testing::{backup, put};
    use crate::testing::Server;

    /// A key of this rank, which remembers how it came.
    fn key(is_verified: bool, first_message_index: u64, forwarded_count: u64) -> Value {
        json!({
            "first_message_index": first_message_index,
            "forwarded_count": forwarded_count,
            "is_verified": is_verified,
            "session_data": { "of": [is_verified, first_message_index, forwarded_count] },
        })
    }

    #[tokio::test]
    async fn the_better_key_of_a_session_is_kept() {
        let (server, alice, bob) = Server::with_two_users().await;
        let version = backup(&server, &alice).await;
        // From the worst to the best, each after and before every other.
        let ranks = [
            key(false, 11, 6),
            key(false, 11, 5),
            key(false, 10, 7),
            key(false, 10, 6),
            key(true, 11, 0),
            key(true, 10, 6),
            key(true, 10, 5),
        ];
        for (index, old) in ranks.iter().enumerate() {
            for (other, new) in ranks.iter().enumerate() {
                // What else the id of a session may hold must not matter.
                let session = format!("{index}%2F{other}%3F");
                let path = format!("/room_keys/keys/!foo:hs1/{session}?version={version}");
                let first = put(&server, &alice, &path, old).await;
                let second = put(&server, &alice, &path, new).await;
                let kept = server.get(&path, &alice).await.ok();
                let better = other > index;
                assert_eq!(kept, if better { new.clone() } else { old.clone() });
                assert_eq!(second["etag"] != first["etag"], better, "{old} {new}");
                assert_eq!(second["count"], first["count"]);
            }
        }
        let path = format!("/room_keys/keys/!foo:hs1/a?version={version}");
        server
            .put(&path, &bob, &ranks[0])
            .await
            .refused(404, "M_NOT_FOUND");
    }
}
