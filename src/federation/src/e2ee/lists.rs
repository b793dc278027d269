//! Fetching the device lists of other servers' users. Spec: server-server API, `GET user/devices`.
//!
//! A list that is not known to be right is marked so in the store, with the time of the next attempt; so nothing is lost with
//! a restart. One is fetched when its server has just said something of it, when somebody asked for its user's keys, and
//! otherwise when its time has come. A user's is fetched by one at a time.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use http::Method;
use myelin_e2ee::{FetchedDevice, FetchedList, Kept, StaleList};
use myelin_store::{StoreError, View};
use myelin_types::{Clock, UserNum};
use parking_lot::Mutex;
use ruma::{OwnedServerName, OwnedUserId, ServerName, UserId};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::Semaphore;

use crate::{
    Federation,
    client::{Call, RequestError},
    history::BackOff,
    outbound::pause,
};

/// How many lists are fetched at once. The others wait for the next look.
const AT_ONCE: usize = 32;
/// How many stale lists are looked at in one step.
const LISTS_A_STEP: usize = 256;
/// How often a list is fetched in a row because there was news of it meanwhile.
const MOST_ROUNDS: usize = 3;
/// How long a server may take for a list.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The greatest list, in bytes: some thousand devices.
const LIST_LIMIT: usize = 8 << 20;

/// What is being fetched.
pub(crate) struct Lists {
    busy: Arc<Mutex<HashSet<OwnedUserId>>>,
    permits: Arc<Semaphore>,
    /// Servers that did not answer, so that not each of their users' lists need fail by itself.
    resting: BackOff<OwnedServerName>,
    /// Where the next look at stale lists goes on.
    next: Mutex<Option<UserNum>>,
    /// How often lists have become stale, and how often they had when none was.
    stirred: AtomicU64,
    quiet_at: AtomicU64,
}

impl Lists {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            busy: Arc::default(),
            permits: Arc::new(Semaphore::new(AT_ONCE)),
            resting: BackOff::new(clock),
            next: Mutex::default(),
            stirred: AtomicU64::new(1),
            quiet_at: AtomicU64::new(0),
        }
    }
}

/// The right to fetch a user's list.
struct Claim {
    busy: Arc<Mutex<HashSet<OwnedUserId>>>,
    user_id: OwnedUserId,
}

impl Claim {
    fn of(lists: &Lists, user_id: &UserId) -> Option<Self> {
        let user_id = user_id.to_owned();
        let is_free = lists.busy.lock().insert(user_id.clone());
        is_free.then(|| Self {
            busy: Arc::clone(&lists.busy),
            user_id,
        })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.busy.lock().remove(&self.user_id);
    }
}

/// The answer to `user/devices`. What is malformed spoils nothing beside it.
#[derive(Deserialize)]
struct Answer {
    user_id: OwnedUserId,
    stream_id: u64,
    devices: Vec<Box<RawValue>>,
    master_key: Option<Box<RawValue>>,
    self_signing_key: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
struct AnswerDevice {
    device_id: String,
    device_display_name: Option<String>,
    keys: Option<Box<RawValue>>,
}

impl Federation {
    /// Fetches lists whose time has come, as many as may be fetched at once. To be called now and then.
    pub async fn fetch_stale_lists(&self) -> Result<(), StoreError> {
        let lists = &self.0.lists;
        let stirred = lists.stirred.load(Ordering::SeqCst);
        if lists.quiet_at.load(Ordering::SeqCst) == stirred {
            return Ok(());
        }
        let after = *lists.next.lock();
        let e2ee = self.0.e2ee.clone();
        let read = move |view: &View| e2ee.stale_lists(view, after, LISTS_A_STEP);
        let (users, next) = self.0.rooms.store().read(read).await?;
        if users.is_empty() && after.is_none() {
            lists.quiet_at.store(stirred, Ordering::SeqCst);
        }
        *lists.next.lock() = next;
        self.begin_to_fetch(users);
        Ok(())
    }

    /// A server has said something of its users' lists: it is there, and these are to be fetched now.
    pub(crate) fn fetch_lists_of(&self, server: &ServerName, users: Vec<OwnedUserId>) {
        self.0.lists.resting.succeeded(&server.to_owned());
        self.fetch_lists(users);
    }

