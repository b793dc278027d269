//! `POST /_matrix/client/v3/room_keys/version`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3room_keysversion>

use axum::{Json, extract::State};
use myelin_data::RawJson;
use myelin_e2ee::{CreateBackupError, E2ee};
use ruma::api::{auth_scheme::AccessToken, error::ErrorKind};
use serde_json::{Value, json};

use super::Description;
use crate::{
    error::{Refusal, Result},
    extract::Call,
};

fn refuse(error: CreateBackupError) -> Refusal {
    match error {
        CreateBackupError::NotAnObject => {
            Refusal::bad_request(ErrorKind::BadJson, "auth_data is an object.")
        }
        CreateBackupError::TooLarge => Refusal::too_large("This is too large to be kept."),
        CreateBackupError::TooMany => Refusal::bad_request(
            ErrorKind::Unknown,
            "You have as many backups as this server keeps for one user; delete some.",
        ),
        CreateBackupError::Failed(cause) => Refusal::internal(cause),
    }
}

/// Makes a backup, which takes the caller's keys from now on.
pub(crate) async fn create(
    State(e2ee): State<E2ee>,
    call: Call<AccessToken>,
) -> Result<Json<Value>> {
    let Description {
        algorithm,
        auth_data,
        ..
    } = call.json()?;
    let version = e2ee
        .create_backup(call.caller.user, algorithm, RawJson(auth_data))
        .await
        .map_err(refuse)?;
    Ok(Json(json!({ "version": version })))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::testing::{Server, text};

    const PATH: &str = "/room_keys/version";

    #[tokio::test]
    async fn each_backup_has_a_name_of_its_own_and_the_last_is_the_current_one() {
        let (server, alice, bob) = Server::with_two_users().await;
        let body = json!({ "algorithm": "m.megolm_backup.v1", "auth_data": { "foo": "bar" } });
        let mut names = Vec::new();
        for _ in 0..3 {
            let version = text(&server.post(PATH, &alice, &body).await.ok()["version"]);
            let current = server.get(PATH, &alice).await.ok();
            assert_eq!(current["version"], version);
            assert!(!names.contains(&version));
            names.push(version);
        }
        server.get(PATH, &bob).await.refused(404, "M_NOT_FOUND");
    }

    #[tokio::test]
    async fn what_describes_no_backup_is_refused() {
        let server = Server::new().await;
        let alice = server.register("alice").await;
        for body in [
            json!({}),
            json!({ "algorithm": "a" }),
            json!({ "auth_data": {} }),
            json!({ "algorithm": 1, "auth_data": {} }),
            json!({ "algorithm": "a", "auth_data": "text" }),
            json!({ "algorithm": "a", "auth_data": [] }),
        ] {
            server
                .post(PATH, &alice, &body)
                .await
                .refused(400, "M_BAD_JSON");
        }
        let large = json!({ "algorithm": "a", "auth_data": { "x": "x".repeat(70_000) } });
        server
            .post(PATH, &alice, &large)
            .await
            .refused(413, "M_TOO_LARGE");
        server.get(PATH, &alice).await.refused(404, "M_NOT_FOUND");
    }
}
