//! What this server tells others: the events that its users send and that it took for others, and what matters only now.
//!
//! ```text
//! log --dispatch--> queues of destinations --transactions--> other servers
//!                        ^            |
//!   typing, receipts ----+            +-- a failure, a full queue: catch up from the timelines
//! ```
//!
//! One reader goes through the log and puts each event into the queue of every server that was in the room then
//! ([`dispatch`]). A destination gets one transaction at a time. What does not arrive is not kept in memory: the
//! destination catches up from the timelines ([`catch_up`]), after a pause that grows with every failure and ends early
//! only when that server makes a request here. So nothing depends on memory, nothing is written for a destination that is
//! up to date, and one that is gone costs an attempt every few hours.
//!
//! Of a process that ended at any point the next one goes on from the cursor and the rows that were stored last: what was
//! sent after that is sent again, under the same names.

mod backoff;
mod book;
mod catch_up;
mod dispatch;
mod ephemeral;
mod presence;
mod sources;
#[cfg(test)]
mod tests;
mod transaction;

use std::{collections::HashMap, sync::Arc, time::Duration};

use myelin_rooms::{Event, Rooms};
use myelin_store::{Store, StoreError, View};
use myelin_types::{Clock, EventNum, Millis, Random, RoomNum};
use parking_lot::Mutex;
use ruma::{OwnedServerName, ServerName};
use tokio::{
    sync::Notify,
    task::{Id as TaskId, JoinSet},
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::MAX_PDUS;
use book::{Attempt, Book, Census, Events, Id, Job, Lane, Outcome, Sent};
use catch_up::CatchUp;
use dispatch::Dispatcher;
use transaction::Serial;

pub(crate) use transaction::Wire;

pub use ephemeral::{Edu, EphemeralKey};

/// How many transactions are under way at once to servers that answer, and to those that did not lately or are slow. More
/// wait; the second kind never takes the places of the first.
const QUICK_AT_ONCE: usize = 192;
const SLOW_AT_ONCE: usize = 64;
/// How often the cursor is stored while there is something to store, and the numbers for metrics are taken.
const PERSIST_EVERY: Duration = Duration::from_secs(5);
/// For how long a stop waits for transactions under way. What is cut off is sent again after the next start.
const FINISH: Duration = Duration::from_secs(5);
/// How long a sleep for something due lasts at least and at most; the clock may be another than the runtime's.
const SLEEPS: (Duration, Duration) = (Duration::from_millis(20), Duration::from_mins(10));
/// The pause after a failure of our own store.
const PAUSE: Duration = Duration::from_secs(1);

/// What is sent to other servers. Cheap to clone; every clone is the same.
#[derive(Clone)]
pub struct Outbound(Arc<Inner>);

struct Inner {
    server_name: OwnedServerName,
    rooms: Rooms,
    store: Store,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    wire: Arc<dyn Wire>,
    /// None until it runs.
    book: Mutex<Option<Book>>,
    serial: Mutex<Serial>,
    /// Something may be ready to be sent.
    wake: Notify,
}

impl std::fmt::Debug for Outbound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outbound").finish_non_exhaustive()
    }
}

impl Outbound {
    pub(crate) fn new(
        server_name: OwnedServerName,
        rooms: Rooms,
        store: Store,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
        wire: Arc<dyn Wire>,
    ) -> Self {
        describe_metrics();
        Self(Arc::new(Inner {
            serial: Mutex::new(Serial::new(clock.now())),
            server_name,
            rooms,
            store,
            clock,
            random,
            wire,
            book: Mutex::new(None),
            wake: Notify::new(),
        }))
    }

    /// Sends something that matters only now to a server, together with whatever else it is sent. A newer one with the same
    /// key takes its place while it waits. It is dropped when the server does not answer, and when too much waits for it.
    pub fn ephemeral(&self, destination: &ServerName, key: EphemeralKey, edu: Edu) {
        if destination == self.0.server_name {
            return;
        }
        self.with(|book| {
            let id = book.id(destination);
            book.ephemeral(id, key, edu);
        });
        self.0.wake.notify_one();
    }

    /// Notes that a server has made a valid request: if it was thought to be gone, it is tried again at once.
    pub(crate) fn heard(&self, server: &ServerName) {
        if self.with(|book| book.heard(server)) == Some(true) {
            self.0.wake.notify_one();
        }
    }

    /// Sends, until `soft` is cancelled. Then it waits for transactions under way, a few seconds at most, and stores how far
    /// everybody is.
    pub async fn run(&self, soft: CancellationToken) {
        let mut reader = loop {
            match self.open_book().await {
                Ok(reader) => break reader,
                Err(error) => {
                    tracing::error!(error = crate::chain(&error), "nothing is sent to others");
                    if soft.run_until_cancelled(sleep(PAUSE)).await.is_none() {
                        return;
                    }
                }
            }
        };
        tokio::join!(
            self.read_log_until(&mut reader, soft.clone()),
            self.deliver(soft.clone()),
            self.tell_typing(soft.clone()),
            self.tell_receipts(soft.clone()),
            self.tell_presence(soft),
        );
        if let Err(error) = self.persist(&mut reader, true).await {
            tracing::warn!(
                error = crate::chain(&error),
                "how far other servers are was not stored, some of it will be sent again"
            );
        }
        *self.0.book.lock() = None;
    }

