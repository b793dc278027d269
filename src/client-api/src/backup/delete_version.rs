//! `DELETE /_matrix/client/v3/room_keys/version/{version}`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#delete_matrixclientv3room_keysversionversion>

use axum::{Json, extract::State};
use myelin_e2ee::{DeleteBackupError, E2ee};
use ruma::api::auth_scheme::AccessToken;
use serde_json::{Map, Value};

use super::no_such_backup;
use crate::{
    error::{Refusal, Result},
    extract::Call,
};

fn refuse(error: DeleteBackupError) -> Refusal {
    match error {
        DeleteBackupError::NotFound => no_such_backup(),
        DeleteBackupError::Failed(cause) => Refusal::internal(cause),
    }
}

/// Deletes a backup of the caller with all keys in it.
pub(crate) async fn delete(
    State(e2ee): State<E2ee>,
    call: Call<AccessToken>,
) -> Result<Json<Map<String, Value>>> {
    e2ee.delete_backup(call.caller.user, call.arg(0).to_owned())
        .await
        .map_err(refuse)?;
    Ok(Json(Map::new()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::{backup, key, put};
    use crate::testing::Server;

    #[tokio::test]
    async fn a_backup_goes_with_its_keys_and_its_name_is_not_given_again() {
        let (server, alice, bob) = Server::with_two_users().await;
        let version = backup(&server, &alice).await;
        let session = format!("/room_keys/keys/!a:hs1/session?version={version}");
        put(&server, &alice, &session, &key(1)).await;
        let path = format!("/room_keys/version/{version}");
        server
            .delete(&path, &bob, &json!({}))
            .await
            .refused(404, "M_NOT_FOUND");
        for _ in 0..2 {
            let answer = server.delete(&path, &alice, &json!({})).await;
            assert_eq!(answer.ok(), json!({}));
            for gone in [
                path.as_str(),
                "/room_keys/version",
                session.as_str(),
                &format!("/room_keys/keys?version={version}"),
                &format!("/room_keys/keys/!a:hs1?version={version}"),
            ] {
                server.get(gone, &alice).await.refused(404, "M_NOT_FOUND");
            }
        }
        let next = backup(&server, &alice).await;
        assert_ne!(next, version);
        server
            .delete("/room_keys/version/17", &alice, &json!({}))
            .await
            .refused(404, "M_NOT_FOUND");
    }
}
