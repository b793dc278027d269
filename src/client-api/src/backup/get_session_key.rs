//! `GET /_matrix/client/v3/room_keys/keys/{roomId}/{sessionId}`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3room_keyskeysroomidsessionid>

use axum::{Json, extract::State};
use myelin_e2ee::E2ee;
use myelin_rooms::Rooms;
use ruma::{OwnedRoomId, api::auth_scheme::AccessToken};

use super::{KeyData, Version};
use crate::{
    error::{Refusal, Result},
    extract::Call,
};

/// Answers with the key of a session in a backup of the caller.
pub(crate) async fn get(
    State(e2ee): State<E2ee>,
    State(rooms): State<Rooms>,
    call: Call<AccessToken>,
) -> Result<Json<KeyData>> {
    let room_id: OwnedRoomId = call.id(0)?;
    let Version { version } = call.query()?;
    let (user, session_id) = (call.caller.user, call.arg(1).to_owned());
    let key = rooms
        .store()
        .read(move |view| e2ee.backup_key(view, user, &version, &room_id, &session_id))
        .await
        .map_err(Refusal::internal)?
        .ok_or_else(|| Refusal::not_found("There is no such key, or no such backup."))?;
    Ok(Json(key.into()))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{backup, key, put};
    use crate::testing::Server;

    #[tokio::test]
    async fn a_key_comes_back_as_it_was() {
        let (server, alice, bob) = Server::with_two_users().await;
        let version = backup(&server, &alice).await;
        let path = |room: &str, session: &str, version: &str| {
            format!("/room_keys/keys/{room}/{session}?version={version}")
        };
        let there = path("!a:hs1", "s", &version);
        put(&server, &alice, &there, &key(3)).await;
        for _ in 0..2 {
            assert_eq!(server.get(&there, &alice).await.ok(), key(3));
        }
        for gone in [
            path("!a:hs1", "t", &version),
            path("!b:hs1", "s", &version),
            path("!a:hs1", "s", "17"),
            path("!a:hs1", "s", "x"),
        ] {
            server.get(&gone, &alice).await.refused(404, "M_NOT_FOUND");
        }
        server.get(&there, &bob).await.refused(404, "M_NOT_FOUND");
    }
}
