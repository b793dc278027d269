//! Transactions that other servers send. Spec: server-server API, "Transactions".
//!
//! A transaction is answered when its events are durable in the inbox or refused, and its messages to devices in theirs; what
//! becomes of events in their rooms shows later. Its sender repeats it until it has an answer, and sends no other one meanwhile; so transactions of one
//! server are taken one after the other, and what was answered to the last one is remembered. After a restart a repeated
//! transaction is taken again, which changes nothing: events that are there are there, and typing and receipts say how
//! things are; its answer is the same unless a room has changed.

mod edus;
mod limits;
mod transaction;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use myelin_config::Federation as Settings;
use myelin_rooms::{
    Failure,
    remote::{DeliverError, InboxWork, Judged},
};
use quick_cache::sync::Cache;
use ruma::{OwnedEventId, OwnedServerName, ServerName};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::{Federation, flights::Flights};

pub use limits::{Kind, Permit, TooMuch};
pub use transaction::{MAX_EDUS, MAX_PDUS, Transaction};

/// Of how many servers the last transaction is remembered; the longest silent are forgotten.
const REMEMBERED: usize = 1_000;
/// How long the end waits for events that are being judged. What waits for other servers does not hold it up at all.
const DRAIN: Duration = Duration::from_secs(8);

/// What became of each event; events that cannot be read so far as to have an id are not in it.
type Results = BTreeMap<OwnedEventId, Result<(), String>>;

/// Why a transaction was not taken.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TransactionError {
    /// It holds more than [`MAX_PDUS`] or [`MAX_EDUS`].
    #[error("the transaction holds more than {MAX_PDUS} PDUs or {MAX_EDUS} EDUs")]
    TooLarge,
    /// Its id is too long.
    #[error("the id of the transaction is too long")]
    LongId,
    /// It does not have the form of a transaction.
    #[error("the body is no transaction")]
    Malformed,
    /// Too many events wait to be judged; it should be sent again later.
    #[error("too many events wait to be judged")]
    Full,
    /// The server could not take its events; it should be sent again.
    #[error("take a transaction")]
    Failure(#[source] Failure),
    /// The server could not take its messages to devices, or changes of device lists; it should be sent again.
    #[error("take messages to devices and changes of device lists")]
    Edus(#[source] Arc<myelin_e2ee::Failure>),
    /// The task that did the work ended early: it panicked or the server is shutting down.
    #[error("the transaction was cut short")]
    CutShort,
}

/// What is remembered of transactions.
pub(crate) struct Inbound {
    last: Cache<OwnedServerName, (String, Arc<Results>)>,
    flights: Flights,
    limits: limits::Limits,
    stop: CancellationToken,
}

impl Inbound {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            last: Cache::new(REMEMBERED),
            flights: Flights::default(),
            limits: limits::Limits::new(settings),
            stop: CancellationToken::new(),
        }
    }

    /// Cancelled when what waits for other servers is to be given up.
    pub(crate) fn stop(&self) -> &CancellationToken {
        &self.stop
    }
}

impl Federation {
    /// Counts a request of another server, and refuses it if that is too much. The permit is to be kept until it is
    /// answered.
    pub fn admit(&self, origin: &ServerName, kind: Kind) -> Result<Permit, TooMuch> {
        self.0.inbound.limits.admit(origin, kind)
    }

    /// Forgets how much servers asked that have not asked anything lately.
    pub fn forget_quiet(&self) {
        self.0.inbound.limits.forget_quiet();
    }

    /// Takes in a transaction. Completes even if nobody waits.
    pub async fn receive(
        &self,
        transaction: Transaction,
    ) -> Result<Arc<Results>, TransactionError> {
        let federation = self.clone();
        let work = async move { federation.take(transaction).await };
        self.0
            .tasks
            .spawn(work.in_current_span())
            .await
            .map_err(|_| TransactionError::CutShort)?
    }

