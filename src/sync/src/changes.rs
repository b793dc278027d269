//! When something of each user's was changed last, in memory.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicU64, Ordering},
};

use myelin_store::View;
use myelin_types::{Pos, UserNum};
use parking_lot::Mutex;

/// What the position of a user's last change takes in memory: maps are half empty at times.
const CHANGE: usize = 48;

/// The positions of users' last changes of one kind.
pub(crate) struct LastChanges {
    changes: Mutex<Changes>,
    /// How many users are remembered. When there are more, everybody is taken to have changed.
    most: usize,
    /// The newest batch that was noted.
    noted: AtomicU64,
}

#[derive(Default)]
struct Changes {
    last: HashMap<UserNum, Pos>,
    /// Who is not in `last` has not changed since then.
    floor: Pos,
}

impl LastChanges {
    /// Changes that take at most about so many bytes.
    pub(crate) fn new(bytes: usize) -> Self {
        Self {
            changes: Mutex::default(),
            most: (bytes / CHANGE).max(16),
            noted: AtomicU64::new(0),
        }
    }

    /// Says that nothing up to `watermark` will be noted, since it was committed before this was there.
    pub(crate) fn start(&self, watermark: Pos) {
        let mut changes = self.changes.lock();
        changes.floor = changes.floor.max(watermark);
        drop(changes);
        self.noted.fetch_max(watermark.0, Ordering::SeqCst);
    }

    /// Notes a change.
    pub(crate) fn note(&self, pos: Pos, user: UserNum) {
        let mut changes = self.changes.lock();
        if changes.last.len() >= self.most {
            changes.last = HashMap::new();
            changes.floor = pos;
        }
        changes.last.insert(user, pos);
    }

    /// Says that all changes of a batch have been noted.
    pub(crate) fn noted(&self, pos: Pos) {
        self.noted.fetch_max(pos.0, Ordering::SeqCst);
    }

    /// A position after which nothing of the user's has changed up to `view`. None if that is not known: the committer
    /// publishes a view before it has its batch noted here.
    pub(crate) fn last(&self, view: &View, user: UserNum) -> Option<Pos> {
        if self.noted.load(Ordering::SeqCst) < view.pos().0 {
            return None;
        }
        let changes = self.changes.lock();
        Some(changes.last.get(&user).copied().unwrap_or(changes.floor))
    }
}
