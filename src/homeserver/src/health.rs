//! `/health`: what is wrong, not only that something is.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{Json, extract::State, response::IntoResponse};
use http::StatusCode;
use myelin_store::{Batch, Store};
use serde::Serialize;
use tokio::{sync::Mutex, time::timeout};

/// How long an answer is good for, so that asking often costs nothing.
const FRESH_FOR: Duration = Duration::from_secs(1);
/// A commit that takes longer than this means that the disk hangs.
const COMMIT_LIMIT: Duration = Duration::from_secs(5);
/// Below this much free space the server says so.
const LOW_SPACE_BYTES: u64 = 256 << 20;

/// How the server is. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Health(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    data_dir: PathBuf,
    last: Mutex<Option<(Instant, Report)>>,
}

/// The document.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    /// `ok`, `degraded` (it works, an operator should look) or `failing`.
    pub(crate) status: Status,
    /// What is wrong, in sentences; empty when all is well.
    pub(crate) problems: Vec<String>,
    /// How long the last commit took, in milliseconds; none if it failed.
    pub(crate) commit_ms: Option<u64>,
    /// Batches that wait for the committer.
    pub(crate) queued_batches: usize,
    /// Free space for the database in bytes, where the system says.
    pub(crate) free_bytes: Option<u64>,
}

/// The state of the server in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    /// All is well.
    Ok,
    /// It works; an operator should look.
    Degraded,
    /// It cannot do its work.
    Failing,
}

impl Health {
    pub(crate) fn new(store: Store, data_dir: PathBuf) -> Self {
        Self(Arc::new(Inner {
            store,
            data_dir,
            last: Mutex::new(None),
        }))
    }

    /// Looks, at most once in [`FRESH_FOR`].
    pub(crate) async fn report(&self) -> Report {
        // Held while looking: whoever asks meanwhile gets the same answer.
        let mut last = self.0.last.lock().await;
        if let Some((at, report)) = &*last
            && at.elapsed() < FRESH_FOR
        {
            return report.clone();
        }
        let report = self.look().await;
        *last = Some((Instant::now(), report.clone()));
        report
    }

    async fn look(&self) -> Report {
        let store = &self.0.store;
        let mut status = Status::Ok;
        let mut problems = Vec::new();

        let started = Instant::now();
        let commit = timeout(COMMIT_LIMIT, store.commit(Batch::new())).await;
        let commit_ms = match commit {
            Ok(Ok(_)) => Some(u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX)),
            Ok(Err(_)) => {
                status = Status::Failing;
                problems.push("The database takes no more changes; the log says why.".to_owned());
                None
            }
            Err(_) => {
                status = Status::Failing;
                problems.push(format!(
                    "The disk did not confirm a write within {} seconds.",
                    COMMIT_LIMIT.as_secs()
                ));
                None
            }
        };
        let free_bytes = nix::sys::statvfs::statvfs(&self.0.data_dir)
            .ok()
            .map(|space| space.blocks_available() * space.fragment_size());
        if let Some(free) = free_bytes
            && free < LOW_SPACE_BYTES
        {
            status = status.worst(Status::Degraded);
            problems.push(format!(
                "Only {} MiB are free for the database.",
                free >> 20
            ));
        }
        Report {
            status,
            problems,
            commit_ms,
            queued_batches: store.queued(),
            free_bytes,
        }
    }
}

impl Status {
    fn worst(self, other: Self) -> Self {
        match (self, other) {
            (Self::Failing, _) | (_, Self::Failing) => Self::Failing,
            (Self::Degraded, _) | (_, Self::Degraded) => Self::Degraded,
            (Self::Ok, Self::Ok) => Self::Ok,
        }
    }
}

/// `GET /health`: 200 while the server can do its work, else 503.
pub(crate) async fn get(State(health): State<Health>) -> impl IntoResponse {
    let report = health.report().await;
    let code = match report.status {
        Status::Ok | Status::Degraded => StatusCode::OK,
        Status::Failing => StatusCode::SERVICE_UNAVAILABLE,
    };
    (code, [("cache-control", "no-store")], Json(report))
}
