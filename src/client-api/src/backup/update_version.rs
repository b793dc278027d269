//! `PUT /_matrix/client/v3/room_keys/version/{version}`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3room_keysversionversion>

use axum::{Json, extract::State};
use myelin_data::RawJson;
use myelin_e2ee::{E2ee, UpdateBackupError};
use ruma::api::{auth_scheme::AccessToken, error::ErrorKind};
use serde_json::{Map, Value};

use super::{Description, no_such_backup};
use crate::{
    error::{Refusal, Result},
    extract::Call,
};

fn refuse(error: UpdateBackupError) -> Refusal {
    match error {
        UpdateBackupError::NotFound => no_such_backup(),
        UpdateBackupError::OtherAlgorithm => Refusal::invalid("The backup has another algorithm."),
        UpdateBackupError::NotAnObject => {
            Refusal::bad_request(ErrorKind::BadJson, "auth_data is an object.")
        }
        UpdateBackupError::TooLarge => Refusal::too_large("This is too large to be kept."),
        UpdateBackupError::Failed(cause) => Refusal::internal(cause),
    }
}

/// Gives a backup of the caller other authentication data.
pub(crate) async fn update(
    State(e2ee): State<E2ee>,
    call: Call<AccessToken>,
) -> Result<Json<Map<String, Value>>> {
    let Description {
        algorithm,
        auth_data,
        version,
    } = call.json()?;
    let path = call.arg(0);
    if version.is_some_and(|version| version != path) {
        return Err(Refusal::invalid(
            "The body names another backup than the path.",
        ));
    }
    e2ee.update_backup(
        call.caller.user,
        path.to_owned(),
        algorithm,
        RawJson(auth_data),
    )
    .await
    .map_err(refuse)?;
    Ok(Json(Map::new()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::{ALGORITHM, backup};
    use crate::testing::Server;

    #[tokio::test]
    async fn the_data_changes_and_nothing_else() {
        let (server, alice, bob) = Server::with_two_users().await;
        let version = backup(&server, &alice).await;
        let path = format!("/room_keys/version/{version}");
        let before = server.get(&path, &alice).await.ok();
        let data = json!({ "public_key": "def" });
        for body in [
            json!({ "algorithm": ALGORITHM, "auth_data": data }),
            json!({ "algorithm": ALGORITHM, "auth_data": data, "version": version }),
        ] {
            assert_eq!(server.put(&path, &alice, &body).await.ok(), json!({}));
            let mut expected = before.clone();
            expected["auth_data"] = data.clone();
            assert_eq!(server.get(&path, &alice).await.ok(), expected);
        }
        for (body, errcode) in [
            (
                json!({ "algorithm": "other", "auth_data": data }),
                "M_INVALID_PARAM",
            ),
            (
                json!({ "algorithm": ALGORITHM, "auth_data": data, "version": "17" }),
                "M_INVALID_PARAM",
            ),
            (json!({ "algorithm": ALGORITHM }), "M_BAD_JSON"),
            (
                json!({ "algorithm": ALGORITHM, "auth_data": [] }),
                "M_BAD_JSON",
            ),
        ] {
            server.put(&path, &alice, &body).await.refused(400, errcode);
        }
        let body = json!({ "algorithm": ALGORITHM, "auth_data": {} });
        server
            .put(&path, &bob, &body)
            .await
            .refused(404, "M_NOT_FOUND");
        server
            .put("/room_keys/version/17", &alice, &body)
            .await
            .refused(404, "M_NOT_FOUND");
    }
}
