//! The key ring: this server's own keys as it publishes them, and those of other servers. Spec: server-server API,
//! "Retrieving server keys".
//!
//! Keys are asked of the server they belong to, and of [`notary`] servers where that does not answer, or where there are so
//! many to ask that one question is better.

pub(crate) mod document;
pub(crate) mod notary;
mod own;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use http::Method;
use myelin_data::federation::{KeyDocuments, OwnOldKey, OwnOldKeys, PublishedKeys, ServerKeys};
use myelin_rooms::remote::WantedKey;
use myelin_rules::{Object, Signer, SigningKey, sign::VerifyKeys};
use myelin_store::{Batch, CommitError, Scan, Store, StoreError};
use myelin_types::{Clock, Millis};
use parking_lot::Mutex;
use quick_cache::sync::Cache;
use ruma::{OwnedServerName, ServerName};
use tokio::{sync::Semaphore, time::Instant};

use crate::{
    client::{Call, Client, RequestError},
    flights::Flights,
};
use document::{Document, From, GREATEST_VALIDITY, has, verify_keys};

const MINUTE: u64 = 60_000;
const DAY: u64 = 24 * 60 * MINUTE;
/// For how long an answer of ours is given out before it is made anew.
const OWN_AGE: u64 = 60 * MINUTE;
/// How many servers are remembered that did not answer, and for whom notaries were asked; of more the longest unused are
/// asked again too early. The keys themselves are kept as far as [`memory`](crate::memory) says.
const REMEMBERED: usize = 2_000;
/// A server whose answer does not have what is wanted is not asked again before this.
const ASK_AGAIN: u64 = 10_000;
/// A server that did not answer is not asked again for this, doubled with each further failure up to the greatest.
const FIRST_FAILURE: u64 = 5_000;
const GREATEST_FAILURE: u64 = 10 * MINUTE;
/// After so long without an answer a server's keys are forgotten.
const FORGOTTEN_AFTER: u64 = 365 * DAY;
/// How many rows one step of the janitor looks at.
const TIDY_STEP: usize = 500;
/// The greatest answer in bytes.
const LIMIT: usize = 256 << 10;
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long all servers together may take whose keys are wanted for events.
const EVENTS_TIMEOUT: Duration = Duration::from_secs(40);
/// With more servers to ask than this, notaries are asked first.
const FEW: usize = 10;
/// How many servers of which nothing is known are asked for their keys at once, because somebody says to be them or asks us
/// for them. Further ones are not believed until there is room.
const STRANGERS_AT_ONCE: usize = 32;

