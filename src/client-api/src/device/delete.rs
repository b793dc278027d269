//! `DELETE /_matrix/client/v3/devices/{deviceId}`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#delete_matrixclientv3devicesdeviceid>

use axum::{Json, extract::State};
use myelin_accounts::Accounts;
use ruma::api::auth_scheme::AccessToken;
use serde_json::{Map, Value};

use super::delete_many::delete_confirmed;
use crate::{error::Result, extract::Call};

/// Deletes one of the caller's devices and ends its session.
pub(crate) async fn delete(
    State(accounts): State<Accounts>,
    call: Call<AccessToken>,
) -> Result<Json<Map<String, Value>>> {
    let devices = [call.arg(0).into()];
    delete_confirmed(&accounts, "DELETE /devices/{deviceId}", &call, &devices).await?;
    Ok(Json(Map::new()))
}

#[cfg(test)]
mod tests {
    use http::Method;
    use serde_json::json;

    use crate::testing::{PASSWORD, Server, proof};

    #[tokio::test]
    async fn a_device_goes_with_its_session_once_its_owner_confirmed() {
        let (server, alice, bob) = Server::with_two_users().await;
        let other = server.login("alice").await;
        let path = format!("/devices/{}", other.device);

        let whole = format!("/_matrix/client/v3{path}");
        let asked = server
            .send(Method::DELETE, &whole, Some(&alice.token), Vec::new())
            .await;
        assert_eq!(asked.status, 401);
        assert_eq!(
            asked.body["flows"],
            json!([{ "stages": ["m.login.password"] }])
        );
        assert!(asked.body["session"].is_string() && asked.body["params"].is_object());

        let wrong = json!({ "auth": proof(&alice, "super-wrong-password") });
        let refused = server
            .delete(&path, &alice, &wrong)
            .await
            .refused(401, "M_FORBIDDEN");
        assert!(refused["session"].is_string() && refused["flows"].is_array());
        assert!(refused["params"].is_object() && refused["error"].is_string());

        let stranger = json!({ "auth": proof(&bob, PASSWORD) });
        server
            .delete(&path, &alice, &stranger)
            .await
            .refused(403, "M_FORBIDDEN");
        server.get(&path, &alice).await.ok();
        server.sync(&other, "").await;

        let mut right = json!({ "auth": proof(&alice, PASSWORD) });
        right["auth"]["session"] = asked.body["session"].clone();
        assert_eq!(server.delete(&path, &alice, &right).await.ok(), json!({}));
        server.get(&path, &alice).await.refused(404, "M_NOT_FOUND");
        server
            .get("/sync", &other)
            .await
            .refused(401, "M_UNKNOWN_TOKEN");

        // That it is gone already is no fault.
        let again = json!({ "auth": proof(&alice, PASSWORD) });
        server.delete(&path, &alice, &again).await.ok();
    }

    #[tokio::test]
    async fn a_confirmation_is_for_one_device_alone() {
        let server = Server::new().await;
        let alice = server.register("alice").await;
        let (first, second) = (server.login("alice").await, server.login("alice").await);
        let path = |device: &str| format!("/devices/{device}");
        let asked = server
            .delete(&path(&first.device), &alice, &json!({}))
            .await;
        let mut body = json!({ "auth": proof(&alice, PASSWORD) });
        body["auth"]["session"] = asked.body["session"].clone();
        server
            .delete(&path(&second.device), &alice, &body)
            .await
            .refused(403, "M_FORBIDDEN");
        server.get("/account/whoami", &second).await.ok();
    }
}