    /// What the book answers; none if nothing is sent yet, or any more.
    fn with<T>(&self, f: impl FnOnce(&mut Book) -> T) -> Option<T> {
        self.0.book.lock().as_mut().map(f)
    }

    async fn read_log_until(&self, reader: &mut Dispatcher, soft: CancellationToken) {
        let mut watch = self.0.store.watch();
        let mut ticks = interval(PERSIST_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // Marked before it is read, so that what comes meanwhile wakes again.
            watch.borrow_and_update();
            match self.dispatch(reader).await {
                Ok(true) if !soft.is_cancelled() => continue,
                Ok(_) => {}
                Err(error) => {
                    tracing::error!(error = crate::chain(&error), "the log cannot be read");
                    sleep(PAUSE).await;
                }
            }
            tokio::select! {
                () = soft.cancelled() => return,
                changed = watch.changed() => if changed.is_err() { return },
                _ = ticks.tick() => {
                    if let Err(error) = self.persist(reader, false).await {
                        tracing::warn!(error = crate::chain(&error), "cursors were not stored");
                    }
                    if let Some(census) = self.with(|book| book.census()) {
                        report(&census, self.0.store.watermark().0);
                    }
                }
            }
        }
    }

    /// Keeps transactions under way.
    async fn deliver(&self, soft: CancellationToken) {
        let mut under_way = UnderWay::default();
        loop {
            let now = self.0.clock.now();
            let due = self.with(|book| {
                book.wake(now);
                for lane in [Lane::Quick, Lane::Slow] {
                    while under_way.has_room(lane)
                        && let Some(job) = book.take(lane)
                    {
                        let id = job.id;
                        let outbound = self.clone();
                        under_way.start(id, lane, async move { outbound.serve(job).await });
                    }
                }
                book.next_due()
            });
            let until_due = async {
                match due.flatten() {
                    Some(due) => sleep(due.since(now).clamp(SLEEPS.0, SLEEPS.1)).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = soft.cancelled() => break,
                () = self.0.wake.notified() => {}
                () = until_due => {}
                died = under_way.next() => if let Some(id) = died { self.died(id) },
            }
        }
        let all = async {
            while !under_way.is_empty() {
                if let Some(id) = under_way.next().await {
                    self.died(id);
                }
            }
        };
        if timeout(FINISH, all).await.is_err() {
            tracing::debug!("transactions were cut off, they will be sent again");
        }
    }

    /// A task that sent something panicked.
    fn died(&self, id: Id) {
        let attempt = self.attempt(self.0.clock.now());
        self.with(|book| book.finish(id, &Sent::default(), None, Outcome::Failed, attempt));
    }

    fn attempt(&self, began: Millis) -> Attempt<'_> {
        let now = self.0.clock.now();
        Attempt {
            now,
            took: now.since(began),
            random: &*self.0.random,
        }
    }

    /// Sends one transaction.
    async fn serve(&self, job: Job) {
        let Job {
            id,
            name,
            events,
            edus,
        } = job;
        let prepared = self.prepare(&name, events).await;
        let (sent, walk, events) = match prepared {
            Ok(Prepared::Events(sent, walk, events)) => (sent, walk, events),
            Ok(Prepared::Nothing(through)) => {
                if let Err(error) = self.forget_left(&name, through).await {
                    tracing::warn!(error = crate::chain(&error), "departures are kept");
                }
                self.with(|book| book.caught_up(id, through));
                return;
            }
            Err(error) => {
                tracing::error!(
                    error = crate::chain(&error),
                    "what is to be sent cannot be read"
                );
                sleep(PAUSE).await;
                self.with(|book| book.put_back(id));
                return;
            }
        };
        let (first, last) = (sent.items.first(), sent.items.last());
        let transaction = transaction::name(
            first.map(|item| item.at),
            last.map(|item| item.at),
            edus.len(),
            &mut self.0.serial.lock(),
        );
        let began = self.0.clock.now();
        let content = transaction::content(&self.0.server_name, began, &events, &edus);
        let answer = self.0.wire.send(&name, &transaction, &content).await;
        let (outcome, label) = transaction::outcome(&name, answer);
        metrics::counter!("federation_transactions_total", "result" => label).increment(1);
        metrics::counter!("federation_pdus_sent_total", "result" => label)
            .increment(events.len() as u64);
        metrics::counter!("federation_edus_sent_total", "result" => label)
            .increment(edus.len() as u64);
        let attempt = self.attempt(began);
        self.with(|book| book.finish(id, &sent, walk, outcome, attempt));
    }

