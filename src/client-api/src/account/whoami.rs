//! `GET /_matrix/client/v3/account/whoami`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3accountwhoami>

use ruma::api::client::account::whoami::v3::{Request as Operation, Response};

use crate::extract::{Reply, Request};

/// Answers whose token it is.
pub(crate) async fn get(request: Request<Operation>) -> Reply<Response> {
    let mut response = Response::new(request.caller.user_id, false);
    response.device_id = Some(request.caller.device_id);
    Reply(response)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::testing::{PASSWORD, Server, proof};

    #[tokio::test]
    async fn each_session_learns_its_user_and_device() {
        let server = Server::new().await;
        let first = server.register("alice").await;
        let second = server.login("alice").await;
        for session in [&first, &second, &first] {
            let who = json!({ "user_id": "@alice:hs1", "device_id": session.device });
            assert_eq!(server.get("/account/whoami", session).await.ok(), who);
        }
    }

    #[tokio::test]
    async fn whoever_is_gone_learns_nothing() {
        let server = Server::new().await;
        let alice = server.register("alice").await;
        let body = json!({ "auth": proof(&alice, PASSWORD) });
        server.post("/account/deactivate", &alice, &body).await.ok();
        server
            .get("/account/whoami", &alice)
            .await
            .refused(401, "M_UNKNOWN_TOKEN");
    }
}
