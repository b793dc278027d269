//! `POST /_matrix/client/v3/logout/all`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3logoutall>

use axum::extract::State;
use myelin_accounts::Accounts;
use ruma::api::client::session::logout_all::v3::{Request as Operation, Response};

use super::logout::refuse;
use crate::{
    error::Result,
    extract::{Reply, Request},
};

/// Ends all of the caller's sessions, and deletes their devices.
pub(crate) async fn logout(
    State(accounts): State<Accounts>,
    request: Request<Operation>,
) -> Result<Reply<Response>> {
    accounts
        .logout_all(request.caller.user)
        .await
        .map_err(refuse)?;
    Ok(Reply(Response::new()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::testing::Server;

    #[tokio::test]
    async fn every_session_of_the_caller_ends() {
        let server = Server::new().await;
        let first = server.register("alice").await;
        let second = server.login("alice").await;
        let bob = server.register("bob").await;
        server.post("/logout/all", &second, &json!({})).await.ok();
        for session in [&first, &second] {
            server
                .get("/sync", session)
                .await
                .refused(401, "M_UNKNOWN_TOKEN");
            server
                .post("/logout/all", session, &json!({}))
                .await
                .refused(401, "M_UNKNOWN_TOKEN");
        }
        server.get("/account/whoami", &bob).await.ok();
        let again = server.login("alice").await;
        let devices = server.get("/devices", &again).await.ok();
        assert_eq!(devices["devices"].as_array().map(Vec::len), Some(1));
    }
}