    async fn take(&self, transaction: Transaction) -> Result<Arc<Results>, TransactionError> {
        let (origin, id) = (transaction.origin().clone(), transaction.id().to_owned());
        let (pdus, edus) = transaction.into_content();
        let inbound = &self.0.inbound;
        // Who waits here has a permit, of which there are few for each server.
        let _flight = inbound.flights.board(&origin).await;
        if let Some((last, results)) = inbound.last.get(&origin)
            && last == id
        {
            return Ok(results);
        }
        // Before the events: nothing else waits for them.
        let taken = self.take_edus(&origin, &edus).await;
        taken.map_err(|error| TransactionError::Edus(Arc::new(error)))?;
        let mut results = Results::new();
        if !pdus.is_empty() {
            let delivered = self.0.rooms.deliver(&origin, pdus).await;
            let delivered = delivered.map_err(|error| match error {
                DeliverError::Full => TransactionError::Full,
                DeliverError::Failure(failure) => TransactionError::Failure(failure),
            })?;
            for event in delivered {
                let result = event.result.map_err(|error| {
                    let event_id = event.event_id.as_deref().map(tracing::field::display);
                    tracing::debug!(%origin, event_id, %error, "event of another server was refused");
                    metrics::counter!("federation_pdus_total", "outcome" => "refused").increment(1);
                    error.to_string()
                });
                if let Some(event_id) = event.event_id {
                    results.insert(event_id, result);
                }
            }
            self.work_inbox().await.map_err(TransactionError::Failure)?;
        }
        let results = Arc::new(results);
        inbound.last.insert(origin, (id, Arc::clone(&results)));
        Ok(results)
    }

    /// Begins to work on every room in whose inbox something is due and nobody works. To be called now and then: what was
    /// put off is due at some time.
    pub async fn work_inbox(&self) -> Result<(), Failure> {
        while let Some(work) = self.claim().await? {
            let federation = self.clone();
            self.0.tasks.spawn(async move {
                let mut next = Some(work);
                while let Some(work) = next {
                    federation.work(work).await;
                    // What came in the moment before the room was let go has found it busy.
                    next = federation.claim().await.unwrap_or_else(|error| {
                        tracing::error!(error = crate::chain(&error), "the inbox cannot be read");
                        None
                    });
                }
            });
        }
        Ok(())
    }

    /// A room with work to do; none once the end has begun.
    async fn claim(&self) -> Result<Option<InboxWork>, Failure> {
        if self.0.inbound.stop.is_cancelled() {
            return Ok(None);
        }
        self.0.rooms.claim_inbox().await
    }

    /// Works on a room until nothing is due in it.
    async fn work(&self, mut work: InboxWork) {
        loop {
            match work.step(self, &self.0.inbound.stop).await {
                Ok(judged) if judged.is_empty() => return,
                Ok(judged) => judged.iter().for_each(note),
                Err(error) => {
                    let error = crate::chain(&error);
                    tracing::error!(error, "events of the inbox could not be dealt with");
                    return;
                }
            }
        }
    }

    /// Lets the work on the inbox end: what waits for other servers is given up, what is being written is finished. No new
    /// transactions may come. Whatever is left in the inbox is judged after the next start.
    pub async fn drain(&self) {
        self.0.inbound.stop.cancel();
        self.0.completion.stop();
        self.0.tasks.close();
        if tokio::time::timeout(DRAIN, self.0.tasks.wait())
            .await
            .is_err()
        {
            tracing::warn!(
                "events were being judged for too long, they are left for the next start"
            );
        }
    }
}

/// Counts and logs what became of an event.
fn note(judged: &Judged) {
    use myelin_rooms::remote::Outcome;

    let Judged {
        event_id,
        origin,
        outcome,
    } = judged;
    metrics::counter!("federation_pdus_total", "outcome" => outcome.name()).increment(1);
    match outcome {
        Outcome::Accepted | Outcome::SoftFailed | Outcome::Rejected => {}
        Outcome::Postponed(reason) => {
            tracing::debug!(event_id, origin, reason, "event will be tried again");
        }
        Outcome::Dropped(reason) => {
            tracing::info!(
                event_id,
                origin,
                reason,
                "event of another server was dropped"
            );
        }
    }
}
