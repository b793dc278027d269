//! Push rules.

mod actions;
mod delete;
mod enabled;
mod get;
mod list;
mod put;

use std::sync::Arc;

use http::Method;
use myelin_accounts::{Accounts, PushRuleError};
use myelin_rooms::Rooms;
use myelin_rules::push::{Kind, RuleError, Ruleset};
use myelin_types::UserNum;
use ruma::api::{
    client::push::{
        delete_pushrule, get_pushrule, get_pushrule_actions, get_pushrule_enabled,
        get_pushrules_all, get_pushrules_global_scope, set_pushrule, set_pushrule_actions,
        set_pushrule_enabled,
    },
    error::ErrorKind,
};

use crate::{
    Access, Limit,
    error::{Refusal, Result},
    routes::Routes,
};

/// The routes of this family.
pub(crate) fn routes(mut routes: Routes) -> Routes {
    // Clients of old left out the slash at the end.
    for path in [
        "/_matrix/client/v3/pushrules",
        "/_matrix/client/r0/pushrules",
    ] {
        routes = routes.path(&Method::GET, path, Access::User, Limit::Read, list::all);
    }
    routes
        .operation::<get_pushrules_all::v3::Request, _, _>(Limit::Read, list::all)
        .operation::<get_pushrules_global_scope::v3::Request, _, _>(Limit::Read, list::global)
        .operation::<get_pushrule::v3::Request, _, _>(Limit::Read, get::get)
        .operation::<set_pushrule::v3::Request, _, _>(Limit::Send, put::put)
        .operation::<delete_pushrule::v3::Request, _, _>(Limit::Send, delete::delete)
        .operation::<get_pushrule_actions::v3::Request, _, _>(Limit::Read, actions::get)
        .operation::<set_pushrule_actions::v3::Request, _, _>(Limit::Send, actions::set)
        .operation::<get_pushrule_enabled::v3::Request, _, _>(Limit::Read, enabled::get)
        .operation::<set_pushrule_enabled::v3::Request, _, _>(Limit::Send, enabled::set)
}

/// What a change of push rules is refused with.
fn refuse(error: PushRuleError) -> Refusal {
    match error {
        PushRuleError::Refused(error) => refuse_rule(&error),
        PushRuleError::TooMany => Refusal::bad_request(
            ErrorKind::Unknown,
            "You have as many rules as this server keeps for one user.",
        ),
        PushRuleError::Failed(cause) => Refusal::internal(cause),
    }
}

fn refuse_rule(error: &RuleError) -> Refusal {
    let message = format!("{error}.");
    match error {
        RuleError::UnknownKind | RuleError::InvalidId | RuleError::ServerDefault => {
            Refusal::invalid(message)
        }
        RuleError::NotFound => Refusal::not_found(message),
        RuleError::NoSuchNeighbour(_) => Refusal::bad_request(ErrorKind::Unknown, message),
        RuleError::MissingPattern => Refusal::missing(message),
        RuleError::InvalidAction | RuleError::InvalidCondition | RuleError::PatternTooLong => {
            Refusal::bad_request(ErrorKind::BadJson, message)
        }
    }
}

/// The kind that a path names.
fn kind(name: &str) -> Result<Kind> {
    name.parse().map_err(|error| refuse_rule(&error))
}

/// A user's rules.
async fn ruleset(rooms: &Rooms, accounts: Accounts, user: UserNum) -> Result<Arc<Ruleset>> {
    rooms
        .store()
        .read(move |view| accounts.push_rules(view, user))
        .await
        .map_err(Refusal::internal)
}
