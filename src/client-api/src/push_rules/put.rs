//! `PUT /_matrix/client/v3/pushrules/global/{kind}/{ruleId}`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3pushrulesglobalkindruleid>

use axum::{
    Json,
    extract::{Query, State},
};
use myelin_accounts::Accounts;
use ruma::api::auth_scheme::AccessToken;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{kind, refuse};
use crate::{error::Result, extract::Call};

/// Where the rule goes among the caller's own.
#[derive(Debug, Deserialize)]
pub(crate) struct Neighbours {
    before: Option<String>,
    after: Option<String>,
}

/// Adds a rule of the caller's, or changes it.
pub(crate) async fn put(
    State(accounts): State<Accounts>,
    Query(neighbours): Query<Neighbours>,
    call: Call<AccessToken>,
) -> Result<Json<Map<String, Value>>> {
    let kind = kind(call.arg(0))?;
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
