//! `GET /_matrix/client/v3/pushrules/` and `GET /_matrix/client/v3/pushrules/global/`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3pushrules>

use axum::{Json, extract::State};
use myelin_accounts::Accounts;
use myelin_rooms::Rooms;
use myelin_rules::push::Ruleset;
use ruma::api::auth_scheme::AccessToken;
use serde::Serialize;

use super::ruleset;
use crate::{error::Result, extract::Call};

/// All scopes of rules; there is one.
#[derive(Debug, Serialize)]
pub(crate) struct Scopes {
    /// The rules for all devices.
    global: Ruleset,
}

/// Answers with the caller's rules, by scope.
pub(crate) async fn all(
    State(rooms): State<Rooms>,
    State(accounts): State<Accounts>,
    call: Call<AccessToken>,
) -> Result<Json<Scopes>> {
    let global = ruleset(&rooms, accounts, call.caller.user).await?;
    Ok(Json(Scopes {
        global: (*global).clone(),
    }))
}

/// Answers with the caller's rules.
pub(crate) async fn global(
    State(rooms): State<Rooms>,
    State(accounts): State<Accounts>,
    call: Call<AccessToken>,
) -> Result<Json<Ruleset>> {
    let rules = ruleset(&rooms, accounts, call.caller.user).await?;
    Ok(Json((*rules).clone()))
}

#[cfg(test)]
mod tests {
    use http::Method;
    use serde_json::json;

    use crate::testing::{Server, encode};

    #[tokio::test]
    async fn the_rules_are_listed_under_every_form_of_the_path() {
        let server = Server::new().await;
        let alice = server.register("alice").await;
        let all = server.get("/pushrules/", &alice).await.ok();
        for kind in ["override", "content", "room", "sender", "underride"] {
            assert!(all["global"][kind].is_array(), "{kind}");
        }
        assert_eq!(all["global"]["override"][0]["rule_id"], ".m.rule.master");
        assert_eq!(
            server.get("/pushrules/global/", &alice).await.ok(),
            all["global"]
        );
        for path in ["v3/pushrules", "r0/pushrules", "r0/pushrules/"] {
            let path = format!("/_matrix/client/{path}");
            let answer = server
                .send(Method::GET, &path, Some(&alice.token), Vec::new())
                .await;
            assert_eq!(answer.ok(), all, "{path}");
        }
    }

    #[tokio::test]
    async fn reading_the_rules_does_not_change_them() {
        let (server, alice, bob) = Server::with_two_users().await;
        let path = format!("/pushrules/global/sender/{}", encode(&alice.id));
        server
            .put(&path, &alice, &json!({ "actions": ["dont_notify"] }))
            .await
            .ok();
        for _ in 0..2 {
            let all = server.get("/pushrules/", &alice).await.ok();
            assert_eq!(
                all["global"]["sender"][0]["actions"],
                json!(["dont_notify"])
            );
        }
        let others = server.get("/pushrules/", &bob).await.ok();
        assert_eq!(others["global"]["sender"], json!([]));
    }
}
