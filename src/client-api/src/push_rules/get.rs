//! `GET /_matrix/client/v3/pushrules/global/{kind}/{ruleId}`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3pushrulesglobalkindruleid>

use axum::{Json, extract::State};
use myelin_accounts::Accounts;
use myelin_rooms::Rooms;
use myelin_rules::push::{Rule, RuleError};
use myelin_types::UserNum;
use ruma::api::auth_scheme::AccessToken;

use super::{kind, refuse_rule, ruleset};
use crate::{error::Result, extract::Call};

/// Answers with one of the caller's rules.
pub(crate) async fn get(
    State(rooms): State<Rooms>,
    State(accounts): State<Accounts>,
    call: Call<AccessToken>,
) -> Result<Json<Rule>> {
    find(&rooms, accounts, call.caller.user, call.arg(0), call.arg(1))
        .await
        .map(Json)
}

/// One rule of a user.
pub(super) async fn find(
    rooms: &Rooms,
    accounts: Accounts,
    user: UserNum,
    kind_name: &str,
    rule_id: &str,
) -> Result<Rule> {
    let kind = kind(kind_name)?;
    ruleset(rooms, accounts, user)
        .await?
        .get(kind, rule_id)
        .cloned()
        .ok_or_else(|| refuse_rule(&RuleError::NotFound))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::testing::Server;

    #[tokio::test]
    async fn one_rule_is_shown() {
        let (server, alice, bob) = Server::with_two_users().await;
        let path = "/pushrules/global/content/nick";
        server.get(path, &alice).await.refused(404, "M_NOT_FOUND");
        let body = json!({ "pattern": "al*ce", "actions": ["notify"] });
        server.put(path, &alice, &body).await.ok();
        for _ in 0..2 {
            let rule = json!({
                "rule_id": "nick",
                "pattern": "al*ce",
                "actions": ["notify"],
                "default": false,
                "enabled": true,
            });
            assert_eq!(server.get(path, &alice).await.ok(), rule);
        }
        server.get(path, &bob).await.refused(404, "M_NOT_FOUND");
        let default = server
            .get("/pushrules/global/override/.m.rule.master", &bob)
            .await
            .ok();
        assert_eq!(default["default"], true);
        assert_eq!(default["enabled"], false);
        server
            .get("/pushrules/global/nonsense/nick", &alice)
            .await
            .refused(400, "M_INVALID_PARAM");
    }
}
