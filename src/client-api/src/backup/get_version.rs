//! `GET /_matrix/client/v3/room_keys/version/{version}`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3room_keysversionversion>

use axum::{Json, extract::State};
use myelin_e2ee::E2ee;
use myelin_rooms::Rooms;
use ruma::api::auth_scheme::AccessToken;

use super::{Info, no_such_backup};
use crate::{
    error::{Refusal, Result},
    extract::Call,
};

/// Answers with one of the caller's backups.
pub(crate) async fn get(
    State(e2ee): State<E2ee>,
    State(rooms): State<Rooms>,
    call: Call<AccessToken>,
) -> Result<Json<Info>> {
    let (user, version) = (call.caller.user, call.arg(0).to_owned());
    let backup = rooms
        .store()
        .read(move |view| e2ee.backup(view, user, &version))
        .await
        .map_err(Refusal::internal)?
        .ok_or_else(no_such_backup)?;
    Ok(Json(backup.into()))
}

#[cfg(test)]
mod tests {
    use super::super::testing::backup;
    use crate::testing::Server;

    #[tokio::test]
    async fn older_backups_are_shown_too() {
        let (server, alice, bob) = Server::with_two_users().await;
        let first = backup(&server, &alice).await;
        backup(&server, &alice).await;
        let path = format!("/room_keys/version/{first}");
        for _ in 0..2 {
            let shown = server.get(&path, &alice).await.ok();
            assert_eq!(shown["version"], first);
            assert_eq!(shown["count"], 0);
        }
        server.get(&path, &bob).await.refused(404, "M_NOT_FOUND");
        for unknown in ["17", "x", "01"] {
            let path = format!("/room_keys/version/{unknown}");
            server.get(&path, &alice).await.refused(404, "M_NOT_FOUND");
        }
    }
}
