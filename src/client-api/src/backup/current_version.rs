//! `GET /_matrix/client/v3/room_keys/version`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3room_keysversion>

use axum::{Json, extract::State};
use myelin_e2ee::E2ee;
use myelin_rooms::Rooms;
use ruma::api::auth_scheme::AccessToken;

use super::Info;
use crate::{
    error::{Refusal, Result},
    extract::Call,
};

/// Answers with the caller's newest backup.
pub(crate) async fn get(
    State(e2ee): State<E2ee>,
    State(rooms): State<Rooms>,
    call: Call<AccessToken>,
) -> Result<Json<Info>> {
    let user = call.caller.user;
    let backup = rooms
        .store()
        .read(move |view| e2ee.current_backup(view, user))
        .await
        .map_err(Refusal::internal)?
        .ok_or_else(|| Refusal::not_found("You have no backup."))?;
    Ok(Json(backup.into()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::{ALGORITHM, backup};
    use crate::testing::Server;

    const PATH: &str = "/room_keys/version";

    #[tokio::test]
    async fn the_newest_backup_is_shown_to_its_owner() {
        let (server, alice, bob) = Server::with_two_users().await;
        server.get(PATH, &alice).await.refused(404, "M_NOT_FOUND");
        let first = backup(&server, &alice).await;
        let second = backup(&server, &alice).await;
        for _ in 0..2 {
            let shown = server.get(PATH, &alice).await.ok();
            let etag = shown["etag"].clone();
            assert!(etag.is_string());
            assert_eq!(
                shown,
                json!({
                    "algorithm": ALGORITHM,
                    "auth_data": { "public_key": "abc" },
                    "count": 0,
                    "etag": etag,
                    "version": second,
                })
            );
        }
        let path = format!("{PATH}/{second}");
        server.delete(&path, &alice, &json!({})).await.ok();
        assert_eq!(server.get(PATH, &alice).await.ok()["version"], first);
        server.get(PATH, &bob).await.refused(404, "M_NOT_FOUND");
    }
}
