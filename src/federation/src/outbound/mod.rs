//! What this server tells others: the events that its users send and that it took for others, and what matters only now.
//!
//! ```text
//! log --dispatch--> queues of destinations --transactions--> other servers
//!                        ^            |
//!   typing, receipts ----+            +-- a failure, a full queue: catch up from the timelines
//!   messages to devices --+
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
mod durable;
mod ephemeral;
mod lists;
mod mail;
mod presence;
mod sources;
#[cfg(test)]
mod tests;
mod transaction;

use std::{collections::HashMap, sync::Arc, time::Duration};

use myelin_e2ee::E2ee;
use myelin_rooms::{Event, Rooms};
use myelin_store::{Store, StoreError, View};
use myelin_types::{Clock, EventNum, Millis, Pos, Random, RoomNum};
use parking_lot::Mutex;
use ruma::{OwnedServerName, ServerName};
use tokio::{
    sync::Notify,
    task::{Id as TaskId, JoinSet},
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{MAX_EDUS, MAX_PDUS};
use book::{Attempt, Book, Census, Events, Id, Job, Lane, Outcome, Sent};
use catch_up::CatchUp;
use dispatch::Dispatcher;
use durable::ListNews;
use mail::Mail;
use transaction::Serial;

pub(crate) use backoff::pause;
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
/// Of how many users who come to rooms with a transaction's events the device lists go with it. The others are asked for.
const MOST_ENTERING: usize = 5;
/// The pause after a failure of our own store.
const PAUSE: Duration = Duration::from_secs(1);

/// What is sent to other servers. Cheap to clone; every clone is the same.
#[derive(Clone)]
pub struct Outbound(Arc<Inner>);

struct Inner {
    server_name: OwnedServerName,
    rooms: Rooms,
    e2ee: E2ee,
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
        e2ee: E2ee,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
        wire: Arc<dyn Wire>,
    ) -> Self {
        describe_metrics();
        Self(Arc::new(Inner {
            serial: Mutex::new(Serial::new(clock.now())),
            server_name,
            store: rooms.store().clone(),
            rooms,
            e2ee,
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
        let (id, name) = (job.id, job.name.clone());
        let prepared = match self.prepare(job).await {
            Ok(prepared) => prepared,
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
        let Prepared {
            sent,
            walk,
            events,
            edus,
            mail,
        } = match prepared {
            Next::Transaction(prepared) => prepared,
            Next::CaughtUp(through) => {
                if let Err(error) = self.forget_left(&name, through).await {
                    tracing::warn!(error = crate::chain(&error), "departures are kept");
                }
                let unread = self.with(|book| book.caught_up(id, through)).flatten();
                if let Some(since) = unread
                    && let Err(error) = self.tell_missed_receipts(&name, since).await
                {
                    tracing::warn!(error = crate::chain(&error), "receipts were not told");
                    // With what it fails at next, or catches up with.
                    self.with(|book| book.unread_since(id, since));
                }
                return;
            }
            Next::Nothing => {
                self.with(|book| book.nothing(id));
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
        if let Some(mail) = mail
            && self.with(|book| book.passes(id, &sent, outcome)) == Some(true)
        {
            // Before the next transaction is made, or they would stand in that one too.
            let mut more = mail.more;
            if let Err(error) = self.delete_mail(&name, &mail).await {
                tracing::warn!(error = crate::chain(&error), "messages will be sent again");
                more = true;
            }
            self.with(|book| book.messages_arrived(id, more));
        }
        let attempt = self.attempt(began);
        self.with(|book| book.finish(id, &sent, walk, outcome, attempt));
    }

    /// Reads what goes with a transaction.
    async fn prepare(&self, job: Job) -> Result<Next, StoreError> {
        let Job {
            name,
            messages,
            lists,
            events,
            edus: ephemerals,
            ..
        } = job;
        let (sent, walk, missed) = match events {
            Events::Queued(sent) => (sent, None, Vec::new()),
            Events::Missed(from, walk) => {
                let (sent, walk, edus) = self.walk(&name, from, walk).await?;
                if sent.items.is_empty() && edus.is_empty() {
                    return Ok(Next::CaughtUp(walk.through()));
                }
                (sent, Some(walk), edus)
            }
        };
        let wanted: Vec<(RoomNum, EventNum)> = sent
            .items
            .iter()
            .map(|item| (item.room, item.event))
            .collect();
        let (rooms, server) = (self.0.rooms.clone(), name.clone());
        let read = move |view: &View| {
            let events = rooms.events_of_rooms(view, &wanted)?;
            // Those that are not there any more were purged with their room.
            let events: Vec<Arc<Event>> = events.into_iter().flatten().collect();
            let mut news = lists.clone();
            let entering = lists::entering(&rooms, view, events.iter().map(|event| &**event))?;
            // These come on top, few as they are: their lists belong to their events.
            for (_, user, room) in entering.into_iter().take(MOST_ENTERING) {
                news.push(ListNews::entered(user, room, view.pos()));
            }
            let edus = lists::edus(&rooms, view, &server, &news)?;
            Ok::<_, StoreError>((events, edus))
        };
        let (events, mut edus) = self.0.store.read(read).await?;
        edus.extend(missed);
        edus.extend(ephemerals);
        let mail = if messages {
            let alone = events.is_empty() && edus.is_empty();
            Some(self.mail(&name, alone).await?)
        } else {
            None
        };
        if let Some(mail) = &mail {
            edus.splice(0..0, mail.edus.iter().cloned());
        }
        if edus.is_empty() && sent.items.is_empty() {
            return Ok(Next::Nothing);
        }
        // What does not last stands last.
        edus.truncate(MAX_EDUS);
        Ok(Next::Transaction(Prepared {
            sent,
            walk,
            events,
            edus,
            mail,
        }))
    }

    /// Goes on with catching up: the next events, or before them the next device lists.
    async fn walk(
        &self,
        server: &ServerName,
        from: Pos,
        walk: Option<Box<CatchUp>>,
    ) -> Result<(Sent, Box<CatchUp>, Vec<Edu>), StoreError> {
        let (rooms, view) = (self.0.rooms.clone(), self.0.store.view());
        let server = server.to_owned();
        // A walk reads much, above all in its beginning.
        let walked = tokio::task::spawn_blocking(move || {
            let mut walk = match walk {
                Some(walk) => walk,
                None => Box::new(CatchUp::open(&rooms, &view, &server, from)?),
            };
            loop {
                let news = walk.next_lists(&rooms, &view)?;
                if news.is_empty() {
                    let sent = walk.next(&rooms, &view, MAX_PDUS)?;
                    return Ok::<_, StoreError>((sent, walk, Vec::new()));
                }
                let edus = lists::edus(&rooms, &view, &server, &news)?;
                if !edus.is_empty() {
                    return Ok((Sent::default(), walk, edus));
                }
            }
        });
        walked.await.map_err(|_| StoreError::Closed)?
    }
}

/// What is to be done next for a destination.
enum Next {
    Transaction(Prepared),
    /// Everything up to this position has been sent.
    CaughtUp(Pos),
    /// There is nothing to tell.
    Nothing,
}

/// A transaction.
struct Prepared {
    sent: Sent,
    walk: Option<Box<CatchUp>>,
    events: Vec<Arc<Event>>,
    edus: Vec<Edu>,
    mail: Option<Mail>,
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
