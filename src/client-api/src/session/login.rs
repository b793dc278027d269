//! `POST /_matrix/client/v3/login`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3login>

use std::sync::Arc;

use axum::extract::State;
use myelin_accounts::{Accounts, Identifier, Login, LoginError, NewSession, Secret};
use ruma::api::{
    auth_scheme::AppserviceTokenOptional,
    client::session::login::v3::{DiscoveryInfo, HomeserverInfo, Response},
    error::ErrorKind,
};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{
    About,
    error::{Refusal, Result},
    extract::{Call, Reply},
};

fn refuse(error: LoginError) -> Refusal {
    match error {
        LoginError::Refused => Refusal::forbidden("The user name or the password is wrong."),
        LoginError::DeviceTooLong => Refusal::invalid("The device id or its name is too long."),
        LoginError::Failed(cause) => Refusal::internal(cause),
    }
}

/// The body, without what says who logs in.
#[derive(Deserialize)]
struct Body {
    #[serde(rename = "type")]
    login_type: String,
    password: Option<String>,
    device_id: Option<String>,
    initial_device_display_name: Option<String>,
    refresh_token: Option<bool>,
}

/// Opens a session for whoever knows the password.
pub(crate) async fn login(
    State(accounts): State<Accounts>,
    State(about): State<Arc<About>>,
    call: Call<AppserviceTokenOptional>,
) -> Result<Reply<Response>> {
    let body: Body = call.json()?;
    if body.login_type != "m.login.password" {
        return Err(Refusal::bad_request(
            ErrorKind::Unknown,
            "This server does not know that way to log in.",
        ));
    }
    let identifier = Identifier::in_body(&call.json::<Map<String, Value>>()?)
        .ok_or_else(|| Refusal::missing("The body does not say who logs in."))?;
    let password = body
        .password
        .ok_or_else(|| Refusal::missing("The body lacks the password."))?;
    let session = accounts
        .login(Login {
            identifier,
            password: Secret::new(password),
            session: NewSession {
                device_id: body.device_id,
                device_display_name: body.initial_device_display_name,
                refreshable: body.refresh_token.unwrap_or(false),
            },
        })
        .await
        .map_err(refuse)?;
    let mut response = Response::new(
        session.user_id,
        session.access_token.into_exposed(),
        session.device_id,
    );
    response.refresh_token = session.refresh_token.map(Secret::into_exposed);
    response.expires_in = session.expires_in;
    response.well_known = about
        .client_base_url
        .as_ref()
        .map(|url| DiscoveryInfo::new(HomeserverInfo::new(url.to_string())));
    Ok(Reply(response))
}

#[cfg(test)]
mod tests {
    use http::Method;
    use serde_json::{Value, json};

    use crate::testing::{Answer, PASSWORD, Server, proof};

    async fn login(server: &Server, body: &Value) -> Answer {
        server.stranger(Method::POST, "/login", body).await
    }

    #[tokio::test]
    async fn whoever_knows_the_password_may_come_under_any_form_of_the_name() {
        let server = Server::new().await;
        let alice = server.register("alice").await;
        for name in ["alice", "@alice:hs1", "ALICE", "@ALICE:hs1"] {
            let identified = json!({ "type": "m.id.user", "user": name });
            for mut body in [json!({ "identifier": identified }), json!({ "user": name })] {
                body["type"] = "m.login.password".into();
                body["password"] = PASSWORD.into();
                let body = login(&server, &body).await.ok();
                assert_eq!(body["user_id"], alice.id, "{name}");
                assert!(body["access_token"].is_string() && body["device_id"].is_string());
                assert!(body.get("refresh_token").is_none() && body.get("well_known").is_none());
            }
        }
    }

    #[tokio::test]
    async fn a_second_login_to_a_device_takes_the_place_of_the_first() {
        let server = Server::new().await;
        let mut alice = server.register("alice").await;
        let mut body = proof(&alice, PASSWORD);
        body["device_id"] = "PHONE".into();
        for name in ["first", "second"] {
            body["initial_device_display_name"] = name.into();
            let answer = login(&server, &body).await.ok();
            assert_eq!(answer["device_id"], "PHONE");
            let before = std::mem::replace(
                &mut alice.token,
                crate::testing::text(&answer["access_token"]),
            );
            let device = server.get("/devices/PHONE", &alice).await.ok();
            // The name is one for new devices alone.
            assert_eq!(device["display_name"], "first");
            if name == "second" {
                alice.token = before;
                server
                    .get("/account/whoami", &alice)
                    .await
                    .refused(401, "M_UNKNOWN_TOKEN");
            }
        }
    }

    #[tokio::test]
    async fn a_client_that_can_refresh_is_given_a_token_that_ends() {
        let server = Server::with(|config| {
            config.well_known.client = Some("https://matrix.example.org".parse().expect("a URL"));
        })
        .await;
        let alice = server.register("alice").await;
        let mut body = proof(&alice, PASSWORD);
        body["refresh_token"] = true.into();
        let answer = login(&server, &body).await.ok();
        assert!(answer["refresh_token"].is_string());
        assert_eq!(answer["expires_in_ms"], 300_000);
        assert_eq!(
            answer["well_known"]["m.homeserver"]["base_url"],
            "https://matrix.example.org"
        );
    }

    #[tokio::test]
    async fn whoever_does_not_know_the_password_is_refused() {
        let server = Server::new().await;
        let alice = server.register("alice").await;
        let right = proof(&alice, PASSWORD);
        let with = |key: &str, value: Value| {
            let mut body = right.clone();
            body[key] = value;
            body
        };
        let user = |name: &str| json!({ "type": "m.id.user", "user": name });
        let email = json!({ "type": "m.id.thirdparty", "medium": "email", "address": "a@b.c" });
        for (body, status, errcode) in [
            (with("password", "wrong".into()), 403, "M_FORBIDDEN"),
            (with("identifier", user("nobody")), 403, "M_FORBIDDEN"),
            (with("identifier", user("@alice:hs2")), 403, "M_FORBIDDEN"),
            (with("identifier", email), 403, "M_FORBIDDEN"),
            (with("type", "m.login.nonsense".into()), 400, "M_UNKNOWN"),
            (with("type", "m.login.token".into()), 400, "M_UNKNOWN"),
            (with("password", 5.into()), 400, "M_BAD_JSON"),
            (with("password", Value::Null), 400, "M_MISSING_PARAM"),
            (with("identifier", "alice".into()), 400, "M_MISSING_PARAM"),
            (
                json!({ "type": "m.login.password", "password": "x" }),
                400,
                "M_MISSING_PARAM",
            ),
            (json!({ "password": "x" }), 400, "M_BAD_JSON"),
            (json!([]), 400, "M_BAD_JSON"),
        ] {
            login(&server, &body).await.refused(status, errcode);
        }
    }
}
