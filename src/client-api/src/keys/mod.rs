//! Keys for end-to-end encryption: of devices, and of users.

mod changes;
mod claim;
mod query;
mod signatures;
mod signing_keys;
#[cfg(test)]
pub(crate) mod testing;
pub(crate) mod upload;

use std::{collections::BTreeMap, time::Duration};

use http::StatusCode;
use myelin_accounts::Requester;
use myelin_e2ee::Owner;
use ruma::{
    OwnedServerName,
    api::client::keys::{
        claim_keys, get_key_changes, get_keys, upload_keys, upload_signatures, upload_signing_keys,
    },
};
use serde_json::{Map, Value, json};

use crate::{Limit, error::Refusal, routes::Routes};

/// How long other servers may take where the client does not say it, and at most.
const TIMEOUT: Duration = Duration::from_secs(10);
const MAX_TIMEOUT: Duration = Duration::from_mins(1);

/// The routes of this family.
pub(crate) fn routes(routes: Routes) -> Routes {
    routes
        .operation::<upload_keys::v3::Request, _, _>(Limit::Read, upload::upload)
        .operation::<get_keys::v3::Request, _, _>(Limit::Read, query::query)
        .operation::<claim_keys::v3::Request, _, _>(Limit::Read, claim::claim)
        .operation::<get_key_changes::v3::Request, _, _>(Limit::Read, changes::changes)
        .operation::<upload_signing_keys::v3::Request, _, _>(Limit::Login, signing_keys::upload)
        .operation::<upload_signatures::v3::Request, _, _>(Limit::Read, signatures::upload)
}

/// The caller, as the keys know him.
fn owner(requester: &Requester) -> Owner {
    Owner {
        user_id: requester.user_id.clone(),
        user: requester.user,
        device_id: requester.device_id.clone(),
    }
}

/// How long other servers may take, from a request's `timeout` in milliseconds.
fn timeout(wanted: Option<u64>) -> Duration {
    wanted.map_or(TIMEOUT, |wanted| {
        Duration::from_millis(wanted).min(MAX_TIMEOUT)
    })
}

/// 400 `M_INVALID_SIGNATURE`.
fn invalid_signature() -> Refusal {
    // ruma has no kind for it.
    let body = json!({ "errcode": "M_INVALID_SIGNATURE", "error": "A signature does not fit." });
    Refusal::with_body(StatusCode::BAD_REQUEST, body)
}

/// The `failures` of an answer: servers that could not be asked.
fn failures(failures: BTreeMap<OwnedServerName, String>) -> Map<String, Value> {
    failures
        .into_iter()
        .map(|(server, error)| (server.to_string(), json!({ "error": error })))
        .collect()
}
