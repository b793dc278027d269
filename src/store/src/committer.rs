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
    fn committed(&self, pos: Pos, topics: &[Topic]);
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
    fn commit_group(&self, mut group: Vec<Job>) {
        let base = self.published.load_full();
        let (verdicts, last) = place(&mut group, &base);
        let accepted = || {
            let placed = group.iter().zip(&verdicts);
            placed.filter_map(|(job, verdict)| Some((&job.batch, *verdict.as_ref().ok()?)))
        };
        let outcome = if accepted().next().is_none() {
            Ok(())
        } else {
            self.write(accepted().map(|(batch, _)| batch), last)
        };
        if outcome.is_ok() && last > base.pos {
            self.publish(last);
            self.observe(accepted());
        }
        drop(base);
        for (job, verdict) in group.into_iter().zip(verdicts) {
            let answer = match (verdict, &outcome) {
                (Ok(_), Err(error)) => Err(error.clone()),
                (verdict, _) => verdict,
            };
            metrics::histogram!("store_commit_seconds")
                .record(job.queued_at.elapsed().as_secs_f64());
            // The caller may have stopped waiting.
            drop(job.answer.send(answer));
        }
    }

    /// Writes the batches and the position of the last one as one. Everything or nothing of it happens.
    fn write<'a>(
        &self,
        batches: impl Iterator<Item = &'a Batch> + Clone,
        last: Pos,
    ) -> Result<(), CommitError> {
        if let Some(fault) = self.fault.get() {
            return Err(fault.clone().into());
        }
        let position = last.0.to_be_bytes();
        let position = Write::Put {
            table: META,
            key: identity::POSITION_KEY,
            value: &position,
        };
        let mut tally = Tally::default();
        let mut writes = batches
            .clone()
            .flat_map(|batch| batch.writes())
            .chain([position])
            .inspect(|write| tally.count(write));
        let started = Instant::now();
        let written = self.engine.commit(&mut writes);
        drop(writes);
        metrics::histogram!("store_write_seconds").record(started.elapsed().as_secs_f64());
        if let Err(error) = written {
            tracing::error!(%error, "a write failed, the store takes no more batches");
            self.fault.get_or_init(|| error.clone());
            self.queue.close(CommitError::Engine(error.clone()));
            return Err(error.into());
        }
        let count = batches.count();
        metrics::histogram!("store_group_batches").record(count as f64);
        metrics::counter!("store_written_bytes_total").increment(tally.bytes as u64);
        tally.add_to(&self.tallies, count);
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

    fn observe<'a>(&self, accepted: impl Iterator<Item = (&'a Batch, Pos)>) {
        // A copy, so that an observer may add another.
        let observers = self.observers.read().clone();
        if observers.is_empty() {
            return;
        }
        for (batch, pos) in accepted {
            for observer in &observers {
                let call = AssertUnwindSafe(|| observer.committed(pos, batch.topics()));
                if catch_unwind(call).is_err() {
                    tracing::error!(%pos, "an observer of commits panicked");
                }
            }
        }
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

/// Decides on each batch in turn and gives the accepted ones their positions, which are consecutive: a refused batch
/// takes none. Returns the verdicts, in order, and the last position given.
fn place(group: &mut [Job], base: &Published) -> (Vec<Result<Pos, CommitError>>, Pos) {
    // Nobody asks what the group has made of a row unless a later batch assumes something.
    let assumed = group
        .iter()
        .rposition(|job| job.batch.has_expectations())
        .unwrap_or(0);
    let mut overlay = Overlay::new(&*base.snapshot);
    let mut last = base.pos;
    let verdicts = group
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
        .collect();
    (verdicts, last)
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
            // The store's own row, written with every group.
            Write::Put { table, .. } if *table == META => {}
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
