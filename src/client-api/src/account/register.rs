//! `POST /_matrix/client/v3/register`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3register>

use std::time::Duration;

use axum::{Json, extract::State};
use http::StatusCode;
use myelin_accounts::{
    Accounts, NameError, NewSession, Operation as Confirmed, PasswordRefused, RegisterError,
    Registering, Secret,
};
use ruma::{
    OwnedDeviceId, OwnedUserId,
    api::{auth_scheme::AppserviceTokenOptional, error::ErrorKind},
};
use serde::{Deserialize, Serialize};

use crate::{
    error::{Refusal, Result},
    extract::Call,
    uia,
};

fn refuse(error: RegisterError) -> Refusal {
    match error {
        RegisterError::Closed => closed(),
        RegisterError::Name(error) => refuse_name(error),
        RegisterError::PasswordMissing => Refusal::missing("A password is required."),
        RegisterError::Password(error) => refuse_password(&error),
        RegisterError::TokenSpent => {
            Refusal::forbidden("The registration token is no longer valid.")
        }
        RegisterError::DeviceTooLong => Refusal::invalid("The device id or its name is too long."),
        RegisterError::Failed(cause) => Refusal::internal(cause),
    }
}

/// What a name that cannot be had is refused with.
pub(super) fn refuse_name(error: NameError) -> Refusal {
    match error {
        NameError::Invalid => Refusal::bad_request(
            ErrorKind::InvalidUsername,
            "User names consist of the characters a-z, 0-9, and . _ = - / +.",
        ),
        NameError::InUse => Refusal::bad_request(ErrorKind::UserInUse, "The name is taken."),
        NameError::Failed(cause) => Refusal::internal(cause),
    }
}

/// What a password that cannot be chosen is refused with.
pub(super) fn refuse_password(error: &PasswordRefused) -> Refusal {
    match error {
        PasswordRefused::TooShort(least) => Refusal::new(
            StatusCode::BAD_REQUEST,
            ErrorKind::WeakPassword,
            format!("The password needs at least {least} characters."),
        ),
        PasswordRefused::TooLong => Refusal::invalid("The password is too long."),
    }
}

fn closed() -> Refusal {
    Refusal::forbidden("Registration is closed on this server.")
}

/// The query.
#[derive(Deserialize)]
struct Query {
    kind: Option<String>,
}

/// The body, without `auth`.
#[derive(Deserialize)]
struct Body {
    username: Option<String>,
    password: Option<String>,
    device_id: Option<String>,
    initial_device_display_name: Option<String>,
    inhibit_login: Option<bool>,
    refresh_token: Option<bool>,
    #[serde(rename = "type")]
    login_type: Option<String>,
}

/// The response body.
#[derive(Serialize)]
pub(crate) struct Response {
    user_id: OwnedUserId,
    #[serde(flatten)]
    session: Option<Session>,
}

/// The session that was opened with the account.
#[derive(Serialize)]
struct Session {
    access_token: String,
    device_id: OwnedDeviceId,
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_in_ms: Option<u64>,
}

/// Makes an account.
pub(crate) async fn register(
    State(accounts): State<Accounts>,
    call: Call<AppserviceTokenOptional>,
) -> Result<Json<Response>> {
    check_kind(&call.query()?)?;
    let body: Body = call.json()?;
    if body.login_type.as_deref() == Some("m.login.application_service") {
        return Err(Refusal::forbidden(
            "Application services cannot register users here.",
        ));
    }
    let flows = accounts.registration_flows().ok_or_else(closed)?;
    if let Some(name) = &body.username {
        accounts.check_username(name).await.map_err(refuse_name)?;
    }
    let operation = Confirmed {
        name: "POST /register",
        subject: b"",
        flows: &flows,
        requester: None,
    };
    let passed = uia::confirm(&accounts, &operation, &call.raw).await?;
    let session = (!body.inhibit_login.unwrap_or(false)).then(|| NewSession {
        device_id: body.device_id,
        device_display_name: body.initial_device_display_name,
        refreshable: body.refresh_token.unwrap_or(false),
    });
    let registered = accounts
        .register(
            Registering {
                username: body.username,
                password: body.password.map(Secret::new),
                session,
            },
            passed,
        )
        .await
        .map_err(refuse)?;
    let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    Ok(Json(Response {
        user_id: registered.user_id,
        session: registered.session.map(|session| Session {
            access_token: session.access_token.into_exposed(),
            device_id: session.device_id,
            refresh_token: session.refresh_token.map(Secret::into_exposed),
            expires_in_ms: session.expires_in.map(milliseconds),
        }),
    }))
}

fn check_kind(query: &Query) -> Result<()> {
    match query.kind.as_deref() {
        None | Some("user") => Ok(()),
        Some("guest") => Err(Refusal::new(
            StatusCode::FORBIDDEN,
            ErrorKind::GuestAccessForbidden,
            "This server has no guests.",
        )),
        Some(_) => Err(Refusal::invalid("There is no such kind of account.")),
    }
}

#[cfg(test)]
mod tests {
    use http::Method;
    use myelin_config::RegistrationMode;
    use serde_json::{Value, json};

    use crate::testing::{Answer, PASSWORD, Server, User, text};

    const PATH: &str = "/register";

    async fn register(server: &Server, body: &Value) -> Answer {
        server.stranger(Method::POST, PATH, body).await
    }

    fn dummy(name: &str) -> Value {
        json!({ "username": name, "password": PASSWORD, "auth": { "type": "m.login.dummy" } })
    }

