//! The committer: one thread that makes every batch durable and gives it its place in the log.

use std::{
    fmt,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll, ready},
    time::Instant,
};

use arc_swap::ArcSwap;
use myelin_types::Pos;
use parking_lot::RwLock;
use tokio::sync::{oneshot, watch};

use crate::{
    batch::{Batch, Topic},
    counters::{Tallies, add},
    engine::{Engine, EngineError, META, Write},
    error::CommitError,
    identity,
    overlay::Overlay,
    queue::{Job, Queue},
    view::Published,
};

/// Told of every commit, on the committer's thread: what it does delays everyone, so it only wakes others.
pub trait Observer: Send + Sync {
    /// The batch at `pos` is durable and in every view made from now on; its caller has not been answered yet. Called
    /// in the order of positions. A panic in here is logged and otherwise ignored.
    fn committed(&self, pos: Pos, topics: &[Topic]) {
        let (_, _) = (pos, topics);
    }

    /// The same once more, after the callers of the whole group were answered: for what sets others to work, so that
    /// whoever wrote does not wait behind all those who are told of it.
    fn answered(&self, pos: Pos, topics: &[Topic]) {
        let (_, _) = (pos, topics);
    }
}

/// The outcome of a commit: the batch's position once it is durable. Dropping this does not take the batch back.
#[must_use = "a batch may be refused"]
pub struct Commit {
    outcome: Outcome,
}

enum Outcome {
    Refused(Option<CommitError>),
    Queued(oneshot::Receiver<Result<Pos, CommitError>>),
}

impl Commit {
    pub(crate) fn refused(error: CommitError) -> Self {
        Self {
            outcome: Outcome::Refused(Some(error)),
        }
    }

    pub(crate) fn queued(answer: oneshot::Receiver<Result<Pos, CommitError>>) -> Self {
        Self {
            outcome: Outcome::Queued(answer),
        }
    }

    /// Blocks the thread until the outcome is known.
    ///
    /// # Panics
    /// On a thread that runs async tasks.
    pub fn wait(self) -> Result<Pos, CommitError> {
        match self.outcome {
            Outcome::Refused(error) => Err(error.unwrap_or(CommitError::Closed)),
            Outcome::Queued(answer) => answer.blocking_recv().unwrap_or(Err(CommitError::Closed)),
        }
    }
}

impl Future for Commit {
    type Output = Result<Pos, CommitError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(match &mut self.outcome {
            Outcome::Refused(error) => Err(error.take().unwrap_or(CommitError::Closed)),
            Outcome::Queued(answer) => {
                ready!(Pin::new(answer).poll(context)).unwrap_or(Err(CommitError::Closed))
            }
        })
    }
}

impl fmt::Debug for Commit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Commit").finish_non_exhaustive()
    }
}

/// What the committer's thread and the handles of the store share.
pub(crate) struct Shared {
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) queue: Queue,
    pub(crate) published: ArcSwap<Published>,
    pub(crate) watch: watch::Sender<Pos>,
    pub(crate) observers: RwLock<Vec<Arc<dyn Observer>>>,
    pub(crate) tallies: Arc<Tallies>,
    /// Set by the first write that failed. From then on nothing is written: what the failed write left in the log file
    /// is unknown, and a later batch must not become durable in front of it.
    pub(crate) fault: OnceLock<EngineError>,
}

/// Says what the metrics of this crate are, for those who read them.
pub(crate) fn describe_metrics() {
    use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
    describe_histogram!(
        "store_commit_seconds",
        Unit::Seconds,
        "From the queueing of a batch to its answer"
    );
    describe_histogram!(
        "store_write_seconds",
        Unit::Seconds,
        "One synced write of the engine"
    );
    describe_histogram!("store_group_batches", "Batches that one write carries");
    describe_counter!(
        "store_written_bytes_total",
        Unit::Bytes,
        "Keys and values written"
    );
    describe_gauge!(
        "store_commit_queue_batches",
        "Batches left waiting when a group was taken"
    );
    describe_gauge!(
        "store_memory_bytes",
        Unit::Bytes,
        "Memory of the engine, by pool"
    );
    describe_counter!(
        "store_read_reruns_total",
        "Reads that needed the disk and ran again on the blocking pool"
    );
}

/// The thread's whole life: until the queue is closed and drained.
pub(crate) fn run(shared: &Shared) {
    let _close = CloseOnExit(shared);
    while let Some(group) = shared.queue.next_group() {
        metrics::gauge!("store_commit_queue_batches").set(shared.queue.len() as f64);
        shared.commit_group(group);
        shared.report_memory();
    }
}

