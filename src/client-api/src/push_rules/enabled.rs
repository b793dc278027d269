//! `GET` and `PUT /_matrix/client/v3/pushrules/global/{kind}/{ruleId}/enabled`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3pushrulesglobalkindruleidenabled>

use axum::{Json, extract::State};
use myelin_accounts::Accounts;
use myelin_rooms::Rooms;
use ruma::api::auth_scheme::AccessToken;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{get::find, kind, refuse};
use crate::{error::Result, extract::Call};

#[derive(Deserialize)]
struct Body {
    enabled: bool,
}

/// Answers whether a rule is in force.
pub(crate) async fn get(
    State(rooms): State<Rooms>,
    State(accounts): State<Accounts>,
    call: Call<AccessToken>,
) -> Result<Json<Value>> {
    let rule = find(&rooms, accounts, call.caller.user, call.arg(0), call.arg(1)).await?;
    Ok(Json(json!({ "enabled": rule.enabled })))
}

/// Puts a rule in force, or out of it.
pub(crate) async fn set(
    State(accounts): State<Accounts>,
    call: Call<AccessToken>,
) -> Result<Json<Map<String, Value>>> {
    let kind = kind(call.arg(0))?;
    let body: Body = call.json()?;
    accounts
        .set_push_rule_enabled(call.caller.user, kind, call.arg(1), body.enabled)
        .await
        .map_err(refuse)?;
    Ok(Json(Map::new()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::testing::Server;

    #[tokio::test]
    async fn a_rule_is_put_in_force_and_out_of_it() {
        let (server, alice, bob) = Server::with_two_users().await;
        let path = "/pushrules/global/override/.m.rule.master/enabled";
        for enabled in [true, true, false] {
            let body = json!({ "enabled": enabled });
            assert_eq!(server.put(path, &alice, &body).await.ok(), json!({}));
            assert_eq!(server.get(path, &alice).await.ok(), body);
            assert_eq!(
                server.get(path, &bob).await.ok(),
                json!({ "enabled": false })
            );
        }
        server
            .put(path, &alice, &json!({ "enabled": 1 }))
            .await
            .refused(400, "M_BAD_JSON");
        let unknown = "/pushrules/global/override/unknown/enabled";
        server
            .get(unknown, &alice)
            .await
            .refused(404, "M_NOT_FOUND");
        let body = json!({ "enabled": true });
        server
            .put(unknown, &alice, &body)
            .await
            .refused(404, "M_NOT_FOUND");
    }
}
