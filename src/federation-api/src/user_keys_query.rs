//! `POST /_matrix/federation/v1/user/keys/query`
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#post_matrixfederationv1userkeysquery>

use std::collections::BTreeMap;

use axum::{Json, extract::State};
use myelin_data::RawJson;
use myelin_e2ee::UserKeys;
use myelin_federation::Federation;
use ruma::{OwnedUserId, api::federation::keys::get_keys::v1::Request as Operation};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::{
    error::{Refusal, Result},
    extract::Request,
};

/// Of how many users keys are told at once.
const MOST_USERS: usize = 10_000;

/// The answer. Keys are copied as they are.
#[derive(Serialize)]
pub(crate) struct Answer {
    #[serde(rename = "device_keys")]
    devices: BTreeMap<OwnedUserId, BTreeMap<String, Box<RawValue>>>,
    #[serde(rename = "master_keys")]
    masters: BTreeMap<OwnedUserId, Box<RawValue>>,
    #[serde(rename = "self_signing_keys")]
    self_signing: BTreeMap<OwnedUserId, Box<RawValue>>,
}

/// The keys of users of this server and of their devices. Users of other servers are passed over.
pub(crate) async fn post(
    State(federation): State<Federation>,
    request: Request<Operation>,
) -> Result<Json<Answer>> {
    let wanted = request.body.device_keys;
    if wanted.len() > MOST_USERS {
        return Err(Refusal::too_large(format!(
            "A query has at most {MOST_USERS} users."
        )));
    }
    let wanted = wanted.into_iter().map(|(user_id, devices)| {
        let devices = devices.iter().map(ToString::to_string);
        (user_id, devices.collect())
    });
    let wanted = wanted.collect();
    let e2ee = federation.e2ee().clone();
    let UserKeys {
        device_keys,
        master_keys,
        self_signing_keys,
        ..
    } = federation
        .rooms()
        .store()
        .read(move |view| e2ee.local_keys(view, None, &wanted))
        .await
        .map_err(Refusal::internal)?;
    let device_keys = device_keys.into_iter();
    Ok(Json(Answer {
        devices: device_keys.map(|(user, of)| (user, raw(of))).collect(),
        masters: raw(master_keys),
        self_signing: raw(self_signing_keys),
    }))
}

fn raw<K: Ord>(keys: BTreeMap<K, RawJson>) -> BTreeMap<K, Box<RawValue>> {
    keys.into_iter().map(|(id, json)| (id, json.0)).collect()
}
