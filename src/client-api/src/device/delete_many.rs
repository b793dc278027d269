//! `POST /_matrix/client/v3/delete_devices`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3delete_devices>

use axum::{Json, extract::State};
use myelin_accounts::{Accounts, Flow, LogoutError, Operation as Confirmed, Stage};
use ruma::{OwnedDeviceId, api::auth_scheme::AccessToken};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{
    error::{Refusal, Result},
    extract::Call,
    uia,
};

fn refuse(error: LogoutError) -> Refusal {
    match error {
        LogoutError::Failed(cause) => Refusal::internal(cause),
    }
}

/// The body, without `auth`.
#[derive(Deserialize)]
struct Body {
    devices: Vec<OwnedDeviceId>,
}

/// Deletes devices of the caller and ends their sessions.
pub(crate) async fn delete(
    State(accounts): State<Accounts>,
    call: Call<AccessToken>,
) -> Result<Json<Map<String, Value>>> {
    let body: Body = call.json()?;
    delete_confirmed(&accounts, "POST /delete_devices", &call, &body.devices).await?;
    Ok(Json(Map::new()))
}

/// Deletes devices once the caller has confirmed, with his password, that it is him: for these devices and no others.
pub(super) async fn delete_confirmed(
    accounts: &Accounts,
    operation: &str,
    call: &Call<AccessToken>,
    devices: &[OwnedDeviceId],
) -> Result<()> {
    let subject: Vec<&str> = devices.iter().map(|device| device.as_str()).collect();
    let subject = subject.join("\0");
    let operation = Confirmed {
        name: operation,
        subject: subject.as_bytes(),
        flows: &[Flow(vec![Stage::Password])],
        requester: Some(&call.caller),
    };
    uia::confirm(accounts, &operation, &call.raw).await?;
    accounts
        .delete_devices(call.caller.user, devices.to_vec())
        .await
        .map_err(refuse)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::testing::{PASSWORD, Server, proof};

    const PATH: &str = "/delete_devices";

    #[tokio::test]
    async fn the_named_devices_go_and_no_others() {
        let (server, alice, bob) = Server::with_two_users().await;
        let (first, second) = (server.login("alice").await, server.login("alice").await);
        let devices = json!([first.device, bob.device, "unknown"]);
        let asked = server
            .post(PATH, &alice, &json!({ "devices": devices }))
            .await;
        assert_eq!(asked.status, 401);
        let mut body = json!({ "devices": devices, "auth": proof(&alice, PASSWORD) });
        body["auth"]["session"] = asked.body["session"].clone();
        server.post(PATH, &alice, &body).await.ok();
        server
            .get("/account/whoami", &first)
            .await
            .refused(401, "M_UNKNOWN_TOKEN");
        for kept in [&alice, &second, &bob] {
            server.get("/account/whoami", kept).await.ok();
        }
        let body = json!({ "devices": devices, "auth": proof(&alice, PASSWORD) });
        server.post(PATH, &alice, &body).await.ok();
    }

    #[tokio::test]
    async fn without_confirmation_nothing_goes() {
        let (server, alice, bob) = Server::with_two_users().await;
        let body = |auth| json!({ "devices": [alice.device], "auth": auth });
        let wrong = body(proof(&alice, "wrong"));
        server
            .post(PATH, &alice, &wrong)
            .await
            .refused(401, "M_FORBIDDEN");
        let other = body(proof(&bob, PASSWORD));
        server
            .post(PATH, &alice, &other)
            .await
            .refused(403, "M_FORBIDDEN");
        server
            .post(PATH, &alice, &json!({}))
            .await
            .refused(400, "M_BAD_JSON");
        server.get("/account/whoami", &alice).await.ok();
    }
}
