//! The handle with which parts of the server start their tasks.

use std::{future::Future, time::Duration};

use tokio::{sync::mpsc, task::JoinHandle};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument as _;

use crate::lifecycle::Cause;

/// Starts tasks that the shutdown waits for, and tells them when it begins. Cheap to clone.
///
/// The shutdown has two steps. *Soft*: take nothing new, finish what is at hand. *Hard*: let go of everything, the
/// time is up. The soft token is a child of the hard one, so whoever looks only at the soft one misses neither.
#[derive(Clone, Debug)]
pub struct Tasks {
    pub(crate) tracker: TaskTracker,
    pub(crate) soft: CancellationToken,
    pub(crate) hard: CancellationToken,
    /// Bounded to one: only the first cause counts, later ones are dropped when it is full.
    pub(crate) causes: mpsc::Sender<Cause>,
}

impl Tasks {
    /// Cancelled when nothing new should be begun.
    pub fn soft(&self) -> &CancellationToken {
        &self.soft
    }

    /// Cancelled when the time for finishing is up.
    pub fn hard(&self) -> &CancellationToken {
        &self.hard
    }

    /// Begins an orderly shutdown, as a signal would.
    pub fn shut_down(&self) {
        self.causes.try_send(Cause::Requested).ok();
        self.soft.cancel();
    }

    /// Starts a task that ends by itself. The shutdown waits for it; at the hard stop it is dropped at its next
    /// `await`.
    pub fn spawn<F>(&self, name: &'static str, future: F) -> JoinHandle<Option<F::Output>>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let hard = self.hard.clone();
        let span = tracing::info_span!("task", name);
        self.tracker
            .spawn(async move { hard.run_until_cancelled(future).await }.instrument(span))
    }

    /// Starts a task that must live as long as the server. Where it returns or panics before the shutdown, the
    /// shutdown begins and the process ends as crashed: half a server is worse than none.
    pub fn spawn_essential<F>(&self, name: &'static str, future: F) -> JoinHandle<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let guard = Guard {
            name,
            tasks: self.clone(),
        };
        let hard = self.hard.clone();
        let span = tracing::info_span!("task", name);
        self.tracker.spawn(
            async move {
                let guard = guard;
                hard.run_until_cancelled(future).await;
                drop(guard);
            }
            .instrument(span),
        )
    }

    /// Runs `step` now and then every `interval`, as an essential task, until the soft stop. A step which has
    /// begun is finished first.
    pub fn periodic<S: crate::Step>(&self, name: &'static str, interval: Duration, step: S) {
        let soft = self.soft.clone();
        self.spawn_essential(name, crate::periodic::run(name, interval, step, soft));
    }
}

/// Begins the shutdown when it is dropped before the shutdown, by return or by panic.
struct Guard {
    name: &'static str,
    tasks: Tasks,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if !self.tasks.soft.is_cancelled() {
            tracing::error!(task = self.name, "an essential task died, shutting down");
            self.tasks.causes.try_send(Cause::TaskDied(self.name)).ok();
            self.tasks.soft.cancel();
        }
    }
}