/// Why a server's keys cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// It has no such key that counts now.
    #[error("the server has no such key, or it has expired")]
    Unknown,
    /// So many other servers that nobody knows are asked for theirs that this one is not.
    #[error("too many unknown servers are asked for their keys")]
    Busy,
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
    notaries: Vec<OwnedServerName>,
    /// When notaries were last asked for a server's keys.
    vouched: Cache<OwnedServerName, Millis>,
    strangers: Semaphore,
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
        notaries: Vec<OwnedServerName>,
        remembered: usize,
    ) -> Self {
        Self {
            notaries: notaries
                .into_iter()
                .filter(|notary| notary != signer.server_name())
                .collect(),
            vouched: Cache::new(REMEMBERED),
            strangers: Semaphore::new(STRANGERS_AT_ONCE),
            store,
            clock,
            client,
            signer,
            own: Mutex::default(),
            known: Cache::new(remembered),
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
        let document = Arc::new(own::document(&self.signer, now));
        *own = Some((now, Arc::clone(&document)));
        document
    }

    /// Signs with `key` from now on, and publishes the one of before as an old one.
    pub(crate) async fn replace_own(&self, key: SigningKey) -> Result<(), KeyError> {
        // What is being signed with the old key at this moment was sent before.
        let expired = Millis(self.clock.now().0 + 1000);
        let old = self.signer.replace(key, expired);
        let row = OwnOldKey {
            key: old.key,
            expired: old.expired,
        };
        let mut batch = Batch::new();
        batch.put::<OwnOldKeys>(&old.id, &row);
        self.store.commit(batch).await?;
        *self.own.lock() = None;
        Ok(())
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
        // Anybody can say to be anybody. Servers of which something is known are not kept waiting by those who make up
        // names.
        let _permit = match known {
            Some(_) => None,
            None => Some(self.strangers.try_acquire().map_err(|_| KeyError::Busy)?),
        };
        match self.fetch(server, |keys| find(keys).is_some()).await {
            Ok(fetched) => find(&fetched).ok_or(KeyError::Unknown),
            Err(error @ KeyError::Request(_)) => {
                let wanted = WantedKey {
                    server: server.to_owned(),
                    key_id: key_id.to_owned(),
                    valid_at: now,
                };
                self.ask_notaries(&BTreeMap::from([(server, vec![&wanted])]))
                    .await;
                let vouched = self.known.get(server);
                vouched.as_deref().and_then(find).ok_or(error)
            }
            Err(error) => Err(error),
        }
    }

    /// Keys of events; those that cannot be had in time are left out.
    pub(crate) async fn event_keys(&self, wanted: &[WantedKey]) -> VerifyKeys {
        let mut by_server: BTreeMap<&ServerName, Vec<&WantedKey>> = BTreeMap::new();
        for key in wanted {
            by_server.entry(&key.server).or_default().push(key);
        }
        let mut found = VerifyKeys::new();
        let own = self.signer.server_name();
        if by_server.remove(own_name(own)).is_some() {
            found.insert(own.to_owned(), self.signer.verify_keys());
        }
        let names: Vec<OwnedServerName> = by_server.keys().map(|name| (*name).to_owned()).collect();
        let known = self.known_many(&names).await.unwrap_or_else(|error| {
            tracing::error!(error = crate::chain(&error), "known keys cannot be read");
            vec![None; names.len()]
        });
        let now = self.clock.now();
        let enough = |keys: &PublishedKeys, wanted: &[&WantedKey]| {
            let mut wanted = wanted.iter();
            wanted.all(|key| has(keys, &key.key_id, key.valid_at))
        };
        let mut missing: BTreeMap<&ServerName, Vec<&WantedKey>> = BTreeMap::new();
        for ((server, wanted), known) in by_server.iter().zip(&known) {
            if !known.as_deref().is_some_and(|keys| enough(keys, wanted)) {
                // No answer makes a key count that far ahead.
                let mut wanted = wanted.clone();
                wanted.retain(|key| key.valid_at.0 <= now.0 + GREATEST_VALIDITY);
                missing.insert(server, wanted);
            }
        }
        missing.retain(|_, wanted| !wanted.is_empty());
        if !missing.is_empty() {
            let deadline = Instant::now() + EVENTS_TIMEOUT;
            let asking = self.ask_for(missing, deadline, &enough);
            tokio::time::timeout_at(deadline, asking).await.ok();
        }
        for (name, known) in names.iter().zip(known) {
            // What was fetched is remembered, at least for as long as this takes.
            let keys = self.known.get(name).or(known);
            let keys = keys.as_deref().map_or_else(BTreeMap::new, verify_keys);
            found.insert(name.to_string(), keys);
        }
        found
    }

    /// Asks servers and notaries for what is missing, as long as there is time.
    async fn ask_for(
        &self,
        mut missing: BTreeMap<&ServerName, Vec<&WantedKey>>,
        deadline: Instant,
        enough: &impl Fn(&PublishedKeys, &[&WantedKey]) -> bool,
    ) {
        let still_missing = |missing: &mut BTreeMap<&ServerName, Vec<&WantedKey>>| {
            missing.retain(|server, wanted| {
                let known = self.known.get(*server);
                !known.is_some_and(|keys| enough(&keys, wanted))
            });
        };
        let many = missing.len() > FEW;
        if many {
            // At most half of the time: the servers themselves are asked in any case.
            let half = Instant::now() + (deadline - Instant::now()) / 2;
            let asking = self.ask_notaries(&missing);
            tokio::time::timeout_at(half, asking).await.ok();
            still_missing(&mut missing);
        }
        let direct = missing.iter().map(async |(server, wanted)| {
            if let Err(error) = self.fetch(server, |keys| enough(keys, wanted)).await {
                tracing::debug!(%server, error = crate::chain(&error), "keys were not fetched");
            }
        });
        futures_util::future::join_all(direct).await;
        still_missing(&mut missing);
        if !many && !missing.is_empty() {
            self.ask_notaries(&missing).await;
        }
    }

    /// What is known of servers' keys, in the order of the names.
    async fn known_many(
        &self,
        servers: &[OwnedServerName],
    ) -> Result<Vec<Option<Arc<PublishedKeys>>>, StoreError> {
        let mut known: Vec<_> = servers
            .iter()
            .map(|server| self.known.get(server))
            .collect();
        let unread: Vec<usize> = (0..servers.len())
            .filter(|at| known[*at].is_none())
            .collect();
        if unread.is_empty() {
            return Ok(known);
        }
        let names: Vec<String> = unread.iter().map(|at| servers[*at].to_string()).collect();
        let rows = self
            .store
            .read(move |view| view.multi_get::<ServerKeys>(&names))
            .await?;
        for (at, row) in unread.into_iter().zip(rows) {
            if let Some(keys) = row {
                let keys = Arc::new(keys);
                self.known.insert(servers[at].clone(), Arc::clone(&keys));
                known[at] = Some(keys);
            }
        }
        Ok(known)
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
        let answer = self.ask(server).await;
        count("owner", answer.is_ok());
        match answer {
            Ok(document) => {
                let keys = self.keep(&document, From::Owner).await?;
                self.failures.remove(server);
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

    /// The document that `server` publishes now.
    pub(crate) async fn ask(&self, server: &ServerName) -> Result<Document, KeyError> {
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
        let document = Document::read(&body)?;
        if document.server == server {
            Ok(document)
        } else {
            Err(KeyError::Malformed("of another server"))
        }
    }

    /// Adds a document to what is known.
    async fn keep(&self, document: &Document, from: From) -> Result<Arc<PublishedKeys>, KeyError> {
        let name = document.server.to_string();
        let (known, documents) = {
            let name = name.clone();
            self.store
                .read(move |view| {
                    let known = view.get::<ServerKeys>(&name)?;
                    Ok::<_, StoreError>((known, view.get::<KeyDocuments>(&name)?))
                })
                .await?
        };
        let keys = document.fold_into(known.as_ref(), from, self.clock.now());
        let documents = document.add_to(&documents.unwrap_or_default(), from);
        let mut batch = Batch::new();
        batch.put::<ServerKeys>(&name, &keys);
        batch.put::<KeyDocuments>(&name, &documents);
        self.store.commit(batch).await?;
        let keys = Arc::new(keys);
        self.known
            .insert(document.server.clone(), Arc::clone(&keys));
        Ok(keys)
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
            batch.delete::<KeyDocuments>(server);
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

/// The name of this server, which it was started with.
fn own_name(name: &str) -> &ServerName {
    <&ServerName>::try_from(name).expect("a server has a valid name")
}

fn count(from: &'static str, success: bool) {
    let result = if success { "ok" } else { "failed" };
    metrics::counter!("federation_key_fetches_total", "from" => from, "result" => result)
        .increment(1);
}
