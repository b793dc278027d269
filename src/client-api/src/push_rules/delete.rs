//! `DELETE /_matrix/client/v3/pushrules/global/{kind}/{ruleId}`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#delete_matrixclientv3pushrulesglobalkindruleid>

use axum::{Json, extract::State};
use myelin_accounts::Accounts;
use ruma::api::auth_scheme::AccessToken;
use serde_json::{Map, Value};

use super::{kind, refuse};
use crate::{error::Result, extract::Call};

/// Deletes a rule that the caller added.
pub(crate) async fn delete(
    State(accounts): State<Accounts>,
    call: Call<AccessToken>,
) -> Result<Json<Map<String, Value>>> {
    let kind = kind(call.arg(0))?;
    accounts
        .delete_push_rule(call.caller.user, kind, call.arg(1))
        .await
        .map_err(refuse)?;
    Ok(Json(Map::new()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::testing::Server;

    #[tokio::test]
    async fn a_rule_is_deleted_once() {
        let server = Server::new().await;
        let alice = server.register("alice").await;
        let path = "/pushrules/global/override/mine";
        let body = json!({ "actions": [], "conditions": [] });
        server.put(path, &alice, &body).await.ok();
        assert_eq!(
            server.delete(path, &alice, &json!({})).await.ok(),
            json!({})
        );
        server.get(path, &alice).await.refused(404, "M_NOT_FOUND");
        server
            .delete(path, &alice, &json!({}))
            .await
            .refused(404, "M_NOT_FOUND");
        server
            .delete(
                "/pushrules/global/override/.m.rule.master",
                &alice,
                &json!({}),
            )
            .await
            .refused(400, "M_INVALID_PARAM");
    }
}
