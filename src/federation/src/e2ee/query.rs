//! Keys of users of any server. Spec: server-server API, `POST user/keys/query`.
//!
//! Our own users' keys are in the store, and so are those of others whose lists are kept and right. For the rest their servers
//! are asked, each once, all at the same time; and their lists are kept from then on, if a room is shared with them.

use std::{collections::BTreeMap, time::Duration};

use futures_util::{StreamExt as _, stream};
use http::Method;
use myelin_data::{RawJson, e2ee::CrossSigningUsage};
use myelin_e2ee::{UserKeys, WantedKeys, sound_cross_signing_key, sound_device_keys};
use myelin_store::{StoreError, View};
use myelin_types::UserNum;
use ruma::{OwnedServerName, OwnedUserId, ServerName};
use serde::Deserialize;
use serde_json::{
    Value, json,
    value::{RawValue, to_raw_value},
};
use tokio::time::{Instant, timeout_at};

use super::{KeysAnswer, MOST_FAILURE};
use crate::{
    Federation,
    client::{Call, RequestError},
};

/// How many servers are asked at once. The others have what is left of the time.
pub(super) const SERVERS_AT_ONCE: usize = 128;
/// The greatest answer, in bytes.
const ANSWER_LIMIT: usize = 16 << 20;
/// The most devices of a user that are looked at.
const MOST_DEVICES: usize = 2_000;
/// Of how many users one query begins to keep the lists.
const MOST_TRACKED: usize = 500;

/// What a server answers. What is malformed spoils nothing beside it.
#[derive(Default, Deserialize)]
struct Answer {
    #[serde(default, rename = "device_keys")]
    devices: BTreeMap<String, BTreeMap<String, Box<RawValue>>>,
    #[serde(default, rename = "master_keys")]
    masters: BTreeMap<String, Box<RawValue>>,
    #[serde(default, rename = "self_signing_keys")]
    self_signing: BTreeMap<String, Box<RawValue>>,
}

impl Federation {
    /// The keys of users of any server, as the local user `requester` may see them. Other servers have `timeout` to answer.
    pub async fn query_keys(
        &self,
        requester: UserNum,
        wanted: WantedKeys,
        timeout: Duration,
    ) -> Result<KeysAnswer, StoreError> {
        let (e2ee, here) = (self.e2ee().clone(), self.server_name().to_owned());
        let read = move |view: &View| {
            let mut keys = e2ee.local_keys(view, Some(requester), &wanted)?;
            let mut elsewhere: BTreeMap<OwnedServerName, WantedKeys> = BTreeMap::new();
            let mut tracked = Vec::new();
            for (user_id, devices) in &wanted {
                if user_id.server_name() == here {
                    continue;
                }
                let Some(user) = e2ee.tracked(view, user_id)? else {
                    let server = user_id.server_name().to_owned();
                    let of_server = elsewhere.entry(server).or_default();
                    of_server.insert(user_id.clone(), devices.clone());
                    continue;
                };
                let wanted = |id: &String| devices.is_empty() || devices.contains(id);
                let with_keys = user.devices.into_iter().filter_map(|(id, device)| {
                    let keys = device.keys.filter(|_| wanted(&id))?;
                    Some((id, named(keys, device.display_name)))
                });
                keys.device_keys
                    .insert(user_id.clone(), with_keys.collect());
                tracked.push((user.user, user_id));
            }
            e2ee.add_identities(view, Some(requester), &tracked, &mut keys)?;
            Ok::<_, StoreError>((keys, elsewhere))
        };
        let (mut keys, elsewhere) = self.rooms().store().read(read).await?;
        if elsewhere.is_empty() {
            return Ok(KeysAnswer {
                keys,
                failures: BTreeMap::new(),
            });
        }
        let strangers = elsewhere.values().flat_map(BTreeMap::keys);
        let strangers: Vec<OwnedUserId> = strangers.cloned().collect();
        let (mut answered, failures) = self.ask_all(elsewhere, timeout, &mut keys).await;
        let (e2ee, rooms) = (self.e2ee().clone(), self.rooms().clone());
        let read = move |view: &View| {
            let (mut keys, mut known) = (keys.clone(), Vec::new());
            for user_id in &strangers {
                let user = rooms.interner().find_user(view, user_id)?;
                known.extend(user.map(|user| (user, user_id)));
            }
            e2ee.add_signatures(view, requester, &known, &mut keys)?;
            Ok::<_, StoreError>(keys)
        };
        let keys = self.rooms().store().read(read).await?;
        answered.truncate(MOST_TRACKED);
        match self.e2ee().track(answered).await {
            Ok(stale) => self.fetch_lists(stale),
            Err(error) => {
                tracing::warn!(error = crate::chain(&error), "lists are not kept");
            }
        }
        Ok(KeysAnswer { keys, failures })
    }

