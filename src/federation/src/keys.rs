//! The key ring: this server's own keys as it publishes them, and those of other servers. Spec: server-server API,
//! "Retrieving server keys".
//!
//! Keys are asked of the server they belong to. Notaries are not asked: a server that is gone cannot be vouched for any
//! more once its keys are forgotten.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use http::Method;
use myelin_data::federation::{PublishedKeys, ServerKeys};
use myelin_rooms::remote::WantedKey;
use myelin_rules::{
    Object, Signer,
    canonical::{self, Numbers},
    sign::{self, VerifyKey, VerifyKeys},
};
use myelin_store::{Batch, CommitError, Scan, Store, StoreError};
use myelin_types::{Clock, Millis};
use parking_lot::Mutex;
use quick_cache::sync::Cache;
use ruma::{OwnedServerName, ServerName};
use serde_json::{Value, json};

use crate::{
    client::{Call, Client, RequestError},
    flights::Flights,
};

/// Base64 as it is read, with or without padding (appendices, "Unpadded Base64").
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);
const MINUTE: u64 = 60_000;
const DAY: u64 = 24 * 60 * MINUTE;
/// The longest time for which a key counts after it was fetched.
const GREATEST_VALIDITY: u64 = 7 * DAY;
/// For how long an answer of ours is given out before it is made anew.
const OWN_AGE: u64 = 60 * MINUTE;
/// How many servers' keys are kept in memory; the longest unused are read from the store again.
const REMEMBERED: usize = 10_000;
/// A server whose answer does not have what is wanted is not asked again before this.
const ASK_AGAIN: u64 = 10_000;
/// A server that did not answer is not asked again for this, doubled with each further failure up to the greatest.
const FIRST_FAILURE: u64 = 5_000;
const GREATEST_FAILURE: u64 = 10 * MINUTE;
/// After so long without an answer a server's keys are forgotten.
const FORGOTTEN_AFTER: u64 = 90 * DAY;
/// How many rows one step of the janitor looks at.
const TIDY_STEP: usize = 500;
/// How many keys of a kind a server may have.
const MOST_KEYS: usize = 100;
/// The longest key identifier.
const LONGEST_ID: usize = 255;
/// The greatest answer in bytes.
const LIMIT: usize = 256 << 10;
const TIMEOUT: Duration = Duration::from_secs(10);

