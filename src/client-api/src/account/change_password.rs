//! `POST /_matrix/client/v3/account/password`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3accountpassword>

use axum::extract::State;
use myelin_accounts::{Accounts, Flow, Operation as Confirmed, Secret, SetPasswordError, Stage};
use ruma::api::{auth_scheme::AccessToken, client::account::change_password::v3::Response};
use serde::Deserialize;

use super::register::refuse_password;
use crate::{
    error::{Refusal, Result},
    extract::{Call, Reply},
    uia,
};

fn refuse(error: SetPasswordError) -> Refusal {
    match error {
        SetPasswordError::Password(error) => refuse_password(&error),
        SetPasswordError::NoAccount => Refusal::forbidden("The account was deactivated."),
        SetPasswordError::Failed(cause) => Refusal::internal(cause),
    }
}

/// The body, without `auth`.
#[derive(Deserialize)]
struct Body {
    new_password: String,
    #[serde(default = "logout_devices")]
    logout_devices: bool,
}

fn logout_devices() -> bool {
    true
}

/// Gives the caller another password; his other sessions end unless he wants them kept.
pub(crate) async fn change(
    State(accounts): State<Accounts>,
    call: Call<AccessToken>,
) -> Result<Reply<Response>> {
    let body: Body = call.json()?;
    let Call { caller, raw, .. } = call;
    let operation = Confirmed {
        name: "POST /account/password",
        subject: b"",
        flows: &[Flow(vec![Stage::Password])],
        requester: Some(&caller),
    };
    uia::confirm(&accounts, &operation, &raw).await?;
    accounts
        .set_password(
            caller.user,
            Secret::new(body.new_password),
            body.logout_devices,
            Some(&caller.device_id),
        )
        .await
        .map_err(refuse)?;
    Ok(Reply(Response::new()))
}

#[cfg(test)]
mod tests {
    use http::Method;
    use serde_json::{Value, json};

    use crate::testing::{Answer, PASSWORD, Server, User, proof};

    const PATH: &str = "/account/password";
    const NEW: &str = "my_new_password";

    async fn login(server: &Server, user: &User, password: &str) -> Answer {
        server
            .stranger(Method::POST, "/login", &proof(user, password))
            .await
    }

    #[tokio::test]
    async fn the_new_password_takes_the_place_of_the_old_and_other_sessions_end() {
        let server = Server::new().await;
        let alice = server.register("alice").await;
        let other = server.login("alice").await;
        let body = json!({ "auth": proof(&alice, PASSWORD), "new_password": NEW });
        server.post(PATH, &alice, &body).await.ok();
        login(&server, &alice, PASSWORD)
            .await
            .refused(403, "M_FORBIDDEN");
        login(&server, &alice, NEW).await.ok();
        server.get("/account/whoami", &alice).await.ok();
        server
            .get("/account/whoami", &other)
            .await
            .refused(401, "M_UNKNOWN_TOKEN");
        // The old password does not serve twice.
        server
            .post(PATH, &alice, &body)
            .await
            .refused(401, "M_FORBIDDEN");
    }

    #[tokio::test]
    async fn other_sessions_can_be_kept() {
        let server = Server::new().await;
        let alice = server.register("alice").await;
        let other = server.login("alice").await;
        let body = json!({
            "auth": proof(&alice, PASSWORD),
            "new_password": NEW,
            "logout_devices": false,
        });
        server.post(PATH, &alice, &body).await.ok();
        server.get("/account/whoami", &other).await.ok();
    }

    #[tokio::test]
    async fn only_its_user_changes_a_password() {
        let (server, alice, bob) = Server::with_two_users().await;
        let change = async |auth: Value, password: Value| {
            let body = json!({ "auth": auth, "new_password": password });
            server.post(PATH, &alice, &body).await
        };
        let asked = change(Value::Null, NEW.into()).await;
        assert_eq!(asked.status, 401);
        assert_eq!(
            asked.body["flows"],
            json!([{ "stages": ["m.login.password"] }])
        );
        assert!(asked.body["session"].is_string() && asked.body["params"].is_object());
        change(proof(&alice, "wrong"), NEW.into())
            .await
            .refused(401, "M_FORBIDDEN");
        change(proof(&bob, PASSWORD), NEW.into())
            .await
            .refused(403, "M_FORBIDDEN");
        change(proof(&alice, PASSWORD), "short".into())
            .await
            .refused(400, "M_WEAK_PASSWORD");
        change(proof(&alice, PASSWORD), Value::Null)
            .await
            .refused(400, "M_BAD_JSON");
        login(&server, &alice, PASSWORD).await.ok();
    }
}
