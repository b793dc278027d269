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
    let rule = find(
        &rooms,
        accounts,
        call.caller.user,
        call.arg(0),
        call.arg(1),
    )
    .await?;
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
