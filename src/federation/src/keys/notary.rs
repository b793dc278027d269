//! Notaries: other servers that vouch for keys, and this one, when it is asked. Spec: server-server API, "Querying Keys
//! Through Another Server".

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use http::Method;
use myelin_data::federation::{KeyDocuments, PublishedKeys};
use myelin_rooms::remote::WantedKey;
use myelin_rules::{
    Object,
    canonical::{self, Numbers},
};
use myelin_types::Millis;
use ruma::{OwnedServerName, ServerName};
use serde_json::{Value, json};

use super::{
    KeyError, KeyRing,
    document::{Document, From, has},
};
use crate::client::Call;

/// The greatest answer of a notary in bytes.
const LIMIT: usize = 8 << 20;
const TIMEOUT: Duration = Duration::from_secs(15);
/// For how many servers' keys a notary is asked at once.
const BATCH: usize = 100;
/// A notary is not asked again for the keys of a server before this.
const ASK_AGAIN: u64 = 5 * 60_000;
/// About how many servers one question to us may be; further ones are passed over.
const MOST_SERVERS: usize = 500;
/// How many servers are asked for their keys because of one question to us. Of the others it hears what is known.
const MOST_FETCHES: usize = 16;
/// How long that may take.
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);

/// A key that somebody asks us for, or all of a server's, and until when it should count, at least.
type Criterion = (Option<String>, Option<Millis>);

/// What somebody asks of us as a notary: for each server its keys; no criterion asks for all of them as they are now.
pub type Queries = BTreeMap<OwnedServerName, Vec<Criterion>>;

impl KeyRing {
    /// Asks notaries, one after the other, for what is wanted, and keeps what they vouch for. What came of it is in what is
    /// known.
    pub(super) async fn ask_notaries(&self, wanted: &BTreeMap<&ServerName, Vec<&WantedKey>>) {
        let now = self.clock.now();
        let mut open: Vec<&ServerName> = wanted
            .keys()
            .copied()
            .filter(|server| {
                let asked = self.vouched.get(*server);
                asked.is_none_or(|asked| asked.0 + ASK_AGAIN <= now.0)
            })
            .collect();
        for server in &open {
            self.vouched.insert((*server).to_owned(), now);
        }
        for notary in &self.notaries {
            if open.is_empty() {
                return;
            }
            if let Err(error) = self.ask_notary(notary, &open, wanted).await {
                tracing::debug!(%notary, error = crate::chain(&error), "notary was not asked");
            }
            open.retain(|server| {
                let known = self.known.get(*server);
                let all = |keys: &PublishedKeys| {
                    let mut wanted = wanted[server].iter();
                    wanted.all(|key| has(keys, &key.key_id, key.valid_at))
                };
                !known.is_some_and(|keys| all(&keys))
            });
        }
    }

    async fn ask_notary(
        &self,
        notary: &ServerName,
        servers: &[&ServerName],
        wanted: &BTreeMap<&ServerName, Vec<&WantedKey>>,
    ) -> Result<(), KeyError> {
        let notary_keys = self.fetch_if_old(notary).await?;
        for servers in servers.chunks(BATCH) {
            let criteria = servers.iter().map(|server| {
                let keys = wanted[server].iter().map(|key| {
                    let until = json!({ "minimum_valid_until_ts": key.valid_at });
                    (key.key_id.clone(), until)
                });
                (server.to_string(), Value::Object(keys.collect()))
            });
            let content = json!({ "server_keys": criteria.collect::<Object>() });
            let call = Call {
                method: &Method::POST,
                path: &["_matrix", "key", "v2", "query"],
                query: &[],
                content: Some(&content),
                signed: false,
                limit: LIMIT,
                timeout: TIMEOUT,
            };
            let answer = self.client.send(notary, call).await;
            super::count("notary", answer.is_ok());
            for document in read_answer(&answer?)? {
                let asked = servers.contains(&&*document.server);
                if asked && document.is_signed_by(notary.as_str(), &notary_keys) {
                    self.keep(&document, From::Notary).await?;
                } else {
                    tracing::debug!(%notary, server = %document.server, "a document is not vouched for");
                }
            }
        }
        Ok(())
    }