/// A committer that is gone must not leave a queue that waits for it; callers then find it closed.
struct CloseOnExit<'a>(&'a Shared);

impl Drop for CloseOnExit<'_> {
    fn drop(&mut self) {
        self.0.queue.close(CommitError::Closed);
        // After a panic jobs are left; dropping them answers their callers.
        while self.0.queue.next_group().is_some() {}
    }
}

impl Shared {
    pub(crate) fn new(engine: Arc<dyn Engine>, pos: Pos, queue_bytes: usize) -> Self {
        let tallies = Arc::new(Tallies::default());
        let published = Published {
            pos,
            snapshot: engine.snapshot(),
            tallies: Arc::clone(&tallies),
        };
        Self {
            engine,
            queue: Queue::new(queue_bytes),
            published: ArcSwap::from_pointee(published),
            watch: watch::Sender::new(pos),
            observers: RwLock::default(),
            tallies,
            fault: OnceLock::new(),
        }
    }

    fn commit_group(&self, mut group: Vec<Job>) {
        let base = self.published.load_full();
        let verdicts = place(&mut group, &base);
        drop(base);
        let accepted: Vec<(&Batch, Pos)> = group
            .iter()
            .zip(&verdicts)
            .filter_map(|(job, verdict)| Some((&job.batch, *verdict.as_ref().ok()?)))
            .collect();
        let written = match accepted.last() {
            Some((_, last)) => self.write(&accepted, *last).map(|()| Some(*last)),
            None => Ok(None),
        };
        // A copy, so that an observer may add another.
        let observers = self.observers.read().clone();
        if let Ok(Some(last)) = written {
            self.publish(last);
            tell(&observers, &accepted, <dyn Observer>::committed);
        }
        let (batches, waiting): (Vec<Batch>, Vec<_>) = group
            .into_iter()
            .map(|job| (job.batch, (job.answer, job.queued_at)))
            .unzip();
        let mut answered = Vec::with_capacity(batches.len());
        for ((batch, (answer, queued_at)), verdict) in batches.iter().zip(waiting).zip(verdicts) {
            let outcome = match (verdict, &written) {
                (Ok(_), Err(error)) => Err(CommitError::Engine(error.clone())),
                (verdict, _) => verdict,
            };
            if let Ok(pos) = outcome {
                answered.push((batch, pos));
            }
            metrics::histogram!("store_commit_seconds").record(queued_at.elapsed().as_secs_f64());
            // An error here means that the caller has stopped waiting.
            answer.send(outcome).ok();
        }
        tell(&observers, &answered, <dyn Observer>::answered);
    }

    /// Writes the batches and the position of the last one as one. Everything or nothing of it happens.
    fn write(&self, batches: &[(&Batch, Pos)], last: Pos) -> Result<(), EngineError> {
        if let Some(fault) = self.fault.get() {
            return Err(fault.clone());
        }
        let position = last.0.to_be_bytes();
        let position = Write::Put {
            table: META,
            key: identity::POSITION_KEY,
            value: &position,
        };
        let mut tally = Tally::default();
        let mut writes = batches
            .iter()
            .flat_map(|(batch, _)| batch.writes())
            .inspect(|write| tally.count(write))
            .chain([position]);
        let started = Instant::now();
        let written = self.engine.commit(&mut writes);
        drop(writes);
        metrics::histogram!("store_write_seconds").record(started.elapsed().as_secs_f64());
        if let Err(error) = written {
            tracing::error!(%error, "a write failed, the store takes no more batches");
            self.fault.get_or_init(|| error.clone());
            self.queue.close(CommitError::Engine(error.clone()));
            return Err(error);
        }
        metrics::histogram!("store_group_batches").record(batches.len() as f64);
        metrics::counter!("store_written_bytes_total").increment(tally.bytes as u64);
        tally.add_to(&self.tallies, batches.len());
        Ok(())
    }

    /// Moves the watermark: from here on, views show everything up to `last`.
    fn publish(&self, last: Pos) {
        self.published.store(Arc::new(Published {
            pos: last,
            snapshot: self.engine.snapshot(),
            tallies: Arc::clone(&self.tallies),
        }));
        self.watch.send_replace(last);
    }

    fn report_memory(&self) {
        let memory = self.engine.memory();
        for (pool, bytes) in [
            ("block_cache", memory.block_cache),
            ("block_cache_pinned", memory.pinned),
            ("memtables", memory.memtables),
        ] {
            metrics::gauge!("store_memory_bytes", "pool" => pool).set(bytes as f64);
        }
    }
}

