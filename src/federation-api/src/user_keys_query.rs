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

#[cfg(test)]
mod tests {
    use http::Method;
    use myelin_data::{
        RawJson,
        accounts::{Device, Devices},
        e2ee::{CrossSigningKeys, CrossSigningUsage, DeviceIds, DeviceKeys, KeyedDevices},
    };
    use myelin_store::Batch;
    use serde_json::{Value, json};

    use crate::testing::{Here, NOW};

    const PATH: &str = "/_matrix/federation/v1/user/keys/query";

    #[tokio::test]
    async fn keys_of_users_of_this_server_are_told_without_what_is_only_theirs() {
        let here = Here::new().await;
        let alice = here.register("alice").await;
        let key =
            |usage: &str| json!({ "user_id": "@alice:here.example", "usage": [usage], "keys": {} });
        let keys = json!({ "user_id": "@alice:here.example", "device_id": "D", "keys": {} });
        let stored = |value: &Value| RawJson::of(value).expect("it is JSON");
        let mut batch = Batch::new();
        let device = (alice, "D".to_owned());
        let row = Device {
            display_name: Some("A name".to_owned()),
            created_at: NOW,
            last_seen_at: None,
            last_seen_ip: None,
        };
        batch.put::<Devices>(&device, &row);
        batch.put::<DeviceKeys>(&device, &stored(&keys));
        batch.put::<KeyedDevices>(&alice, &DeviceIds(vec!["D".to_owned()]));
        for (usage, name) in [
            (CrossSigningUsage::Master, "master"),
            (CrossSigningUsage::SelfSigning, "self_signing"),
            (CrossSigningUsage::UserSigning, "user_signing"),
        ] {
            batch.put::<CrossSigningKeys>(&(alice, usage), &stored(&key(name)));
        }
        let store = here.rooms.store();
        store.commit(batch).await.expect("the store works");
        for wanted in [json!([]), json!(["D", "E"])] {
            let body = json!({
                "device_keys": {
                    "@alice:here.example": wanted,
                    "@nobody:here.example": [],
                    "@charlie:there.example": [],
                },
            });
            let told = here.signed(Method::POST, PATH, Some(body)).await.ok();
            let mut named = keys.clone();
            named["unsigned"] = json!({ "device_display_name": "A name" });
            let expected = json!({
                "device_keys": { "@alice:here.example": { "D": named } },
                "master_keys": { "@alice:here.example": key("master") },
                "self_signing_keys": { "@alice:here.example": key("self_signing") },
            });
            assert_eq!(told, expected);
        }
        let other = json!({ "device_keys": { "@alice:here.example": ["E"] } });
        let told = here.signed(Method::POST, PATH, Some(other)).await.ok();
        assert_eq!(told["device_keys"], json!({ "@alice:here.example": {} }));
    }

    #[tokio::test]
    async fn what_is_no_query_is_refused() {
        let here = Here::new().await;
        for body in [json!({}), json!({ "device_keys": { "alice": [] } })] {
            let refused = here.signed(Method::POST, PATH, Some(body)).await;
            refused.refused(400, "M_BAD_JSON");
        }
    }
}
