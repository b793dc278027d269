//! The store: its handle, how it is opened and closed.

use std::{
    collections::HashSet,
    fmt,
    panic::resume_unwind,
    path::Path,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Instant,
};

use myelin_types::Pos;
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};

use crate::{
    batch::Batch,
    committer::{self, Commit, Observer, Shared},
    counters::{Counters, Memory, add},
    engine::{Engine, EngineError, META, Tier},
    error::{CommitError, OpenError, StoreError},
    queue::Job,
    rocks,
    table::TableSpec,
    view::View,
};

/// What a store needs to know to open.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bytes that block cache and memtables together may take, at least some megabytes. The queue of batches may hold
    /// another eighth of it when the disk is behind.
    pub memory_budget: usize,
    /// The program that the database belongs to.
    pub product: &'static str,
    /// The version of the catalogue of tables. Databases with a greater one are refused; those with a smaller one get
    /// the tables they lack and this number.
    pub schema: u32,
    /// The catalogue.
    pub tables: Vec<TableSpec>,
}

/// A handle to an open database. Cheap to clone; the database closes when the last handle and the last view are gone.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    committer: Mutex<Option<JoinHandle<()>>>,
}

impl Store {
    /// Opens the database in `dir`, or makes one if `dir` is empty or does not exist. Blocks.
    pub fn open(dir: &Path, options: Options) -> Result<Store, OpenError> {
        let mut names = HashSet::from([META]);
        if let Some(spec) = options.tables.iter().find(|spec| !names.insert(spec.name)) {
            return Err(OpenError::TableName { table: spec.name });
        }
        let (engine, pos) = rocks::open(dir, &options)?;
        Self::over(engine, pos, options.memory_budget / 8)
    }

    /// A store over an engine whose last batch is at `pos`.
    pub(crate) fn over(
        engine: Arc<dyn Engine>,
        pos: Pos,
        queue_bytes: usize,
    ) -> Result<Store, OpenError> {
        committer::describe_metrics();
        let shared = Arc::new(Shared::new(engine, pos, queue_bytes));
        let committer = thread::Builder::new()
            .name("committer".to_owned())
            .spawn({
                let shared = Arc::clone(&shared);
                move || committer::run(&shared)
            })
            .map_err(OpenError::Thread)?;
        Ok(Store {
            inner: Arc::new(Inner {
                shared,
                committer: Mutex::new(Some(committer)),
            }),
        })
    }

    /// Everything up to the watermark. Its reads block where they need the disk: for threads that may wait.
    pub fn view(&self) -> View {
        self.view_at(Tier::Disk)
    }

    /// Runs `f` on a view at the watermark: first inline, against what is in memory, and if that does not suffice once
    /// more on the blocking pool, on the same view. `f` must have no side effects. It may be given up at any read, so
    /// what it returned the first time counts only if no read fell short.
    pub async fn read<R, E>(
        &self,
        f: impl Fn(&View) -> Result<R, E> + Send + Sync + 'static,
    ) -> Result<R, E>
    where
        R: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        self.rerun(self.view_at(Tier::Memory), f).await
    }

    /// Like [`read`](Store::read), on the rows that `view` shows.
    pub async fn read_at<R, E>(
        &self,
        view: &View,
        f: impl Fn(&View) -> Result<R, E> + Send + Sync + 'static,
    ) -> Result<R, E>
    where
        R: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        self.rerun(view.at_tier(Tier::Memory), f).await
    }

    async fn rerun<R, E>(
        &self,
        view: View,
        f: impl Fn(&View) -> Result<R, E> + Send + Sync + 'static,
    ) -> Result<R, E>
    where
        R: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let outcome = f(&view);
        if !view.missed() {
            return outcome;
        }
        drop(outcome);
        add(&self.shared().tallies.reruns, 1);
        metrics::counter!("store_read_reruns_total").increment(1);
        let view = view.at_tier(Tier::Disk);
        match tokio::task::spawn_blocking(move || f(&view)).await {
            Ok(outcome) => outcome,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => resume_unwind(panic),
                Err(_) => Err(StoreError::Closed.into()),
            },
        }
    }

    /// Queues `batch`; when this returns, its place behind all earlier calls is fixed. The answer comes when the batch
    /// is durable and in every new view.
    ///
    /// Blocks the thread only if batches of an eighth of the memory budget are queued already.
    pub fn commit(&self, batch: Batch) -> Commit {
        if let Some(table) = batch.oversized() {
            return Commit::refused(CommitError::KeyTooLong { table });
        }
        let (answer, outcome) = oneshot::channel();
        let job = Job {
            batch,
            answer,
            queued_at: Instant::now(),
        };
        match self.shared().queue.push(job) {
            Ok(()) => Commit::queued(outcome),
            Err(reason) => Commit::refused(reason),
        }
    }

    /// The position of the last batch that readers see.
    pub fn watermark(&self) -> Pos {
        self.shared().published.load().pos
    }

    /// Follows the watermark. A view made after a change was seen shows at least that position.
    pub fn watch(&self) -> watch::Receiver<Pos> {
        self.shared().watch.subscribe()
    }

    /// Tells `observer` of every batch from now on, until the store is closed.
    pub fn observe(&self, observer: Arc<dyn Observer>) {
        self.shared().observers.write().push(observer);
    }

    /// Makes `dir`, which must not exist yet, a database of its own with everything committed so far; commits go on
    /// meanwhile. Blocks. Files are shared with this database where the file system can link them.
    pub fn checkpoint(&self, dir: &Path) -> Result<(), StoreError> {
        Ok(self.shared().engine.checkpoint(dir)?)
    }

    /// Brings everything committed so far into the database's files. Nothing is the safer for it; the next start has no
    /// log to read again, and the log's space is free. Blocks, for about a second where much was written.
    pub fn flush(&self) -> Result<(), StoreError> {
        Ok(self.shared().engine.flush()?)
    }

    /// What has been done since opening.
    pub fn counters(&self) -> Counters {
        self.shared().tallies.read()
    }

    /// What the engine holds in memory now.
    pub fn memory(&self) -> Memory {
        self.shared().engine.memory()
    }

    /// The failure after which the store takes no more batches, if there was one.
    pub fn fault(&self) -> Option<EngineError> {
        self.shared().fault.get().cloned()
    }

    /// How many batches wait for the committer.
    pub fn queued(&self) -> usize {
        self.shared().queue.len()
    }

    /// Writes what is queued, takes no more batches, forgets the observers. Blocks until that is done. Reads go on.
    pub fn close(&self) {
        self.inner.close();
    }

    fn shared(&self) -> &Shared {
        &self.inner.shared
    }

    fn view_at(&self, tier: Tier) -> View {
        View::new(self.shared().published.load_full(), tier)
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("watermark", &self.watermark())
            .finish_non_exhaustive()
    }
}

impl Inner {
    fn close(&self) {
        self.shared.queue.close(CommitError::Closed);
        // The lock is held while joining, so that a second caller also waits until everything is written.
        let mut committer = self.committer.lock();
        if let Some(thread) = committer.take() {
            // The last handle may go on the committer's own thread, with an observer that held it.
            if thread.thread().id() == thread::current().id() {
                return;
            }
            if thread.join().is_err() {
                tracing::error!("the committer panicked");
            }
        }
        drop(committer);
        let observers = std::mem::take(&mut *self.shared.observers.write());
        drop(observers);
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.close();
    }
}