/// Tells every observer of every batch, in the order of positions.
fn tell(
    observers: &[Arc<dyn Observer>],
    batches: &[(&Batch, Pos)],
    call: fn(&(dyn Observer + 'static), Pos, &[Topic]),
) {
    for (batch, pos) in batches {
        for observer in observers {
            let call = AssertUnwindSafe(|| call(&**observer, *pos, batch.topics()));
            if catch_unwind(call).is_err() {
                tracing::error!(%pos, "an observer of commits panicked");
            }
        }
    }
}

/// Decides on each batch in turn and gives the accepted ones their positions, which are consecutive: a refused batch
/// takes none.
fn place(group: &mut [Job], base: &Published) -> Vec<Result<Pos, CommitError>> {
    // Nobody asks what the group has made of a row unless a later batch assumes something.
    let assumed = group
        .iter()
        .rposition(|job| job.batch.has_expectations())
        .unwrap_or(0);
    let mut overlay = Overlay::new(&*base.snapshot);
    let mut last = base.pos;
    group
        .iter_mut()
        .enumerate()
        .map(|(index, job)| {
            let pos = Pos(last.0 + 1);
            job.batch.fill(pos);
            let batch: &Batch = &job.batch;
            overlay.check(batch)?;
            if index < assumed {
                overlay.apply(batch);
            }
            last = pos;
            Ok(pos)
        })
        .collect()
}

/// What one write consists of.
#[derive(Default)]
struct Tally {
    puts: usize,
    deletes: usize,
    range_deletes: usize,
    bytes: usize,
}

impl Tally {
    fn count(&mut self, write: &Write<'_>) {
        match write {
            Write::Put { key, value, .. } => {
                self.puts += 1;
                self.bytes += key.len() + value.len();
            }
            Write::Delete { key, .. } => {
                self.deletes += 1;
                self.bytes += key.len();
            }
            Write::DeleteRange { start, end, .. } => {
                self.range_deletes += 1;
                self.bytes += start.len() + end.len();
            }
        }
    }

    fn add_to(&self, tallies: &Tallies, batches: usize) {
        add(&tallies.group_commits, 1);
        add(&tallies.batches, batches);
        add(&tallies.puts, self.puts);
        add(&tallies.deletes, self.deletes);
        add(&tallies.range_deletes, self.range_deletes);
        add(&tallies.bytes, self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeMap,
        path::Path,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
            mpsc,
        },
    };

    use myelin_types::Pos;
    use parking_lot::Mutex;

    use super::Observer;
    use crate::{
        batch::{Batch, Topic},
        counters::Memory,
        engine::{Cursor, Direction, Engine, EngineError, ReadError, Snapshot, Tier, Write},
        error::CommitError,
        store::Store,
        table::{Profile, Table},
    };

    struct Numbers;

    impl Table for Numbers {
        const NAME: &'static str = "numbers";
        const PROFILE: Profile = Profile::Point;
        type Key = u64;
        type Value = u64;
    }

    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Mood {
        Works,
        Fails,
        Panics,
    }

    type Rows = BTreeMap<(&'static str, Vec<u8>), Vec<u8>>;

    /// An engine that holds rows in memory and fails when it is told to.
    struct Moody {
        mood: Mutex<Mood>,
        rows: Mutex<Rows>,
        commits: AtomicUsize,
    }

    impl Moody {
        fn store() -> (Arc<Self>, Store) {
            let engine = Arc::new(Self {
                mood: Mutex::new(Mood::Works),
                rows: Mutex::default(),
                commits: AtomicUsize::new(0),
            });
            let store = Store::over(Arc::<Self>::clone(&engine), Pos::ZERO, 1 << 20)
                .expect("a thread can be started");
            (engine, store)
        }
    }

    impl Engine for Moody {
        fn snapshot(&self) -> Box<dyn Snapshot> {
            Box::new(self.rows.lock().clone())
        }

        fn commit(&self, writes: &mut dyn Iterator<Item = Write<'_>>) -> Result<(), EngineError> {
            self.commits.fetch_add(1, Ordering::SeqCst);
            let mood = *self.mood.lock();
            assert_ne!(mood, Mood::Panics, "told to panic");
            if mood == Mood::Fails {
                return Err(EngineError::new("the disk is full"));
            }
            let mut rows = self.rows.lock();
            for write in writes {
                match write {
                    Write::Put { table, key, value } => {
                        rows.insert((table, key.to_vec()), value.to_vec());
                    }
                    Write::Delete { table, key } => {
                        rows.remove(&(table, key.to_vec()));
                    }
                    Write::DeleteRange { table, start, end } => {
                        rows.retain(|(of, key), _| {
                            *of != table || !(start..end).contains(&&key[..])
                        });
                    }
                }
            }
            Ok(())
        }

        fn checkpoint(&self, _: &Path) -> Result<(), EngineError> {
            Err(EngineError::new("has no files"))
        }

        fn flush(&self) -> Result<(), EngineError> {
            Ok(())
        }

        fn memory(&self) -> Memory {
            Memory::default()
        }
    }

    impl Snapshot for Rows {
        fn get(
            &self,
            table: &'static str,
            key: &[u8],
            _: Tier,
            visit: &mut dyn FnMut(&[u8]),
        ) -> Result<(), ReadError> {
            if let Some(value) = self.get(&(table, key.to_vec())) {
                visit(value);
            }
            Ok(())
        }

        fn multi_get(
            &self,
            table: &'static str,
            keys: &[&[u8]],
            tier: Tier,
            visit: &mut dyn FnMut(usize, &[u8]),
        ) -> Result<(), ReadError> {
            for (index, key) in keys.iter().enumerate() {
                Snapshot::get(self, table, key, tier, &mut |value| visit(index, value))?;
            }
            Ok(())
        }

        fn scan<'a>(
            &'a self,
            _: &'static str,
            _: Vec<u8>,
            _: Option<Vec<u8>>,
            _: Direction,
            _: Tier,
        ) -> Result<Box<dyn Cursor + 'a>, ReadError> {
            Err(ReadError::Failed(EngineError::new(
                "these tests do not scan",
            )))
        }
    }

    fn put(number: u64) -> Batch {
        let mut batch = Batch::new();
        batch.put::<Numbers>(&number, &number);
        batch
    }

    /// Lets one commit after the other through.
    struct Gate(Mutex<mpsc::Receiver<()>>);

    impl Observer for Gate {
        fn committed(&self, _: Pos, _: &[Topic]) {
            self.0.lock().recv().ok();
        }
    }

    #[test]
    fn a_failed_write_fails_its_whole_group_and_everything_after_it() {
        let (engine, store) = Moody::store();
        let (release, gate) = mpsc::channel();
        store.observe(Arc::new(Gate(Mutex::new(gate))));
        let first = store.commit(put(1));
        while store.watermark() == Pos::ZERO {
            std::thread::yield_now();
        }
        *engine.mood.lock() = Mood::Fails;
        let group = [2, 3].map(|number| store.commit(put(number)));
        let mut refused = put(4);
        refused.expect::<Numbers>(&1, None);
        let refused = store.commit(refused);
        drop(release);
        assert_eq!(first.wait().expect("still worked"), Pos(1));
        for commit in group {
            assert!(matches!(commit.wait(), Err(CommitError::Engine(_))));
        }
        assert!(matches!(
            refused.wait(),
            Err(CommitError::Expectation { .. })
        ));
        assert_eq!(store.watermark(), Pos(1));
        assert_eq!(store.view().get::<Numbers>(&2).expect("readable"), None);
        let fault = store.fault().expect("the failure is reported");
        assert_eq!(fault.to_string(), "the disk is full");

        *engine.mood.lock() = Mood::Works;
        assert!(matches!(
            store.commit(put(5)).wait(),
            Err(CommitError::Engine(_))
        ));
        assert_eq!(
            engine.commits.load(Ordering::SeqCst),
            2,
            "nothing is tried again"
        );
        assert_eq!(store.view().get::<Numbers>(&1).expect("readable"), Some(1));
    }

    /// Holds up everything that comes after the answers.
    struct Slow(Mutex<mpsc::Receiver<()>>);

    impl Observer for Slow {
        fn answered(&self, _: Pos, _: &[Topic]) {
            self.0.lock().recv().ok();
        }
    }

    #[test]
    fn nobody_waits_for_what_observers_do_after_the_answers() {
        let (_, store) = Moody::store();
        let (release, gate) = mpsc::channel();
        store.observe(Arc::new(Slow(Mutex::new(gate))));
        assert_eq!(store.commit(put(1)).wait().expect("works"), Pos(1));
        assert_eq!(store.watermark(), Pos(1));
        drop(release);
        assert_eq!(store.commit(put(2)).wait().expect("works"), Pos(2));
    }

    #[test]
    fn a_committer_that_panics_leaves_nobody_waiting() {
        let (engine, store) = Moody::store();
        *engine.mood.lock() = Mood::Panics;
        let commits = [1, 2, 3].map(|number| store.commit(put(number)));
        for commit in commits {
            assert!(matches!(commit.wait(), Err(CommitError::Closed)));
        }
        assert!(matches!(
            store.commit(put(4)).wait(),
            Err(CommitError::Closed)
        ));
        store.close();
    }
}