    #[tokio::test]
    async fn an_account_is_made_once_the_flow_is_completed() {
        let server = Server::new().await;
        let answer = register(&server, &json!({})).await;
        assert_eq!(answer.status, 401);
        assert_eq!(
            answer.body["flows"],
            json!([{ "stages": ["m.login.dummy"] }])
        );
        assert!(answer.body["params"].is_object());

        let mut body = json!({
            "username": "User-UPPER",
            "password": "übers3kr1t",
            "device_id": "xyzzy",
            "initial_device_display_name": "display_name",
        });
        let answer = register(&server, &body).await;
        assert_eq!(answer.status, 401);
        body["auth"] = json!({ "type": "m.login.dummy", "session": answer.body["session"] });
        let made = register(&server, &body).await.ok();
        assert_eq!(made["user_id"], "@user-upper:hs1");
        assert_eq!(made["device_id"], "xyzzy");
        let user = User {
            id: text(&made["user_id"]),
            device: text(&made["device_id"]),
            token: text(&made["access_token"]),
        };
        let device = server.get("/devices/xyzzy", &user).await.ok();
        assert_eq!(device["display_name"], "display_name");
    }

    #[tokio::test]
    async fn a_name_is_had_by_one_alone_and_that_is_said_before_the_flow() {
        let server = Server::new().await;
        register(&server, &dummy("alice")).await.ok();
        register(&server, &dummy("alice"))
            .await
            .refused(400, "M_USER_IN_USE");
        for (name, errcode) in [("ALICE", "M_USER_IN_USE"), ("a!b", "M_INVALID_USERNAME")] {
            let body = json!({ "username": name, "password": PASSWORD });
            register(&server, &body).await.refused(400, errcode);
        }
    }

    #[tokio::test]
    async fn names_consist_of_few_characters() {
        let server = Server::new().await;
        for sign in ["q", "3", ".", "_", "=", "-", "/", "+"] {
            let made = register(&server, &dummy(&format!("user{sign}"))).await.ok();
            assert_eq!(made["user_id"], format!("@user{sign}:hs1"));
        }
        for sign in [
            "!", "\"", ":", "?", "\\", "@", "[", "]", "{", "|", "}", "£", "é", "\n", "'", " ", ",",
        ] {
            register(&server, &dummy(&format!("user-{sign}-reject-please")))
                .await
                .refused(400, "M_INVALID_USERNAME");
        }
        register(&server, &dummy(&"a".repeat(260)))
            .await
            .refused(400, "M_INVALID_USERNAME");
        let body = json!({ "password": PASSWORD, "auth": { "type": "m.login.dummy" } });
        let made = register(&server, &body).await.ok();
        assert!(
            text(&made["user_id"]).ends_with(":hs1"),
            "a name is made up"
        );
    }

    #[tokio::test]
    async fn the_session_is_as_the_client_wants_it() {
        let server = Server::new().await;
        let mut body = dummy("alice");
        body["inhibit_login"] = true.into();
        let made = register(&server, &body).await.ok();
        assert_eq!(made, json!({ "user_id": "@alice:hs1" }));
        let mut body = dummy("bob");
        body["refresh_token"] = true.into();
        let made = register(&server, &body).await.ok();
        assert!(made["refresh_token"].is_string() && made["expires_in_ms"].is_number());
    }

    #[tokio::test]
    async fn what_cannot_be_registered_is_refused() {
        let server = Server::new().await;
        let with = |key: &str, value: Value| {
            let mut body = dummy("alice");
            body[key] = value;
            body
        };
        for (body, status, errcode) in [
            (with("password", "short".into()), 400, "M_WEAK_PASSWORD"),
            (with("password", Value::Null), 400, "M_MISSING_PARAM"),
            (
                with("type", "m.login.application_service".into()),
                403,
                "M_FORBIDDEN",
            ),
            (with("auth", "m.login.dummy".into()), 400, "M_BAD_JSON"),
            (with("username", 5.into()), 400, "M_BAD_JSON"),
        ] {
            register(&server, &body).await.refused(status, errcode);
        }
        server
            .stranger(Method::POST, "/register?kind=guest", &json!({}))
            .await
            .refused(403, "M_GUEST_ACCESS_FORBIDDEN");
        server
            .send(
                Method::POST,
                "/_matrix/client/v3/register",
                None,
                b"{ \"a\":\"\x81\" }".to_vec(),
            )
            .await
            .refused(400, "M_NOT_JSON");
        let answer = register(
            &server,
            &with("auth", json!({ "type": "m.login.password" })),
        )
        .await;
        assert_eq!(
            answer.refused(401, "M_UNRECOGNIZED")["completed"],
            json!([])
        );
    }

    #[tokio::test]
    async fn a_server_may_ask_for_a_token_or_be_closed() {
        let closed =
            Server::with(|config| config.registration.mode = RegistrationMode::Closed).await;
        register(&closed, &dummy("alice"))
            .await
            .refused(403, "M_FORBIDDEN");

        let server = Server::with(|config| {
            config.registration.mode = RegistrationMode::Token;
            config.registration.token = Some(myelin_config::Secret::new("letmein"));
        })
        .await;
        let stage = "m.login.registration_token";
        let mut body = dummy("alice");
        let answer = register(&server, &body).await;
        assert_eq!(answer.status, 401);
        assert_eq!(answer.body["flows"], json!([{ "stages": [stage] }]));
        body["auth"] = json!({ "type": stage, "token": "wrong" });
        register(&server, &body).await.refused(401, "M_FORBIDDEN");
        body["auth"]["token"] = "letmein".into();
        register(&server, &body).await.ok();
    }
}
