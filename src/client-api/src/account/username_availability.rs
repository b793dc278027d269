//! `GET /_matrix/client/v3/register/available`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3registeravailable>

use axum::extract::State;
use myelin_accounts::Accounts;
use ruma::api::client::account::get_username_availability::v3::{Request as Operation, Response};

use super::register::refuse_name;
use crate::{
    error::Result,
    extract::{Reply, Request},
};

/// Answers whether a name could be registered now.
pub(crate) async fn get(
    State(accounts): State<Accounts>,
    request: Request<Operation>,
) -> Result<Reply<Response>> {
    accounts
        .check_username(&request.body.username)
        .await
        .map_err(refuse_name)?;
    Ok(Reply(Response::new(true)))
}

#[cfg(test)]
mod tests {
    use http::Method;
    use serde_json::Value;

    use crate::testing::{Answer, Server, encode};

    async fn ask(server: &Server, name: &str) -> Answer {
        let path = format!("/register/available?username={}", encode(name));
        server.stranger(Method::GET, &path, &Value::Null).await
    }

    #[tokio::test]
    async fn a_free_name_is_available_until_somebody_has_it() {
        let server = Server::new().await;
        assert_eq!(ask(&server, "alice").await.ok()["available"], true);
        assert_eq!(ask(&server, "alice").await.ok()["available"], true);
        server.register("alice").await;
        ask(&server, "alice").await.refused(400, "M_USER_IN_USE");
        ask(&server, "Alice").await.refused(400, "M_USER_IN_USE");
    }

    #[tokio::test]
    async fn what_is_no_name_is_refused() {
        let server = Server::new().await;
        for name in ["a,b", "", "@alice:hs1"] {
            ask(&server, name).await.refused(400, "M_INVALID_USERNAME");
        }
        server
            .stranger(Method::GET, "/register/available", &Value::Null)
            .await
            .refused(400, "M_INVALID_PARAM");
    }
}
