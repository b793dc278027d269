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
    find(
        &rooms,
        accounts,
        call.caller.user,
        call.arg(0),
        call.arg(1),
    )
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
