//! The committer's queue: batches in the order in which `commit` was called.

use std::{collections::VecDeque, thread, time::Instant};

use myelin_types::Pos;
use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use crate::{batch::Batch, error::CommitError};

/// Batches that are written together weigh at most this, unless a single one weighs more. Beyond it a greater group
/// saves no more syncs worth mentioning, and everyone in it waits longer.
const GROUP_BYTES: usize = 4 << 20;
const GROUP_BATCHES: usize = 1024;

/// What callers of `commit` wait for.
pub(crate) type Answer = oneshot::Sender<Result<Pos, CommitError>>;

/// A batch on its way.
pub(crate) struct Job {
    pub(crate) batch: Batch,
    pub(crate) answer: Answer,
    pub(crate) queued_at: Instant,
}

/// Bounded by weight. A batch is queued when `push` returns, so the order of calls is the order of positions; that is
/// why there is no waiting outside. When the queue is full `push` blocks its thread, which happens only when the disk
/// has been behind for as long as it takes to write all of the bound: the whole server then slows down to the disk's
/// speed. The committer itself (an observer that commits) is never blocked, since nobody else could make room.
pub(crate) struct Queue {
    state: Mutex<State>,
    filled: Condvar,
    emptied: Condvar,
    bound: usize,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    weight: usize,
    /// Set once: no more jobs are taken.
    closed: Option<CommitError>,
    committer: Option<thread::ThreadId>,
}

impl Queue {
    /// A queue that holds about `bound` bytes.
    pub(crate) fn new(bound: usize) -> Self {
        Self {
            state: Mutex::default(),
            filled: Condvar::new(),
            emptied: Condvar::new(),
            bound,
        }
    }

    /// Appends a job, or says why no more are taken.
    pub(crate) fn push(&self, job: Job) -> Result<(), CommitError> {
        let mut state = self.state.lock();
        while state.weight >= self.bound
            && state.closed.is_none()
            && state.committer != Some(thread::current().id())
        {
            self.emptied.wait(&mut state);
        }
        if let Some(reason) = &state.closed {
            return Err(reason.clone());
        }
        state.weight += job.batch.weight();
        state.jobs.push_back(job);
        drop(state);
        self.filled.notify_one();
        Ok(())
    }

    /// Waits for jobs and takes as many as fit in a group. None once the queue is closed and drained.
    pub(crate) fn next_group(&self) -> Option<Vec<Job>> {
        let mut state = self.state.lock();
        state.committer = Some(thread::current().id());
        while state.jobs.is_empty() {
            if state.closed.is_some() {
                return None;
            }
            self.filled.wait(&mut state);
        }
        let mut group = Vec::new();
        let mut weight = 0;
        while let Some(job) = state.jobs.front() {
            let fits = weight + job.batch.weight() <= GROUP_BYTES && group.len() < GROUP_BATCHES;
            if !group.is_empty() && !fits {
                break;
            }
            weight += job.batch.weight();
            group.extend(state.jobs.pop_front());
        }
        state.weight -= weight;
        drop(state);
        self.emptied.notify_all();
        Some(group)
    }

    /// Takes no more jobs, and says why. Those already queued stay. The first reason holds.
    pub(crate) fn close(&self, reason: CommitError) {
        self.state.lock().closed.get_or_insert(reason);
        self.filled.notify_all();
        self.emptied.notify_all();
    }

    /// How many jobs wait.
    pub(crate) fn len(&self) -> usize {
        self.state.lock().jobs.len()
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, thread, time::Instant};

    use tokio::sync::oneshot;

    use super::{GROUP_BATCHES, Job, Queue};
    use crate::{batch::Batch, error::CommitError};

    fn job() -> Job {
        Job {
            batch: Batch::new(),
            answer: oneshot::channel().0,
            queued_at: Instant::now(),
        }
    }

    #[test]
    fn a_full_queue_blocks_until_a_group_is_taken() {
        let weight = Batch::new().weight();
        let queue = Arc::new(Queue::new(weight * 2));
        for _ in 0..2 {
            assert!(queue.push(job()).is_ok());
        }
        let pusher = thread::spawn({
            let queue = Arc::clone(&queue);
            move || queue.push(job()).is_ok()
        });
        let mut taken = 0;
        while taken < 3 {
            taken += queue.next_group().expect("not closed").len();
        }
        assert!(pusher.join().expect("no panic"));
        assert_eq!(queue.len(), 0);
    }

    #[test]
    fn the_committer_itself_is_not_blocked() {
        let queue = Queue::new(1);
        assert!(queue.push(job()).is_ok());
        assert_eq!(queue.next_group().expect("not closed").len(), 1);
        assert!(queue.push(job()).is_ok());
        assert!(queue.push(job()).is_ok());
        assert_eq!(queue.len(), 2);
    }

    #[test]
    fn closing_drains_what_is_queued_and_refuses_the_rest() {
        let queue = Queue::new(usize::MAX);
        for _ in 0..=GROUP_BATCHES {
            assert!(queue.push(job()).is_ok());
        }
        queue.close(CommitError::Closed);
        assert!(matches!(queue.push(job()), Err(CommitError::Closed)));
        assert_eq!(queue.next_group().expect("drains").len(), GROUP_BATCHES);
        assert_eq!(queue.next_group().expect("drains").len(), 1);
        assert!(queue.next_group().is_none());
    }
}
