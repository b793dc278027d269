//! `POST /_matrix/client/v3/user/{userId}/openid/request_token`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3useruseridopenidrequest_token>

use axum::extract::State;
use myelin_accounts::{Accounts, OPENID_TOKEN_LIFETIME};
use ruma::{
    api::client::account::request_openid_token::v3::{Request as Operation, Response},
    authentication::TokenType,
};

use crate::{
    error::{Refusal, Result},
    extract::{Reply, Request},
};

/// Gives out a token by which a third party learns from this server who the caller is.
pub(crate) async fn request(
    State(accounts): State<Accounts>,
    request: Request<Operation>,
) -> Result<Reply<Response>> {
    let Request { body, caller, .. } = request;
    if body.user_id != caller.user_id {
        return Err(Refusal::forbidden(
            "You can ask for tokens of your own alone.",
        ));
    }
    let token = accounts
        .new_openid_token(caller.user)
        .await
        .map_err(Refusal::internal)?;
    let server = accounts.settings().server_name.clone();
    Ok(Reply(Response::new(
        token.into_exposed(),
        TokenType::Bearer,
        server,
        OPENID_TOKEN_LIFETIME,
    )))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::testing::Server;

    #[tokio::test]
    async fn a_token_is_given_to_its_user_and_to_nobody_else() {
        let (server, alice, bob) = Server::with_two_users().await;
        let path = "/user/@alice:hs1/openid/request_token";
        let first = server.post(path, &alice, &json!({})).await.ok();
        let second = server.post(path, &alice, &json!({})).await.ok();
        assert_ne!(first["access_token"], second["access_token"]);
        assert_eq!(first["token_type"], "Bearer");
        assert_eq!(first["matrix_server_name"], "hs1");
        assert_eq!(first["expires_in"], 3600);
        server
            .post(path, &bob, &json!({}))
            .await
            .refused(403, "M_FORBIDDEN");
        // It is no access token.
        let mut stranger = alice.clone();
        stranger.token = first["access_token"].as_str().expect("text").to_owned();
        server
            .get("/account/whoami", &stranger)
            .await
            .refused(401, "M_UNKNOWN_TOKEN");
    }
}
