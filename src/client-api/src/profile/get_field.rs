//! `GET /_matrix/client/v3/profile/{userId}/{keyName}`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3profileuseridkeyname>

use axum::{Json, extract::State};
use myelin_federation::Federation;
use ruma::{OwnedUserId, api::auth_scheme::NoAuthentication};
use serde_json::{Map, Value};

use super::refuse_look;
use crate::{
    error::{Refusal, Result},
    extract::Call,
};

/// Answers with one field of a user's profile.
pub(crate) async fn get(
    State(federation): State<Federation>,
    call: Call<NoAuthentication>,
) -> Result<Json<Map<String, Value>>> {
    let user_id: OwnedUserId = call.id(0)?;
    let mut profile = federation.profile(&user_id).await.map_err(refuse_look)?;
    let (key, value) = profile
        .remove_entry(call.arg(1))
        .ok_or_else(|| Refusal::not_found("The profile has no such field."))?;
    Ok(Json(Map::from_iter([(key, value)])))
}

#[cfg(test)]
mod tests {
    use http::Method;
    use serde_json::{Value, json};

    use crate::testing::{Answer, Server};

    #[tokio::test]
    async fn anybody_sees_a_field_that_is_there() {
        let (server, alice, _) = Server::with_two_users().await;
        let path = |key: &str| format!("/profile/@alice:hs1/{key}");
        let get = async |path: String| -> Answer {
            server.stranger(Method::GET, &path, &Value::Null).await
        };
        get(path("displayname")).await.refused(404, "M_NOT_FOUND");
        let body = json!({ "displayname": "my_display_name" });
        server.put(&path("displayname"), &alice, &body).await.ok();
        for _ in 0..2 {
            assert_eq!(get(path("displayname")).await.ok(), body);
        }
        get(path("avatar_url")).await.refused(404, "M_NOT_FOUND");
        get("/profile/@nobody:hs1/displayname".to_owned())
            .await
            .refused(404, "M_NOT_FOUND");
    }
}
