//! `POST /_matrix/client/v3/keys/query`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysquery>

use std::collections::BTreeMap;

use axum::{Json, extract::State};
use myelin_data::RawJson;
use myelin_federation::Federation;
use ruma::{OwnedUserId, api::auth_scheme::AccessToken};
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
    device_keys: BTreeMap<OwnedUserId, Vec<String>>,
}

/// The answer. Keys are copied as they are.
#[derive(Serialize)]
pub(crate) struct Answer {
    failures: Map<String, Value>,
    device_keys: BTreeMap<OwnedUserId, BTreeMap<String, Box<RawValue>>>,
    master_keys: BTreeMap<OwnedUserId, Box<RawValue>>,
    self_signing_keys: BTreeMap<OwnedUserId, Box<RawValue>>,
    user_signing_keys: BTreeMap<OwnedUserId, Box<RawValue>>,
}

/// Answers with the keys of users and of their devices.
pub(crate) async fn query(
    State(federation): State<Federation>,
    call: Call<AccessToken>,
) -> Result<Json<Answer>> {
    let body: Body = call.json()?;
    let answer = federation
        .query_keys(call.caller.user, body.device_keys, timeout(body.timeout))
        .await
        .map_err(Refusal::internal)?;
    let keys = answer.keys;
    let devices = keys.device_keys.into_iter();
    Ok(Json(Answer {
        failures: failures(answer.failures),
        device_keys: devices.map(|(user, of)| (user, raw(of))).collect(),
        master_keys: raw(keys.master_keys),
        self_signing_keys: raw(keys.self_signing_keys),
        user_signing_keys: raw(keys.user_signing_keys),
    }))
}

fn raw<K: Ord>(keys: BTreeMap<K, RawJson>) -> BTreeMap<K, Box<RawValue>> {
    keys.into_iter().map(|(id, json)| (id, json.0)).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::{Value, json};

    use crate::testing::Server;

    const PATH: &str = "/keys/query";

    #[tokio::test]
    async fn keys_are_served_as_they_were_uploaded_with_the_devices_name() {
        let (server, alice, bob) = Server::with_two_users().await;
        let keys = server.publish_keys(&alice, 1).await;
        let path = format!("/devices/{}", alice.device);
        let name = json!({ "display_name": "Alice's phone" });
        server.put(&path, &alice, &name).await.ok();
        let wanted: BTreeMap<&str, Value> = BTreeMap::from([
            (alice.id.as_str(), json!([])),
            (bob.id.as_str(), json!([])),
            ("@nobody:hs1", json!([])),
            ("@alice:elsewhere.org", json!([])),
        ]);
        let body = json!({ "device_keys": wanted });
        for asking in [&bob, &bob, &alice] {
            let mut answer = server.post(PATH, asking, &body).await.ok();
            let device = answer["device_keys"][&alice.id][&alice.device].take();
            let mut expected = keys.clone();
            expected["unsigned"] = json!({ "device_display_name": "Alice's phone" });
            assert_eq!(device, expected);
            assert_eq!(answer["device_keys"][&bob.id], json!({}));
            assert_eq!(
                answer["device_keys"].as_object().map(serde_json::Map::len),
                Some(2)
            );
            assert!(answer["failures"]["elsewhere.org"].is_object());
        }
        let named = json!({ "device_keys": { &alice.id: ["OTHER"] } });
        let answer = server.post(PATH, &bob, &named).await.ok();
        assert_eq!(answer["device_keys"], json!({ &alice.id: {} }));
    }

    #[tokio::test]
    async fn devices_that_are_no_list_are_refused() {
        let (server, alice, bob) = Server::with_two_users().await;
        for body in [
            json!({ "device_keys": { &bob.id: { "DEVICE": true } } }),
            json!({ "device_keys": { "bob": [] } }),
            json!({}),
        ] {
            let answer = server.post(PATH, &alice, &body).await;
            answer.refused(400, "M_BAD_JSON");
        }
    }
}
