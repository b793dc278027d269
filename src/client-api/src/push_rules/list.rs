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
