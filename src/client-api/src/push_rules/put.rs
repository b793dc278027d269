//! `PUT /_matrix/client/v3/pushrules/global/{kind}/{ruleId}`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3pushrulesglobalkindruleid>

use axum::{Json, extract::State};
use myelin_accounts::Accounts;
use ruma::api::auth_scheme::AccessToken;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{kind, refuse};
use crate::{error::Result, extract::Call};

/// Where the rule goes among the caller's own.
#[derive(Deserialize)]
struct Neighbours {
    before: Option<String>,
    after: Option<String>,
}

/// Adds a rule of the caller's, or changes it.
pub(crate) async fn put(
    State(accounts): State<Accounts>,
    call: Call<AccessToken>,
) -> Result<Json<Map<String, Value>>> {
    let kind = kind(call.arg(0))?;
    let neighbours: Neighbours = call.query()?;
    accounts
        .put_push_rule(
            call.caller.user,
            kind,
            call.arg(1),
            call.json()?,
            neighbours.before.as_deref(),
            neighbours.after.as_deref(),
        )
        .await
        .map_err(refuse)?;
    Ok(Json(Map::new()))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::testing::Server;

    #[tokio::test]
    async fn rules_stand_where_they_are_put() {
        let server = Server::new().await;
        let alice = server.register("alice").await;
        let put = async |rest: &str| {
            let path = format!("/pushrules/global/room/{rest}");
            server
                .put(&path, &alice, &json!({ "actions": ["notify"] }))
                .await
        };
        let order = async || {
            let rules = server.get("/pushrules/global/", &alice).await.ok();
            let rules = rules["room"].as_array().expect("a list").clone();
            rules
                .iter()
                .map(|rule| rule["rule_id"].clone())
                .collect::<Vec<Value>>()
        };
        for rest in ["!a:hs1", "!b:hs1", "!b:hs1"] {
            put(rest).await.ok();
        }
        assert_eq!(order().await, ["!b:hs1", "!a:hs1"]);
        put("!c:hs1?after=!b:hs1").await.ok();
        assert_eq!(order().await, ["!b:hs1", "!c:hs1", "!a:hs1"]);
        put("!a:hs1?before=!c:hs1").await.ok();
        assert_eq!(order().await, ["!b:hs1", "!a:hs1", "!c:hs1"]);
        put("!d:hs1?before=!unknown:hs1")
            .await
            .refused(400, "M_UNKNOWN");
        put("!d:hs1?after=.m.rule.master")
            .await
            .refused(400, "M_UNKNOWN");
    }

    #[tokio::test]
    async fn what_is_no_rule_is_refused() {
        let server = Server::new().await;
        let alice = server.register("alice").await;
        let notify = json!({ "actions": ["notify"] });
        for (path, body, status, errcode) in [
            ("nonsense/a", notify.clone(), 400, "M_INVALID_PARAM"),
            ("override/.mine", notify.clone(), 400, "M_INVALID_PARAM"),
            ("content/nick", notify.clone(), 400, "M_MISSING_PARAM"),
            ("override/a", json!({}), 400, "M_BAD_JSON"),
            ("override/a", json!({ "actions": [5] }), 400, "M_BAD_JSON"),
            (
                "override/a",
                json!({ "actions": ["notify"], "conditions": [5] }),
                400,
                "M_BAD_JSON",
            ),
        ] {
            let path = format!("/pushrules/global/{path}");
            server
                .put(&path, &alice, &body)
                .await
                .refused(status, errcode);
        }
    }

    #[tokio::test]
    async fn changes_of_rules_come_with_the_next_sync() {
        let server = Server::new().await;
        let alice = server.register("alice").await;
        let mut sync = server.sync(&alice, "").await;
        let rules = "/pushrules/global/room/!foo:example.com";
        for (path, body) in [
            ("", json!({ "actions": ["notify"] })),
            ("/enabled", json!({ "enabled": false })),
            ("/enabled", json!({ "enabled": true })),
            ("/actions", json!({ "actions": ["dont_notify"] })),
        ] {
            server
                .put(&format!("{rules}{path}"), &alice, &body)
                .await
                .ok();
            let since = sync["next_batch"].as_str().expect("a token").to_owned();
            sync = server.sync(&alice, &format!("since={since}")).await;
            let event = &sync["account_data"]["events"][0];
            assert_eq!(event["type"], "m.push_rules", "{path}");
            assert!(event["content"]["global"].is_object());
        }
    }
}