    /// Reads the events of a transaction.
    async fn prepare(&self, server: &ServerName, events: Events) -> Result<Prepared, StoreError> {
        let (sent, walk) = match events {
            Events::Queued(sent) => (sent, None),
            Events::Missed(from, walk) => {
                let (rooms, view) = (self.0.rooms.clone(), self.0.store.view());
                let server = server.to_owned();
                // A walk reads much, above all in its beginning.
                let walked = tokio::task::spawn_blocking(move || {
                    let mut walk = match walk {
                        Some(walk) => walk,
                        None => Box::new(CatchUp::open(&rooms, &view, &server, from)?),
                    };
                    let sent = walk.next(&rooms, &view, MAX_PDUS)?;
                    Ok::<_, StoreError>((sent, walk))
                });
                let (sent, walk) = walked.await.map_err(|_| StoreError::Closed)??;
                if sent.items.is_empty() {
                    return Ok(Prepared::Nothing(walk.through()));
                }
                (sent, Some(walk))
            }
        };
        let wanted: Vec<(RoomNum, EventNum)> = sent
            .items
            .iter()
            .map(|item| (item.room, item.event))
            .collect();
        let rooms = self.0.rooms.clone();
        let read = move |view: &View| rooms.events_of_rooms(view, &wanted);
        // Those that are not there any more were purged with their room.
        let events = self.0.store.read(read).await?.into_iter().flatten();
        Ok(Prepared::Events(sent, walk, events.collect()))
    }
}

/// What is to be sent next.
enum Prepared {
    Events(Sent, Option<Box<CatchUp>>, Vec<Arc<Event>>),
    /// Everything up to this position has been sent.
    Nothing(myelin_types::Pos),
}

/// The transactions under way.
#[derive(Default)]
struct UnderWay {
    tasks: JoinSet<()>,
    of: HashMap<TaskId, (Id, Lane)>,
    quick: usize,
    slow: usize,
}

impl UnderWay {
    fn has_room(&self, lane: Lane) -> bool {
        match lane {
            Lane::Quick => self.quick < QUICK_AT_ONCE,
            Lane::Slow => self.slow < SLOW_AT_ONCE,
        }
    }

    fn count(&mut self, lane: Lane) -> &mut usize {
        match lane {
            Lane::Quick => &mut self.quick,
            Lane::Slow => &mut self.slow,
        }
    }

    fn start(&mut self, id: Id, lane: Lane, work: impl Future<Output = ()> + Send + 'static) {
        let task = self.tasks.spawn(work);
        self.of.insert(task.id(), (id, lane));
        *self.count(lane) += 1;
    }

    fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// Waits until one has ended, for ever if there is none. Answers the destination of one that died.
    async fn next(&mut self) -> Option<Id> {
        let Some(ended) = self.tasks.join_next_with_id().await else {
            return std::future::pending().await;
        };
        let (task, died) = match ended {
            Ok((task, ())) => (task, false),
            Err(error) => (error.id(), true),
        };
        let (id, lane) = self.of.remove(&task)?;
        *self.count(lane) -= 1;
        died.then_some(id)
    }
}

fn describe_metrics() {
    use metrics::{Unit, describe_counter, describe_gauge};
    describe_gauge!(
        "federation_destinations",
        "Other servers by what is being done for them"
    );
    describe_gauge!(
        "federation_lag",
        "Positions between the end of the log and what the slowest destination has"
    );
    describe_gauge!(
        "federation_queued_events",
        "Events that wait in memory, each counted for every destination"
    );
    describe_gauge!(
        "federation_queued_edus",
        "EDUs that wait in memory, each counted for every destination"
    );
    describe_counter!(
        "federation_transactions_total",
        Unit::Count,
        "Transactions sent, by what became of them"
    );
    describe_counter!(
        "federation_pdus_sent_total",
        Unit::Count,
        "Events in these transactions"
    );
    describe_counter!(
        "federation_edus_sent_total",
        Unit::Count,
        "EDUs in these transactions"
    );
}

fn report(census: &Census, watermark: u64) {
    for (state, count) in [
        ("idle", census.idle),
        ("sending", census.sending),
        ("catching_up", census.catching_up),
        ("waiting", census.waiting),
    ] {
        metrics::gauge!("federation_destinations", "state" => state).set(count as f64);
    }
    // The log is read in no time: when nobody waits for anything, nobody lags.
    let lag = match census.behind {
        Some(behind) => watermark.saturating_sub(behind.0),
        None => 0,
    };
    metrics::gauge!("federation_lag").set(lag as f64);
    metrics::gauge!("federation_queued_events").set(census.queued_events as f64);
    metrics::gauge!("federation_queued_edus").set(census.queued_edus as f64);
}
