//! `POST /_matrix/client/v3/keys/claim`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysclaim>

use std::collections::BTreeMap;

use axum::{Json, extract::State};
use myelin_e2ee::KeyToClaim;
use myelin_federation::Federation;
use ruma::{OwnedDeviceId, OwnedUserId, api::auth_scheme::AccessToken};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, value::RawValue};

use super::{failures, timeout};
use crate::{
    error::{Refusal, Result},
    extract::Call,
};

#[derive(Deserialize)]
struct Body {
    #[serde(default)]
    timeout: Option<u64>,
    one_time_keys: BTreeMap<OwnedUserId, BTreeMap<OwnedDeviceId, String>>,
}

/// The answer. Keys are copied as they are.
#[derive(Serialize)]
pub(crate) struct Answer {
    failures: Map<String, Value>,
    one_time_keys: BTreeMap<OwnedUserId, BTreeMap<OwnedDeviceId, BTreeMap<String, Box<RawValue>>>>,
}

/// Hands out one-time keys, each of them once.
pub(crate) async fn claim(
    State(federation): State<Federation>,
    call: Call<AccessToken>,
) -> Result<Json<Answer>> {
    let body: Body = call.json()?;
    let mut wanted = Vec::new();
    for (user_id, devices) in body.one_time_keys {
        for (device_id, algorithm) in devices {
            wanted.push(KeyToClaim {
                user_id: user_id.clone(),
                device_id,
                algorithm,
            });
        }
    }
    let answer = federation
        .claim_keys(wanted, timeout(body.timeout))
        .await
        .map_err(Refusal::internal)?;
    let mut one_time_keys = BTreeMap::<_, BTreeMap<_, BTreeMap<_, _>>>::new();
    for key in answer.keys {
        one_time_keys
            .entry(key.user_id)
            .or_default()
            .entry(key.device_id)
            .or_default()
            .insert(key.key_id, key.key.0);
    }
    Ok(Json(Answer {
        failures: failures(answer.failures),
        one_time_keys,
    }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::{
        keys::testing::{Pen, one_time_key},
        testing::Server,
    };

    const PATH: &str = "/keys/claim";

    #[tokio::test]
    async fn a_key_is_handed_out_once() {
        let (server, alice, bob) = Server::with_two_users().await;
        let pen = Pen::of(&alice, 1);
        let key = one_time_key(&alice, &pen, "a");
        let body = json!({ "one_time_keys": { "signed_curve25519:a": key } });
        server.post("/keys/upload", &alice, &body).await.ok();
        let before = server.sync(&alice, "").await;
        assert_eq!(before["device_one_time_keys_count"]["signed_curve25519"], 1);

        let claim =
            json!({ "one_time_keys": { &alice.id: { &alice.device: "signed_curve25519" } } });
        let answer = server.post(PATH, &bob, &claim).await.ok();
        let expected = json!({ &alice.id: { &alice.device: { "signed_curve25519:a": key } } });
        assert_eq!(answer, json!({ "failures": {}, "one_time_keys": expected }));
        for _ in 0..2 {
            let answer = server.post(PATH, &bob, &claim).await.ok();
            assert_eq!(answer["one_time_keys"], json!({}));
        }
        let after = server.sync(&alice, "").await;
        assert_eq!(after["device_one_time_keys_count"]["signed_curve25519"], 0);
    }

    #[tokio::test]
    async fn who_cannot_be_asked_is_named() {
        let (server, alice, _) = Server::with_two_users().await;
        let claim = json!({ "one_time_keys": {
            "@alice:elsewhere.org": { "DEVICE": "signed_curve25519" },
            "@nobody:hs1": { "DEVICE": "signed_curve25519" },
        } });
        let answer = server.post(PATH, &alice, &claim).await.ok();
        assert_eq!(answer["one_time_keys"], json!({}));
        assert!(answer["failures"]["elsewhere.org"].is_object());
        let malformed = json!({ "one_time_keys": { &alice.id: "signed_curve25519" } });
        server
            .post(PATH, &alice, &malformed)
            .await
            .refused(400, "M_BAD_JSON");
    }
}
