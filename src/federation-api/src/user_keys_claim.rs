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

#[cfg(test)]
mod tests {
    use http::Method;
    use myelin_data::{
        RawJson,
        e2ee::{FallbackKey, FallbackKeys, KeyCount, KeyCounts},
    };
    use myelin_store::Batch;
    use serde_json::json;

    use crate::testing::Here;

    const PATH: &str = "/_matrix/federation/v1/user/keys/claim";

    #[tokio::test]
    async fn keys_are_handed_out_by_device_and_algorithm() {
        let here = Here::new().await;
        let alice = here.register("alice").await;
        let device = (alice, "D".to_owned());
        let mut batch = Batch::new();
        let fallback = FallbackKey {
            used: false,
            key_id: "F".to_owned(),
            key: RawJson::of(&json!("a key")).expect("it is JSON"),
        };
        let row = (alice, "D".to_owned(), "curve25519".to_owned());
        batch.put::<FallbackKeys>(&row, &fallback);
        let count = KeyCount {
            unused_fallback: vec!["curve25519".to_owned()],
            ..KeyCount::default()
        };
        batch.put::<KeyCounts>(&device, &count);
        let store = here.rooms.store();
        store.commit(batch).await.expect("the store works");
        let claim = async |user: &str, device: &str, algorithm: &str| {
            let body = json!({ "one_time_keys": { user: { device: algorithm } } });
            let claimed = here.signed(Method::POST, PATH, Some(body)).await.ok();
            claimed["one_time_keys"].clone()
        };
        // There is no other, so that the fallback key is handed out again and again.
        for _ in 0..2 {
            let claimed = claim("@alice:here.example", "D", "curve25519").await;
            let expected = json!({ "@alice:here.example": { "D": { "curve25519:F": "a key" } } });
            assert_eq!(claimed, expected);
        }
        for (user, device, algorithm) in [
            ("@alice:here.example", "D", "signed_curve25519"),
            ("@alice:here.example", "E", "curve25519"),
            ("@nobody:here.example", "D", "curve25519"),
            ("@charlie:there.example", "D", "curve25519"),
        ] {
            assert_eq!(claim(user, device, algorithm).await, json!({}));
        }
        let refused = here.signed(Method::POST, PATH, Some(json!({}))).await;
        refused.refused(400, "M_BAD_JSON");
    }
}
