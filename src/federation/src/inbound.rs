//! Transactions that other servers send. Spec: server-server API, "Transactions".
//!
//! A transaction is answered when all of its events are durable or refused. Its sender repeats it until it has an answer,
//! and sends no other one meanwhile; so transactions of one server are taken one after the other, and what was answered to
//! the last one is remembered. After a restart a repeated transaction is taken again, which changes nothing: events that
//! are there are there, and typing and receipts say how things are.

use std::{collections::BTreeMap, sync::Arc};

use quick_cache::sync::Cache;
use ruma::{OwnedEventId, OwnedRoomId, OwnedServerName, OwnedUserId, RoomId, ServerName};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{Federation, flights::Flights};

/// The most PDUs of a transaction.
pub const MAX_PDUS: usize = 50;
/// The most EDUs of a transaction.
pub const MAX_EDUS: usize = 100;
/// Of how many servers the last transaction is remembered; the longest silent are forgotten.
const REMEMBERED: usize = 1_000;
/// For how long somebody types whose server does not say that they stopped: servers repeat it while it lasts.
const TYPING: std::time::Duration = std::time::Duration::from_secs(30);

/// A transaction of another server.
#[derive(Clone, Debug)]
pub struct Transaction {
    /// Who sends it, proved.
    pub origin: OwnedServerName,
    /// Its id, which the origin chose.
    pub id: String,
    /// Events, at most [`MAX_PDUS`].
    pub pdus: Vec<Box<RawValue>>,
    /// What does not last, at most [`MAX_EDUS`].
    pub edus: Vec<Box<RawValue>>,
}

/// What became of each event; events that cannot be read so far as to have an id are not in it.
type Results = BTreeMap<OwnedEventId, Result<(), String>>;

/// Why a transaction was not taken.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TransactionError {
    /// It holds more than [`MAX_PDUS`] or [`MAX_EDUS`].
    #[error("the transaction holds more than {MAX_PDUS} PDUs or {MAX_EDUS} EDUs")]
    TooLarge,
    /// The server could not take some of its events; it should be sent again.
    #[error("take a transaction")]
    Failure(#[source] myelin_rooms::Failure),
    /// The task that did the work ended early: it panicked or the server is shutting down.
    #[error("the transaction was cut short")]
    CutShort,
}

/// What is remembered of transactions.
pub(crate) struct Inbound {
    last: Cache<OwnedServerName, (String, Arc<Results>)>,
    flights: Flights,
}

impl Default for Inbound {
    fn default() -> Self {
        Self {
            last: Cache::new(REMEMBERED),
            flights: Flights::default(),
        }
    }
}

/// The kinds of EDUs that something is done with.
#[derive(Deserialize)]
#[serde(tag = "edu_type", content = "content")]
enum Edu {
    #[serde(rename = "m.typing")]
    Typing {
        room_id: OwnedRoomId,
        user_id: OwnedUserId,
        typing: bool,
    },
}

impl Federation {
    /// Takes in a transaction. Completes even if nobody waits.
    pub async fn receive(
        &self,
        transaction: Transaction,
    ) -> Result<Arc<Results>, TransactionError> {
        if transaction.pdus.len() > MAX_PDUS || transaction.edus.len() > MAX_EDUS {
            return Err(TransactionError::TooLarge);
        }
        let federation = self.clone();
        self.0
            .tasks
            .spawn(async move { federation.take(transaction).await })
            .await
            .map_err(|_| TransactionError::CutShort)?
    }

    async fn take(&self, transaction: Transaction) -> Result<Arc<Results>, TransactionError> {
        let Transaction {
            origin,
            id,
            pdus,
            edus,
        } = transaction;
        let inbound = &self.0.inbound;
        let _flight = inbound.flights.board(&origin).await;
        if let Some((last, results)) = inbound.last.get(&origin)
            && last == id
        {
            return Ok(results);
        }
        // Not after the events: what does not last should not wait for what has to be fetched first.
        for edu in edus {
            self.take_edu(&origin, &edu).await;
        }
        let received = self
            .0
            .rooms
            .receive(Arc::new(self.clone()), origin.clone(), pdus)
            .await;
        let mut results = Results::new();
        for event in received {
            let result = match event.result {
                Ok(_) => Ok(()),
                Err(myelin_rooms::remote::ReceiveError::Failure(failure)) => {
                    return Err(TransactionError::Failure(failure));
                }
                Err(error) => {
                    tracing::info!(
                        %origin,
                        event_id = event.event_id.as_deref().map(tracing::field::display),
                        error = crate::chain(&error),
                        "event of another server was not taken"
                    );
                    Err(error.to_string())
                }
            };
            if let Some(event_id) = event.event_id {
                results.insert(event_id, result);
            }
        }
        let results = Arc::new(results);
        inbound.last.insert(origin, (id, Arc::clone(&results)));
        Ok(results)
    }

    /// What an EDU says is done where it can be; nobody is told where it cannot.
    async fn take_edu(&self, origin: &OwnedServerName, edu: &RawValue) {
        let Ok(edu) = serde_json::from_str::<Edu>(edu.get()) else {
            return;
        };
        match edu {
            Edu::Typing {
                room_id,
                user_id,
                typing,
            } => {
                if user_id.server_name() != origin || self.is_denied(&room_id, origin).await {
                    return;
                }
                let timeout = typing.then_some(TYPING);
                let set = self.0.rooms.set_typing(&room_id, &user_id, timeout).await;
                if let Err(error) = set {
                    tracing::debug!(%origin, error = crate::chain(&error), "typing was not taken");
                }
            }
        }
    }

    /// Whether a room's ACL denies `origin`, or that cannot be told.
    async fn is_denied(&self, room: &RoomId, origin: &ServerName) -> bool {
        let denied = self.0.rooms.acl_denies(room, origin).await;
        denied.unwrap_or_else(|error| {
            tracing::error!(%room, error = crate::chain(&error), "an ACL cannot be read");
            true
        })
    }
}
