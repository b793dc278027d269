//! `POST /_matrix/federation/v1/user/keys/claim`
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#post_matrixfederationv1userkeysclaim>

use std::collections::BTreeMap;

use axum::{Json, extract::State};
use myelin_e2ee::KeyToClaim;
use myelin_federation::Federation;
use ruma::{
    OwnedDeviceId, OwnedUserId, api::federation::keys::claim_keys::v1::Request as Operation,
};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::{
    error::{Refusal, Result},
    extract::Request,
};

/// Of how many devices keys are handed out at once.
const MOST_DEVICES: usize = 5_000;

/// The answer. Keys are copied as they are.
#[derive(Serialize)]
pub(crate) struct Answer {
    one_time_keys: BTreeMap<OwnedUserId, BTreeMap<OwnedDeviceId, BTreeMap<String, Box<RawValue>>>>,
}

/// Hands out keys of devices of users of this server, each of them once. Users of other servers are passed over.
pub(crate) async fn post(
    State(federation): State<Federation>,
    request: Request<Operation>,
) -> Result<Json<Answer>> {
    let mut wanted = Vec::new();
    for (user_id, devices) in request.body.one_time_keys {
        for (device_id, algorithm) in devices {
            wanted.push(KeyToClaim {
                user_id: user_id.clone(),
                device_id,
                algorithm: algorithm.to_string(),
            });
        }
    }
    if wanted.len() > MOST_DEVICES {
        return Err(Refusal::too_large(format!(
            "Keys of at most {MOST_DEVICES} devices are claimed at once."
        )));
    }
    let claimed = federation
        .e2ee()
        .claim_keys(wanted)
        .await
        .map_err(Refusal::internal)?;
    let mut one_time_keys = BTreeMap::<_, BTreeMap<_, BTreeMap<_, _>>>::new();
    for key in claimed {
        one_time_keys
            .entry(key.user_id)
            .or_default()
            .entry(key.device_id)
            .or_default()
            .insert(key.key_id, key.key.0);
    }
    Ok(Json(Answer { one_time_keys }))
}
