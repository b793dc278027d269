//! From the first task to the exit code.

use std::{process::ExitCode, time::Duration};

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::Tasks;

/// Why the server stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The process got this signal (`SIGTERM` or `SIGINT`).
    Signal(&'static str),
    /// A part of the server asked for it.
    Requested,
    /// This task, which should have lived as long as the server, did not.
    TaskDied(&'static str),
}

/// How the server stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ending {
    /// Why.
    pub cause: Cause,
    /// Whether every task finished before the time was up.
    pub clean: bool,
}

impl Ending {
    /// 0 when the server was asked to stop and did; 1 when it crashed; 2 when it was asked to stop and tasks had to
    /// be abandoned.
    pub fn exit_code(self) -> ExitCode {
        ExitCode::from(self.code())
    }

    fn code(self) -> u8 {
        match (self.cause, self.clean) {
            (Cause::TaskDied(_), _) => 1,
            (_, false) => 2,
            (Cause::Signal(_) | Cause::Requested, true) => 0,
        }
    }
}

/// Owns the shutdown: waits for its cause, then for the tasks, then lets go.
#[derive(Debug)]
pub struct Lifecycle {
    tasks: Tasks,
    causes: mpsc::Receiver<Cause>,
    grace: Duration,
}

/// How long tasks have between the hard stop and being abandoned.
const AFTER_HARD_STOP: Duration = Duration::from_secs(1);

impl Lifecycle {
    /// A life in which tasks have `grace` to finish between the soft and the hard stop.
    pub fn new(grace: Duration) -> Self {
        let hard = CancellationToken::new();
        let (sender, causes) = mpsc::channel(1);
        let tasks = Tasks {
            tracker: TaskTracker::new(),
            soft: hard.child_token(),
            hard,
            causes: sender,
        };
        Self {
            tasks,
            causes,
            grace,
        }
    }

    /// The handle for starting tasks.
    pub fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    /// Lets `SIGTERM` and `SIGINT` begin the shutdown; a second one makes it hard. Fails where the system refuses
    /// to register the handlers.
    pub fn listen_for_signals(&self) -> std::io::Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let tasks = self.tasks.clone();
        // Not tracked: it waits for signals as long as the process lives.
        tokio::spawn(async move {
            for attempt in 0_u32.. {
                let name = tokio::select! {
                    _ = terminate.recv() => "SIGTERM",
                    _ = interrupt.recv() => "SIGINT",
                };
                tracing::info!(signal = name, "signal received");
                if attempt > 0 {
                    tasks.hard.cancel();
                }
                tasks.causes.try_send(Cause::Signal(name)).ok();
                tasks.soft.cancel();
            }
        });
        Ok(())
    }

    /// Waits until something begins the shutdown and then until all tasks are done or their time is up.
    pub async fn run(mut self) -> Ending {
        self.tasks.soft.cancelled().await;
        let cause = self.causes.try_recv().unwrap_or(Cause::Requested);
        tracing::info!(?cause, "shutting down");
        self.tasks.tracker.close();
        let finished = self.tasks.tracker.wait();
        tokio::pin!(finished);
        let clean = tokio::select! {
            () = &mut finished => true,
            () = tokio::time::sleep(self.grace) => false,
            () = self.tasks.hard.cancelled() => false,
        };
        self.tasks.hard.cancel();
        if !clean {
            let left = self.tasks.tracker.len();
            tracing::warn!(tasks = left, "the time to finish is up, stopping hard");
            tokio::time::timeout(AFTER_HARD_STOP, finished).await.ok();
        }
        Ending { cause, clean }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    };

    use super::*;

    const GRACE: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn tasks_may_finish_what_they_have_begun() {
        let life = Lifecycle::new(GRACE);
        let done = Arc::new(AtomicBool::new(false));
        let task = {
            let (done, soft) = (done.clone(), life.tasks().soft().clone());
            async move {
                soft.cancelled().await;
                tokio::time::sleep(GRACE / 2).await;
                done.store(true, Ordering::SeqCst);
            }
        };
        life.tasks().spawn("slow", task);
        life.tasks().shut_down();
        let ending = life.run().await;
        assert_eq!(
            ending,
            Ending {
                cause: Cause::Requested,
                clean: true
            }
        );
        assert_eq!(ending.code(), 0);
        assert!(done.load(Ordering::SeqCst));
    }

    #[tokio::test(start_paused = true)]
    async fn tasks_that_do_not_finish_are_let_go() {
        let life = Lifecycle::new(GRACE);
        let hard = life.tasks().hard().clone();
        life.tasks().spawn("stuck", std::future::pending::<()>());
        life.tasks().shut_down();
        let ending = life.run().await;
        assert!(!ending.clean);
        assert_eq!(ending.code(), 2);
        assert!(hard.is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn the_death_of_an_essential_task_ends_the_server() {
        let life = Lifecycle::new(GRACE);
        life.tasks().spawn_essential("heart", async {});
        let ending = life.run().await;
        assert_eq!(ending.cause, Cause::TaskDied("heart"));
        assert_eq!(ending.code(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_of_an_essential_task_ends_the_server() {
        let life = Lifecycle::new(GRACE);
        life.tasks()
            .spawn_essential("heart", async { panic!("a test's panic") });
        assert_eq!(life.run().await.cause, Cause::TaskDied("heart"));
    }

    #[tokio::test(start_paused = true)]
    async fn periodic_steps_survive_errors_and_finish_at_shutdown() {
        let life = Lifecycle::new(GRACE);
        let begun = Arc::new(AtomicU32::new(0));
        let ended = Arc::new(AtomicU32::new(0));
        let step = {
            let (begun, ended) = (begun.clone(), ended.clone());
            move || {
                let (begun, ended) = (begun.clone(), ended.clone());
                async move {
                    begun.fetch_add(1, Ordering::SeqCst);
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    ended.fetch_add(1, Ordering::SeqCst);
                    Err("a test's error")
                }
            }
        };
        life.tasks()
            .periodic("janitor", Duration::from_mins(1), step);
        tokio::time::sleep(Duration::from_millis(120_500)).await;
        life.tasks().shut_down();
        assert!(life.run().await.clean);
        assert_eq!(begun.load(Ordering::SeqCst), 3);
        assert_eq!(ended.load(Ordering::SeqCst), 3);
    }
}
