//! `DELETE /_matrix/client/v3/room_keys/keys`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#delete_matrixclientv3room_keyskeys>

use axum::{Json, extract::State};
use myelin_e2ee::{DeleteKeysError, E2ee, KeysToDelete};
use ruma::api::auth_scheme::AccessToken;

use super::{Counts, Version, no_such_backup};
use crate::{
    error::{Refusal, Result},
    extract::Call,
};

fn refuse(error: DeleteKeysError) -> Refusal {
    match error {
        DeleteKeysError::NotFound => no_such_backup(),
        DeleteKeysError::Failed(cause) => Refusal::internal(cause),
    }
}

/// Deletes all keys from a backup of the caller.
pub(crate) async fn delete(
    State(e2ee): State<E2ee>,
    call: Call<AccessToken>,
) -> Result<Json<Counts>> {
    remove(&e2ee, &call, KeysToDelete::All).await
}

/// Deletes keys from the backup that the query names.
pub(super) async fn remove(
    e2ee: &E2ee,
    call: &Call<AccessToken>,
    which: KeysToDelete,
) -> Result<Json<Counts>> {
    let Version { version } = call.query()?;
    let counts = e2ee
        .delete_backup_keys(call.caller.user, version, which)
        .await
        .map_err(refuse)?;
    Ok(Json(counts.into()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::{backup, key, put};
    use crate::testing::Server;

    #[tokio::test]
    async fn the_keys_go_and_the_backup_stays() {
        let (server, alice, bob) = Server::with_two_users().await;
        let version = backup(&server, &alice).await;
        let path = format!("/room_keys/keys?version={version}");
        let body = json!({ "rooms": { "!a:hs1": { "sessions": { "s": key(1), "t": key(1) } } } });
        let before = put(&server, &alice, &path, &body).await;
        server
            .delete(&path, &bob, &json!({}))
            .await
            .refused(404, "M_NOT_FOUND");
        let after = server.delete(&path, &alice, &json!({})).await.ok();
        assert_eq!(after["count"], 0);
        assert_ne!(after["etag"], before["etag"]);
        assert_eq!(server.delete(&path, &alice, &json!({})).await.ok(), after);
        assert_eq!(server.get(&path, &alice).await.ok(), json!({ "rooms": {} }));
        let info = server.get("/room_keys/version", &alice).await.ok();
        assert_eq!(
            (&info["count"], &info["etag"]),
            (&after["count"], &after["etag"])
        );
        put(&server, &alice, &path, &body).await;
        assert_eq!(server.get(&path, &alice).await.ok(), body);
    }
}