    /// Asks servers for keys. Answers whose users' whole lists were told, and which servers gave no answer.
    async fn ask_all(
        &self,
        elsewhere: BTreeMap<OwnedServerName, WantedKeys>,
        timeout: Duration,
        keys: &mut UserKeys,
    ) -> (Vec<OwnedUserId>, BTreeMap<OwnedServerName, String>) {
        let deadline = Instant::now() + timeout;
        let questions = elsewhere.into_iter().map(|(server, wanted)| async move {
            let answer = timeout_at(deadline, self.ask_for_keys(&server, &wanted, timeout));
            let answer = answer.await;
            (server.clone(), wanted, answer)
        });
        let mut questions = stream::iter(questions).buffer_unordered(SERVERS_AT_ONCE);
        let (mut answered, mut failures) = (Vec::new(), BTreeMap::new());
        while let Some((server, wanted, answer)) = questions.next().await {
            match answer {
                Ok(Ok(answer)) => {
                    for (user_id, devices) in wanted {
                        add(keys, &user_id, &devices, &answer);
                        if devices.is_empty() {
                            answered.push(user_id);
                        }
                    }
                }
                Ok(Err(error)) => {
                    failures.insert(server, failure(&error));
                }
                Err(_) => {
                    failures.insert(server, super::TOO_SLOW.to_owned());
                }
            }
        }
        (answered, failures)
    }

    async fn ask_for_keys(
        &self,
        server: &ServerName,
        wanted: &WantedKeys,
        timeout: Duration,
    ) -> Result<Answer, RequestError> {
        let content = json!({ "device_keys": wanted });
        let call = Call {
            method: &Method::POST,
            path: &["_matrix", "federation", "v1", "user", "keys", "query"],
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

/// Why a server could not be asked, for clients: shortly, and without what is only for the operator.
pub(super) fn failure(error: &RequestError) -> String {
    let mut text = error.to_string();
    let end = text.floor_char_boundary(MOST_FAILURE);
    text.truncate(end);
    text
}

/// Adds what a server told of one of its users, as far as it was asked for and is this user's.
fn add(keys: &mut UserKeys, user_id: &OwnedUserId, wanted: &[String], answer: &Answer) {
    if let Some(devices) = answer.devices.get(user_id.as_str()) {
        let devices = devices.iter().take(MOST_DEVICES);
        let sound = devices
            .filter(|(id, _)| wanted.is_empty() || wanted.contains(id))
            .filter_map(|(id, keys)| Some((id.clone(), sound_device_keys(user_id, id, keys)?)));
        keys.device_keys.insert(user_id.clone(), sound.collect());
    }
    let told = [
        (
            CrossSigningUsage::Master,
            &answer.masters,
            &mut keys.master_keys,
        ),
        (
            CrossSigningUsage::SelfSigning,
            &answer.self_signing,
            &mut keys.self_signing_keys,
        ),
    ];
    for (usage, told, known) in told {
        let key = told.get(user_id.as_str());
        let key = key.and_then(|key| sound_cross_signing_key(user_id, usage, key));
        if let Some(key) = key {
            known.insert(user_id.clone(), key);
        }
    }
}

/// A device's keys with its name where servers put it, beside what is signed.
fn named(keys: RawJson, name: Option<String>) -> RawJson {
    let Some(name) = name else { return keys };
    let Ok(Value::Object(mut object)) = serde_json::from_str(keys.get()) else {
        return keys;
    };
    let unsigned = json!({ "device_display_name": name });
    object.insert("unsigned".to_owned(), unsigned);
    match to_raw_value(&object) {
        Ok(text) => RawJson(text),
        Err(_) => keys,
    }
}