    /// Fetches lists that have become stale. What cannot be fetched now comes later.
    pub(crate) fn fetch_lists(&self, users: Vec<OwnedUserId>) {
        if users.is_empty() {
            return;
        }
        self.0.lists.stirred.fetch_add(1, Ordering::SeqCst);
        self.begin_to_fetch(users);
    }

    fn begin_to_fetch(&self, users: Vec<OwnedUserId>) {
        let lists = &self.0.lists;
        for user_id in users {
            if self.0.tasks.is_closed() {
                return;
            }
            if lists.resting.rests(&user_id.server_name().to_owned()) {
                continue;
            }
            let Ok(permit) = Arc::clone(&lists.permits).try_acquire_owned() else {
                return;
            };
            let Some(claim) = Claim::of(lists, &user_id) else {
                continue;
            };
            let federation = self.clone();
            let stop = self.0.inbound.stop().clone();
            self.0.tasks.spawn(async move {
                let fetched = stop.run_until_cancelled(federation.fetch_list(&user_id));
                if let Some(Err(error)) = fetched.await {
                    let error = crate::chain(&error);
                    tracing::error!(error, "a device list could not be kept");
                }
                drop((claim, permit));
            });
        }
    }

    /// Fetches a list, if its time has come.
    async fn fetch_list(&self, user_id: &UserId) -> Result<(), myelin_e2ee::Failure> {
        let e2ee = &self.0.e2ee;
        let server = user_id.server_name().to_owned();
        for _ in 0..MOST_ROUNDS {
            let Some(stale) = self.stale_list(user_id).await? else {
                return Ok(());
            };
            if stale.next_attempt() > self.0.clock.now() {
                return Ok(());
            }
            match self.ask_for_list(user_id).await {
                Ok(list) => {
                    self.0.lists.resting.succeeded(&server);
                    if e2ee.keep_list(stale, list).await? == Kept::Kept {
                        return Ok(());
                    }
                }
                Err(error) => {
                    tracing::debug!(%server, error = crate::chain(&error), "a device list was not fetched");
                    metrics::counter!("federation_device_lists_total", "outcome" => "failed")
                        .increment(1);
                    if !matches!(error, RequestError::Refused { .. }) {
                        self.0.lists.resting.failed(&server);
                    }
                    let wait = pause(stale.failures().saturating_add(1), &*self.0.random);
                    return e2ee
                        .put_off_list(stale, self.0.clock.now().after(wait))
                        .await;
                }
            }
        }
        Ok(())
    }

    async fn stale_list(&self, user_id: &UserId) -> Result<Option<StaleList>, StoreError> {
        let (e2ee, user_id) = (self.0.e2ee.clone(), user_id.to_owned());
        let read = move |view: &View| e2ee.stale_list(view, &user_id);
        self.0.rooms.store().read(read).await
    }

    async fn ask_for_list(&self, user_id: &UserId) -> Result<FetchedList, RequestError> {
        let call = Call {
            method: &Method::GET,
            path: &[
                "_matrix",
                "federation",
                "v1",
                "user",
                "devices",
                user_id.as_str(),
            ],
            query: &[],
            content: None,
            signed: true,
            limit: LIST_LIMIT,
            timeout: TIMEOUT,
        };
        let answer = self.0.client.send(user_id.server_name(), call).await?;
        let answer: Answer = serde_json::from_slice(&answer).map_err(RequestError::Malformed)?;
        if answer.user_id != user_id {
            let other = serde::de::Error::custom("the list is another user's");
            return Err(RequestError::Malformed(other));
        }
        metrics::counter!("federation_device_lists_total", "outcome" => "fetched").increment(1);
        let devices = answer.devices.iter().filter_map(|device| {
            let device: AnswerDevice = serde_json::from_str(device.get()).ok()?;
            Some(FetchedDevice {
                device_id: device.device_id,
                display_name: device.device_display_name,
                keys: device.keys,
            })
        });
        Ok(FetchedList {
            stream_id: answer.stream_id,
            devices: devices.collect(),
            master: answer.master_key,
            self_signing: answer.self_signing_key,
        })
    }
}