    /// The documents of these servers' keys, each with our signature beside its owner's.
    ///
    /// Strangers ask this: servers are asked on their word only while few others are, few a question, and for a short time.
    pub(crate) async fn notarize(&self, queries: Queries) -> Result<Vec<Object>, KeyError> {
        let now = self.clock.now();
        let here = self.signer.server_name();
        let mut answer = Vec::new();
        let mut others: Vec<(OwnedServerName, Vec<Criterion>)> = Vec::new();
        for (server, keys) in queries.into_iter().take(MOST_SERVERS) {
            if server == here {
                answer.push((*self.own()).clone());
            } else {
                others.push((server, keys));
            }
        }
        let names: Vec<OwnedServerName> = others.iter().map(|(server, _)| server.clone()).collect();
        let known = self.known_many(&names).await?;
        let stale = others.iter().zip(&known).filter(|((_, wanted), known)| {
            known
                .as_deref()
                .is_none_or(|keys| is_stale(keys, wanted, now))
        });
        let stale = stale
            .map(|((server, _), _)| &**server)
            .take(MOST_FETCHES)
            .collect();
        self.refresh_for_strangers(stale).await;

        let rows = {
            let names: Vec<String> = names.iter().map(ToString::to_string).collect();
            self.store
                .read(move |view| view.multi_get::<KeyDocuments>(&names))
                .await?
        };
        for ((_, wanted), row) in others.iter().zip(rows) {
            let mut is_first = true;
            for text in row.into_iter().flat_map(|row| row.texts) {
                let Ok(document) = Document::read(text.as_bytes()) else {
                    continue;
                };
                let asked_for = document
                    .ids()
                    .any(|id| wanted.iter().any(|(wanted, _)| wanted.as_ref() == Some(id)));
                if is_first || asked_for {
                    let mut object = document.into_object();
                    if self.signer.sign_json(&mut object).is_ok() {
                        answer.push(object);
                    }
                }
                is_first = false;
            }
        }
        Ok(answer)
    }

    async fn refresh_for_strangers(&self, servers: Vec<&ServerName>) {
        let fetches = servers.into_iter().filter_map(|server| {
            let permit = self.strangers.try_acquire().ok()?;
            Some(async move {
                let _permit = permit;
                let fetched = self.fetch(server, |_| false).await;
                if let Err(error) = fetched {
                    tracing::debug!(%server, error = crate::chain(&error), "keys were not fetched");
                }
            })
        });
        let fetches: Vec<_> = fetches.collect();
        let all = futures_util::future::join_all(fetches);
        tokio::time::timeout(FETCH_TIMEOUT, all).await.ok();
    }
}

/// Whether the server should be asked before others are told of its keys: half of their time is over (spec: `GET
/// /_matrix/key/v2/server`), or they are not what is wanted.
fn is_stale(keys: &PublishedKeys, wanted: &[Criterion], now: Millis) -> bool {
    let half = keys.fetched.0 + keys.valid_until.0.saturating_sub(keys.fetched.0) / 2;
    let lacks = |(id, until): &Criterion| {
        let until = until.unwrap_or(now);
        match id {
            Some(id) => !has(keys, id, until),
            None => keys.valid_until < until,
        }
    };
    now.0 > half || wanted.iter().any(lacks)
}

/// The documents in the answer of a notary; those that are none are left out.
pub(crate) fn read_answer(body: &[u8]) -> Result<Vec<Document>, KeyError> {
    let answer = canonical::parse_object(body, Numbers::Whole)
        .map_err(|_| KeyError::Malformed("not JSON"))?;
    let Some(Value::Array(documents)) = answer.get("server_keys") else {
        return Err(KeyError::Malformed("without `server_keys`"));
    };
    let objects = documents.iter().filter_map(Value::as_object);
    Ok(objects
        .filter_map(|object| Document::of(object.clone()).ok())
        .collect())
}

/// Keys that are known already, or those of the notary itself.
impl KeyRing {
    async fn fetch_if_old(&self, server: &ServerName) -> Result<Arc<PublishedKeys>, KeyError> {
        let now = self.clock.now();
        let fresh = |keys: &PublishedKeys| now <= keys.valid_until && !keys.current.is_empty();
        match self.known(server).await? {
            Some(known) if fresh(&known) => Ok(known),
            _ => self.fetch(server, fresh).await,
        }
    }
}
