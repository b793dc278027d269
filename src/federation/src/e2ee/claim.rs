//! One-time keys of users of any server. Spec: server-server API, `POST user/keys/claim`.

use std::{collections::BTreeMap, time::Duration};

use futures_util::{StreamExt as _, stream};
use http::Method;
use myelin_data::RawJson;
use myelin_e2ee::{ClaimedKey, Failure, KeyToClaim};
use ruma::{OwnedServerName, ServerName};
use serde::Deserialize;
use serde_json::{json, value::RawValue};
use tokio::time::{Instant, timeout_at};

use super::{
    ClaimAnswer,
    query::{SERVERS_AT_ONCE, failure},
};
use crate::{
    Federation,
    client::{Call, RequestError},
};

/// The greatest answer, in bytes.
const ANSWER_LIMIT: usize = 8 << 20;
/// The longest key, in bytes.
const MAX_KEY: usize = 16 << 10;

/// What a server answers: keys by user, device and the key's id.
#[derive(Deserialize)]
struct Answer {
    one_time_keys: BTreeMap<String, BTreeMap<String, BTreeMap<String, Box<RawValue>>>>,
}

impl Federation {
    /// Claims one-time keys of users of any server. Other servers have `timeout` to answer.
    pub async fn claim_keys(
        &self,
        wanted: Vec<KeyToClaim>,
        timeout: Duration,
    ) -> Result<ClaimAnswer, Failure> {
        let mut local = Vec::new();
        let mut elsewhere: BTreeMap<OwnedServerName, Vec<KeyToClaim>> = BTreeMap::new();
        for key in wanted {
            if key.user_id.server_name() == self.server_name() {
                local.push(key);
            } else {
                let server = key.user_id.server_name().to_owned();
                elsewhere.entry(server).or_default().push(key);
            }
        }
        let deadline = Instant::now() + timeout;
        let questions = elsewhere.into_iter().map(|(server, wanted)| async move {
            let answer = timeout_at(deadline, self.ask_to_claim(&server, &wanted, timeout));
            let answer = match answer.await {
                Ok(answer) => answer.map_err(|error| failure(&error)),
                Err(_) => Err(super::TOO_SLOW.to_owned()),
            };
            (server.clone(), wanted, answer)
        });
        let asked = stream::iter(questions).buffer_unordered(SERVERS_AT_ONCE);
        let (claimed, asked) =
            tokio::join!(self.e2ee().claim_keys(local), asked.collect::<Vec<_>>());
        let mut answer = ClaimAnswer {
            keys: claimed?,
            failures: BTreeMap::new(),
        };
        for (server, wanted, told) in asked {
            match told {
                Ok(told) => {
                    let keys = wanted.into_iter().filter_map(|wanted| given(&told, wanted));
                    answer.keys.extend(keys);
                }
                Err(failure) => {
                    answer.failures.insert(server, failure);
                }
            }
        }
        Ok(answer)
    }

    async fn ask_to_claim(
        &self,
        server: &ServerName,
        wanted: &[KeyToClaim],
        timeout: Duration,
    ) -> Result<Answer, RequestError> {
        let mut users: BTreeMap<&str, BTreeMap<&str, &str>> = BTreeMap::new();
        for key in wanted {
            let devices = users.entry(key.user_id.as_str()).or_default();
            devices.insert(key.device_id.as_str(), &key.algorithm);
        }
        let content = json!({ "one_time_keys": users });
        let call = Call {
            method: &Method::POST,
            path: &["_matrix", "federation", "v1", "user", "keys", "claim"],
            query: &[],
            content: Some(&content),
            signed: true,
            limit: ANSWER_LIMIT,
            timeout,
        };
        let answer = self.0.client.send(server, call).await?;
        serde_json::from_slice(&answer).map_err(RequestError::Malformed)
    }
}

/// The key that a server gave of a device, if it is of the algorithm that was asked for.
fn given(answer: &Answer, wanted: KeyToClaim) -> Option<ClaimedKey> {
    let devices = answer.one_time_keys.get(wanted.user_id.as_str())?;
    let keys = devices.get(wanted.device_id.as_str())?;
    let is_right = |id: &str| {
        id.split_once(':')
            .is_some_and(|(algorithm, _)| algorithm == wanted.algorithm)
    };
    let (id, key) = keys
        .iter()
        .find(|(id, key)| is_right(id) && key.get().len() <= MAX_KEY)?;
    Some(ClaimedKey {
        key_id: id.clone(),
        key: RawJson(key.clone()),
        user_id: wanted.user_id,
        device_id: wanted.device_id,
    })
}
