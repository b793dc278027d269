//! `GET` and `PUT /_matrix/client/v3/pushrules/global/{kind}/{ruleId}/actions`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3pushrulesglobalkindruleidactions>

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
    actions: Vec<Value>,
}

/// Answers with what a rule does.
pub(crate) async fn get(
    State(rooms): State<Rooms>,
    State(accounts): State<Accounts>,
    call: Call<AccessToken>,
) -> Result<Json<Value>> {
    let rule = find(&rooms, accounts, call.caller.user, call.arg(0), call.arg(1)).await?;
    Ok(Json(json!({ "actions": rule.actions })))
}

/// Changes what a rule does.
pub(crate) async fn set(
    State(accounts): State<Accounts>,
    call: Call<AccessToken>,
) -> Result<Json<Map<String, Value>>> {
    let kind = kind(call.arg(0))?;
    let body: Body = call.json()?;
    accounts
        .set_push_rule_actions(call.caller.user, kind, call.arg(1), body.actions)
        .await
        .map_err(refuse)?;
    Ok(Json(Map::new()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::testing::Server;

    #[tokio::test]
    async fn a_rule_does_what_it_was_told_last() {
        let (server, alice, bob) = Server::with_two_users().await;
        let path = "/pushrules/global/underride/.m.rule.message/actions";
        let highlight = json!(["notify", { "set_tweak": "highlight" }]);
        for actions in [
            json!([]),
            json!(["dont_notify"]),
            highlight.clone(),
            highlight,
        ] {
            let body = json!({ "actions": actions });
            assert_eq!(server.put(path, &alice, &body).await.ok(), json!({}));
            assert_eq!(server.get(path, &alice).await.ok(), body);
        }
        assert_eq!(
            server.get(path, &bob).await.ok(),
            json!({ "actions": ["notify"] })
        );
        let body = json!({ "actions": [5] });
        server
            .put(path, &alice, &body)
            .await
            .refused(400, "M_BAD_JSON");
        server
            .put(path, &alice, &json!({}))
            .await
            .refused(400, "M_BAD_JSON");
        let unknown = "/pushrules/global/underride/unknown/actions";
        server
            .get(unknown, &alice)
            .await
            .refused(404, "M_NOT_FOUND");
        let body = json!({ "actions": [] });
        server
            .put(unknown, &alice, &body)
            .await
            .refused(404, "M_NOT_FOUND");
    }
}
