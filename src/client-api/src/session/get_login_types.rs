//! `GET /_matrix/client/v3/login`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3login>

use ruma::api::client::session::get_login_types::v3::{
    LoginType, PasswordLoginType, Request as Operation, Response,
};

use crate::extract::{Reply, Request};

/// Answers with the ways to log in.
pub(crate) async fn get(_: Request<Operation>) -> Reply<Response> {
    Reply(Response::new(vec![LoginType::Password(
        PasswordLoginType::new(),
    )]))
}

#[cfg(test)]
mod tests {
    use http::Method;
    use serde_json::{Value, json};

    use crate::testing::Server;

    #[tokio::test]
    async fn the_password_is_the_way_to_log_in() {
        let server = Server::new().await;
        for body in [Value::Null, json!({})] {
            let answer = server.stranger(Method::GET, "/login", &body).await;
            assert_eq!(answer.headers["content-type"], "application/json");
            let flows = json!({ "flows": [{ "type": "m.login.password" }] });
            assert_eq!(answer.ok(), flows);
        }
    }
}
