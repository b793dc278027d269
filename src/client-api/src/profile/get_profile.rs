//! `GET /_matrix/client/v3/profile/{userId}`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3profileuserid>

use axum::{Json, extract::State};
use myelin_federation::Federation;
use ruma::{OwnedUserId, api::auth_scheme::NoAuthentication};
use serde_json::{Map, Value};

use super::refuse_look;
use crate::{error::Result, extract::Call};

/// Answers with a user's profile.
pub(crate) async fn get(
    State(federation): State<Federation>,
    call: Call<NoAuthentication>,
) -> Result<Json<Map<String, Value>>> {
    let user_id: OwnedUserId = call.id(0)?;
    let profile = federation.profile(&user_id).await.map_err(refuse_look)?;
    Ok(Json(profile))
}

#[cfg(test)]
mod tests {
    use http::Method;
    use serde_json::{Value, json};

    use crate::testing::Server;

    #[tokio::test]
    async fn anybody_sees_a_whole_profile() {
        let (server, alice, _) = Server::with_two_users().await;
        let path = "/profile/%40alice%3Ahs1";
        let get = async || server.stranger(Method::GET, path, &Value::Null).await.ok();
        assert_eq!(get().await, json!({}));
        for (key, value) in [
            ("displayname", json!("Alice")),
            ("avatar_url", json!("mxc://hs1/a")),
            ("m.tz", json!("Europe/Berlin")),
            ("org.example.job", json!({ "title": "engineer" })),
        ] {
            server
                .put(&format!("{path}/{key}"), &alice, &json!({ key: value }))
                .await
                .ok();
        }
        let whole = json!({
            "displayname": "Alice",
            "avatar_url": "mxc://hs1/a",
            "m.tz": "Europe/Berlin",
            "org.example.job": { "title": "engineer" },
        });
        assert_eq!(get().await, whole);
        let old = "/_matrix/client/r0/profile/@alice:hs1";
        assert_eq!(
            server.send(Method::GET, old, None, Vec::new()).await.ok(),
            whole
        );
    }

    #[tokio::test]
    async fn strangers_have_no_profile_here() {
        let server = Server::new().await;
        for (path, status, errcode) in [
            ("/profile/@nobody:hs1", 404, "M_NOT_FOUND"),
            ("/profile/@alice:hs2", 404, "M_NOT_FOUND"),
            ("/profile/nonsense", 400, "M_INVALID_PARAM"),
        ] {
            server
                .stranger(Method::GET, path, &Value::Null)
                .await
                .refused(status, errcode);
        }
    }
}