/// Why a server's keys cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// It has no such key that counts now.
    #[error("the server has no such key, or it has expired")]
    Unknown,
    /// It did not answer lately and is not asked at the moment.
    #[error("the server did not answer lately")]
    Resting,
    /// It did not answer, or with an error.
    #[error("ask the server for its keys")]
    Request(#[from] RequestError),
    /// Its answer is not what the specification says or not signed.
    #[error("the server's answer is no document of its keys: {0}")]
    Malformed(&'static str),
    /// The store.
    #[error("read known keys")]
    Store(#[from] StoreError),
    /// The store.
    #[error("keep the server's keys")]
    Commit(#[from] CommitError),
}

/// Keys of this and of other servers.
pub(crate) struct KeyRing {
    store: Store,
    clock: Arc<dyn Clock>,
    client: Arc<Client>,
    signer: Arc<Signer>,
    own: Mutex<Option<(Millis, Arc<Object>)>>,
    known: Cache<OwnedServerName, Arc<PublishedKeys>>,
    failures: Cache<OwnedServerName, Failed>,
    flights: Flights,
}

#[derive(Clone, Copy, Debug)]
struct Failed {
    times: u32,
    until: Millis,
}

impl KeyRing {
    pub(crate) fn new(
        store: Store,
        clock: Arc<dyn Clock>,
        client: Arc<Client>,
        signer: Arc<Signer>,
    ) -> Self {
        Self {
            store,
            clock,
            client,
            signer,
            own: Mutex::default(),
            known: Cache::new(REMEMBERED),
            failures: Cache::new(REMEMBERED),
            flights: Flights::default(),
        }
    }

    /// This server's keys, as `GET /_matrix/key/v2/server` shows them.
    pub(crate) fn own(&self) -> Arc<Object> {
        let now = self.clock.now();
        let mut own = self.own.lock();
        if let Some((made, document)) = &*own
            && now.0 < made.0 + OWN_AGE
        {
            return Arc::clone(document);
        }
        let document = Arc::new(own_document(&self.signer, now));
        *own = Some((now, Arc::clone(&document)));
        document
    }

    /// The key with which `server` may sign requests now.
    pub(crate) async fn request_key(
        &self,
        server: &ServerName,
        key_id: &str,
    ) -> Result<[u8; 32], KeyError> {
        let now = self.clock.now();
        let find = |keys: &PublishedKeys| {
            let current = keys.current.iter().find(|(id, _)| id == key_id);
            current
                .filter(|_| now <= keys.valid_until)
                .map(|(_, key)| *key)
        };
        let known = self.known(server).await?;
        if let Some(key) = known.as_deref().and_then(find) {
            return Ok(key);
        }
        let fetched = self.fetch(server, |keys| find(keys).is_some()).await?;
        find(&fetched).ok_or(KeyError::Unknown)
    }

    /// Keys of events; those that cannot be had are left out.
    pub(crate) async fn event_keys(&self, wanted: &[WantedKey]) -> VerifyKeys {
        let mut by_server: BTreeMap<&ServerName, Vec<&WantedKey>> = BTreeMap::new();
        for key in wanted {
            by_server.entry(&key.server).or_default().push(key);
        }
        let found = by_server.into_iter().map(async |(server, wanted)| {
            if server == self.signer.server_name() {
                let own = VerifyKey {
                    key: self.signer.key().public_key_bytes(),
                    valid_until: None,
                    expired: None,
                };
                let keys = BTreeMap::from([(self.signer.key().id().to_owned(), own)]);
                return (server.to_string(), keys);
            }
            let keys = self.best_of(server, &wanted).await;
            (
                server.to_string(),
                keys.as_deref().map_or_else(BTreeMap::new, verify_keys),
            )
        });
        let found = futures_util::future::join_all(found).await;
        found.into_iter().collect()
    }

    /// What is known of a server's keys, after asking it if that is not enough for `wanted`.
    async fn best_of(
        &self,
        server: &ServerName,
        wanted: &[&WantedKey],
    ) -> Option<Arc<PublishedKeys>> {
        let enough = |keys: &PublishedKeys| {
            wanted.iter().all(|wanted| {
                let is_wanted = |id: &String| *id == wanted.key_id;
                keys.old.iter().any(|(id, ..)| is_wanted(id))
                    || (wanted.valid_at <= keys.valid_until
                        && keys.current.iter().any(|(id, _)| is_wanted(id)))
            })
        };
        let known = self.known(server).await.unwrap_or_else(|error| {
            tracing::error!(%server, error = crate::chain(&error), "known keys cannot be read");
            None
        });
        if known.as_deref().is_some_and(enough) {
            return known;
        }
        match self.fetch(server, enough).await {
            Ok(fetched) => Some(fetched),
            Err(error) => {
                tracing::debug!(%server, error = crate::chain(&error), "keys were not fetched");
                known
            }
        }
    }

    /// What is remembered of a server's keys.
    async fn known(&self, server: &ServerName) -> Result<Option<Arc<PublishedKeys>>, StoreError> {
        if let Some(keys) = self.known.get(server) {
            return Ok(Some(keys));
        }
        let name = server.to_string();
        let stored = self
            .store
            .read(move |view| view.get::<ServerKeys>(&name))
            .await?;
        Ok(stored.map(|keys| {
            let keys = Arc::new(keys);
            self.known.insert(server.to_owned(), Arc::clone(&keys));
            keys
        }))
    }

    /// Asks `server` for its keys, unless somebody else just did and the answer is `enough`.
    async fn fetch(
        &self,
        server: &ServerName,
        enough: impl Fn(&PublishedKeys) -> bool,
    ) -> Result<Arc<PublishedKeys>, KeyError> {
        let _flight = self.flights.board(server).await;
        let now = self.clock.now();
        if let Some(known) = self.known.get(server)
            && (enough(&known) || now.0 < known.fetched.0 + ASK_AGAIN)
        {
            return Ok(known);
        }
        let failed = self.failures.get(server);
        if failed.is_some_and(|failed| now < failed.until) {
            return Err(KeyError::Resting);
        }
        match self.ask(server).await {
            Ok(keys) => {
                let keys = Arc::new(keys);
                let mut batch = Batch::new();
                batch.put::<ServerKeys>(&server.to_string(), &keys);
                self.store.commit(batch).await?;
                self.failures.remove(server);
                self.known.insert(server.to_owned(), Arc::clone(&keys));
                Ok(keys)
            }
            Err(error) => {
                let times = failed.map_or(0, |failed| failed.times);
                let rest = (FIRST_FAILURE << times.min(10)).min(GREATEST_FAILURE);
                let failed = Failed {
                    times: times.saturating_add(1),
                    until: Millis(self.clock.now().0 + rest),
                };
                self.failures.insert(server.to_owned(), failed);
                Err(error)
            }
        }
    }

    async fn ask(&self, server: &ServerName) -> Result<PublishedKeys, KeyError> {
        let call = Call {
            method: &Method::GET,
            path: &["_matrix", "key", "v2", "server"],
            query: &[],
            content: None,
            signed: false,
            limit: LIMIT,
            timeout: TIMEOUT,
        };
        let body = self.client.send(server, call).await?;
        read_document(&body, server, self.clock.now())
    }

    /// Forgets keys of servers that have been gone for long; one step. Whether there is more to do.
    pub(crate) async fn tidy(&self, after: Option<String>) -> Result<Option<String>, KeyError> {
        let oldest = Millis(self.clock.now().0.saturating_sub(FORGOTTEN_AFTER));
        let rows = self
            .store
            .read(move |view| {
                let mut scan = Scan::all().limit(TIDY_STEP);
                if let Some(after) = &after {
                    scan = scan.after(after);
                }
                view.scan::<ServerKeys>(scan)
                    .collect::<Result<Vec<_>, StoreError>>()
            })
            .await?;
        let mut batch = Batch::new();
        let mut forgotten = 0;
        for (server, _) in rows.iter().filter(|(_, keys)| keys.fetched < oldest) {
            batch.delete::<ServerKeys>(server);
            if let Ok(server) = <&ServerName>::try_from(server.as_str()) {
                self.known.remove(server);
            }
            forgotten += 1;
        }
        if forgotten > 0 {
            self.store.commit(batch).await?;
        }
        let more = rows.len() == TIDY_STEP;
        Ok(rows
            .into_iter()
            .last()
            .map(|(server, _)| server)
            .filter(|_| more))
    }
}

/// This server's keys, signed, as of `now`.
fn own_document(signer: &Signer, now: Millis) -> Object {
    let key = signer.key();
    let document = json!({
        "server_name": signer.server_name(),
        "verify_keys": { key.id(): { "key": key.public_key() } },
        "old_verify_keys": {},
        "valid_until_ts": now.0 + GREATEST_VALIDITY,
    });
    let Value::Object(mut document) = document else {
        unreachable!("it is written as an object above");
    };
    signer
        .sign_json(&mut document)
        .expect("strings and one integer have a canonical form");
    document
}

/// Reads what `server` answered at `now`.
fn read_document(body: &[u8], server: &ServerName, now: Millis) -> Result<PublishedKeys, KeyError> {
    let document = canonical::parse_object(body, Numbers::Whole)
        .map_err(|_| KeyError::Malformed("not JSON"))?;
    if document.get("server_name").and_then(Value::as_str) != Some(server.as_str()) {
        return Err(KeyError::Malformed("of another server"));
    }
    let valid_until = document
        .get("valid_until_ts")
        .and_then(Value::as_u64)
        .ok_or(KeyError::Malformed("without `valid_until_ts`"))?;
    let keys_in = |field: &str| {
        let keys = document.get(field).and_then(Value::as_object);
        keys.into_iter().flatten().filter_map(|(id, value)| {
            let known = id.starts_with("ed25519:") && id.len() <= LONGEST_ID;
            let key = value.get("key").and_then(Value::as_str)?;
            let key: [u8; 32] = BASE64.decode(key).ok()?.try_into().ok()?;
            known.then(|| (id.clone(), key, value))
        })
    };
    let current: BTreeMap<String, [u8; 32]> = keys_in("verify_keys")
        .map(|(id, key, _)| (id, key))
        .take(MOST_KEYS)
        .collect();
    sign::verify_json(&document, server.as_str(), &current)
        .map_err(|_| KeyError::Malformed("not signed by the server's keys"))?;
    let old = keys_in("old_verify_keys").filter_map(|(id, key, value)| {
        let expired = value.get("expired_ts").and_then(Value::as_u64)?;
        Some((id, key, Millis(expired)))
    });
    let ids: BTreeSet<&String> = current.keys().collect();
    Ok(PublishedKeys {
        fetched: now,
        valid_until: Millis(valid_until.min(now.0 + GREATEST_VALIDITY)),
        old: old
            .filter(|(id, ..)| !ids.contains(id))
            .take(MOST_KEYS)
            .collect(),
        current: current.into_iter().collect(),
    })
}

fn verify_keys(keys: &PublishedKeys) -> BTreeMap<String, VerifyKey> {
    let current = keys.current.iter().map(|(id, key)| {
        let key = VerifyKey {
            key: *key,
            valid_until: Some(keys.valid_until),
            expired: None,
        };
        (id.clone(), key)
    });
    let old = keys.old.iter().map(|(id, key, expired)| {
        let key = VerifyKey {
            key: *key,
            valid_until: None,
            expired: Some(*expired),
        };
        (id.clone(), key)
    });
    current.chain(old).collect()
}
