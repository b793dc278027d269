//! `POST /_matrix/client/v3/logout`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3logout>

use axum::extract::State;
use myelin_accounts::{Accounts, LogoutError};
use ruma::api::client::session::logout::v3::{Request as Operation, Response};

use crate::{
    error::{Refusal, Result},
    extract::{Reply, Request},
};

pub(super) fn refuse(error: LogoutError) -> Refusal {
    match error {
        LogoutError::Failed(cause) => Refusal::internal(cause),
    }
}

/// Ends the session that asks, and deletes its device.
pub(crate) async fn logout(
    State(accounts): State<Accounts>,
    request: Request<Operation>,
) -> Result<Reply<Response>> {
    accounts
        .logout(request.caller.user, &request.caller.device_id)
        .await
        .map_err(refuse)?;
    Ok(Reply(Response::new()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::testing::Server;

    #[tokio::test]
    async fn the_session_ends_with_its_device_and_the_others_stay() {
        let server = Server::new().await;
        let first = server.register("alice").await;
        let second = server.login("alice").await;
        let devices = async || server.get("/devices", &first).await.ok()["devices"].clone();
        assert_eq!(devices().await.as_array().map(Vec::len), Some(2));
        server.post("/logout", &second, &json!({})).await.ok();
        server
            .get("/sync", &second)
            .await
            .refused(401, "M_UNKNOWN_TOKEN");
        // Nor can it be ended twice.
        server
            .post("/logout", &second, &json!({}))
            .await
            .refused(401, "M_UNKNOWN_TOKEN");
        let left = devices().await;
        assert_eq!(left.as_array().map(Vec::len), Some(1));
        assert_eq!(left[0]["device_id"], first.device);
    }
    #[tokio::test]
    async fn what_is_kept_about_a_device_goes_with_it() {
        let server = Server::new().await;
        let first = server.register("alice").await;
        let second = server.login("alice").await;
        let kinds = [
            "m.local_notification_settings",
            "org.matrix.msc3890.local_notification_settings",
        ];
        let path =
            |kind: &str, device: &str| format!("/user/@alice:hs1/account_data/{kind}.{device}");
        for kind in kinds {
            for user in [&first, &second] {
                let content = json!({ "is_silenced": true });
                let path = path(kind, &user.device);
                server.put(&path, &first, &content).await.ok();
            }
        }
        server.post("/logout", &second, &json!({})).await.ok();
        for kind in kinds {
            server
                .get(&path(kind, &second.device), &first)
                .await
                .refused(404, "M_NOT_FOUND");
            server.get(&path(kind, &first.device), &first).await.ok();
        }
        // Syncs find neither the one nor a trace of the other.
        let sync = server.sync(&first, "").await;
        let text = sync["account_data"].to_string();
        assert!(text.contains(&first.device) && !text.contains(&second.device));
    }
}
