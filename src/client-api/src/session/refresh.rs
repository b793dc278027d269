//! `POST /_matrix/client/v3/refresh`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3refresh>

use axum::extract::State;
use myelin_accounts::{Accounts, RefreshError, Secret};
use ruma::api::client::session::refresh_token::v3::{Request as Operation, Response};

use crate::{
    error::{Refusal, Result},
    extract::{Reply, Request},
};

fn refuse(error: RefreshError) -> Refusal {
    match error {
        RefreshError::Unknown => Refusal::unknown_token(false),
        RefreshError::Failed(cause) => Refusal::internal(cause),
    }
}

/// Gives out the next pair of tokens.
pub(crate) async fn refresh(
    State(accounts): State<Accounts>,
    request: Request<Operation>,
) -> Result<Reply<Response>> {
    let pair = accounts
        .refresh(&Secret::new(request.body.refresh_token))
        .await
        .map_err(refuse)?;
    let mut response = Response::new(pair.access_token.into_exposed());
    response.refresh_token = Some(pair.refresh_token.into_exposed());
    response.expires_in_ms = Some(pair.expires_in);
    Ok(Reply(response))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::Method;
    use serde_json::{Value, json};

    use crate::testing::{Answer, PASSWORD, Server, User, in_room, proof, text};

    /// Logs alice in so that she can refresh; her session and the token for that.
    async fn refreshable(server: &Server) -> (User, String) {
        let mut alice = server.register("alice").await;
        let mut body = proof(&alice, PASSWORD);
        body["refresh_token"] = true.into();
        let answer = server.stranger(Method::POST, "/login", &body).await.ok();
        alice.token = text(&answer["access_token"]);
        alice.device = text(&answer["device_id"]);
        (alice, text(&answer["refresh_token"]))
    }

    async fn refresh(server: &Server, token: &str) -> Answer {
        let body = json!({ "refresh_token": token });
        server.stranger(Method::POST, "/refresh", &body).await
    }

    #[tokio::test]
    async fn an_expired_token_is_exchanged_for_another() {
        let server = Server::new().await;
        let (mut alice, token) = refreshable(&server).await;
        server.get("/account/whoami", &alice).await.ok();
        server.clock.advance(Duration::from_secs(301));
        let refused = server.get("/account/whoami", &alice).await;
        assert_eq!(refused.refused(401, "M_UNKNOWN_TOKEN")["soft_logout"], true);
        let answer = refresh(&server, &token).await.ok();
        assert!(answer["refresh_token"].is_string());
        assert_eq!(answer["expires_in_ms"], 300_000);
        alice.token = text(&answer["access_token"]);
        let who = server.get("/account/whoami", &alice).await.ok();
        assert_eq!(who["device_id"], alice.device);
    }

    #[tokio::test]
    async fn a_token_serves_twice_only_while_nobody_used_what_it_gave() {
        let server = Server::new().await;
        let (mut alice, token) = refreshable(&server).await;
        let lost = refresh(&server, &token).await.ok();
        let found = refresh(&server, &token).await.ok();
        alice.token = text(&lost["access_token"]);
        server
            .get("/account/whoami", &alice)
            .await
            .refused(401, "M_UNKNOWN_TOKEN");
        alice.token = text(&found["access_token"]);
        server.get("/account/whoami", &alice).await.ok();
        refresh(&server, &token)
            .await
            .refused(401, "M_UNKNOWN_TOKEN");
        refresh(&server, &text(&found["refresh_token"])).await.ok();
    }

    #[tokio::test]
    async fn a_transaction_outlives_the_token_that_began_it() {
        let server = Server::new().await;
        let (mut alice, token) = refreshable(&server).await;
        let room = server.room(&alice, &json!({})).await;
        let path = in_room(&room, "/send/m.room.message/abc");
        let content = json!({ "msgtype": "m.text", "body": "first" });
        let first = server.put(&path, &alice, &content).await.ok();
        alice.token = text(&refresh(&server, &token).await.ok()["access_token"]);
        assert_eq!(server.put(&path, &alice, &content).await.ok(), first);
        let sync = server.sync(&alice, "").await;
        let events = &sync["rooms"]["join"][&room]["timeline"]["events"];
        let sent = events
            .as_array()
            .and_then(|events| {
                events
                    .iter()
                    .find(|event| event["event_id"] == first["event_id"])
            })
            .expect("the event is there");
        assert_eq!(sent["unsigned"]["transaction_id"], "abc");
    }

    #[tokio::test]
    async fn tokens_that_are_none_are_refused() {
        let server = Server::new().await;
        let (alice, token) = refreshable(&server).await;
        refresh(&server, "nonsense")
            .await
            .refused(401, "M_UNKNOWN_TOKEN");
        // An access token is no refresh token.
        refresh(&server, &alice.token)
            .await
            .refused(401, "M_UNKNOWN_TOKEN");
        server
            .stranger(Method::POST, "/refresh", &Value::Null)
            .await
            .refused(400, "M_BAD_JSON");
        server.post("/logout", &alice, &json!({})).await.ok();
        refresh(&server, &token)
            .await
            .refused(401, "M_UNKNOWN_TOKEN");
    }
}
