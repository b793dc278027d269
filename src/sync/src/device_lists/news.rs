//! What happened lately to device lists and memberships, in memory, so that who has nothing new reads nothing.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::atomic::{AtomicU64, Ordering},
};

use myelin_data::topic::Changed;
use myelin_store::{Observer, Topic, View};
use myelin_types::{Pos, RoomNum, UserNum};
use parking_lot::RwLock;

use crate::changes::LastChanges;

/// How many of the last changes of lists, and of memberships, are remembered one by one, about 16 bytes each. Who asks for
/// older ones has them looked up in the store.
const REMEMBERED: usize = 1 << 15;

/// The last changes of one kind, oldest first.
struct Recent<T> {
    changes: VecDeque<(Pos, T)>,
    /// Every change after this position is there.
    floor: Pos,
}

impl<T: Copy + Ord> Recent<T> {
    fn new() -> Self {
        Self {
            changes: VecDeque::new(),
            floor: Pos::ZERO,
        }
    }

    fn push(&mut self, pos: Pos, change: T) {
        if self.changes.len() == REMEMBERED
            && let Some((oldest, _)) = self.changes.pop_front()
        {
            self.floor = oldest;
        }
        self.changes.push_back((pos, change));
    }

    /// What changed after `since`; None if that is not known.
    fn since(&self, since: Pos) -> Option<BTreeSet<T>> {
        if since < self.floor {
            return None;
        }
        let first = self.changes.partition_point(|(pos, _)| *pos <= since);
        let changes = self.changes.range(first..);
        Some(changes.map(|(_, change)| *change).collect())
    }
}

/// The last changes of device lists, memberships, and of what users signed.
pub(crate) struct News {
    lists: RwLock<Recent<UserNum>>,
    memberships: RwLock<Recent<(RoomNum, UserNum)>>,
    signatures: LastChanges,
    /// The newest batch that was noted.
    noted: AtomicU64,
}

impl News {
    /// News that take a bounded number of bytes, about so many of them for what users signed.
    pub(crate) fn new(bytes: usize) -> Self {
        Self {
            lists: RwLock::new(Recent::new()),
            memberships: RwLock::new(Recent::new()),
            signatures: LastChanges::new(bytes),
            noted: AtomicU64::new(0),
        }
    }

    /// Says that nothing up to `watermark` will be noted.
    pub(crate) fn start(&self, watermark: Pos) {
        let mut lists = self.lists.write();
        lists.floor = lists.floor.max(watermark);
        drop(lists);
        let mut memberships = self.memberships.write();
        memberships.floor = memberships.floor.max(watermark);
        drop(memberships);
        self.signatures.start(watermark);
        self.noted.fetch_max(watermark.0, Ordering::SeqCst);
    }

    /// The users whose device lists changed after `since` and up to `view`; None if that is not known.
    pub(super) fn lists(&self, view: &View, since: Pos) -> Option<BTreeSet<UserNum>> {
        self.knows(view).then(|| self.lists.read().since(since))?
    }

    /// The users whose memberships changed after `since` and up to `view`, with the rooms; None if that is not known.
    pub(super) fn memberships(
        &self,
        view: &View,
        since: Pos,
    ) -> Option<BTreeSet<(RoomNum, UserNum)>> {
        self.knows(view)
            .then(|| self.memberships.read().since(since))?
    }

    /// Whether a user may have signed something after `since`.
    pub(super) fn may_have_signed(&self, view: &View, user: UserNum, since: Pos) -> bool {
        let last = self.signatures.last(view, user);
        last.is_none_or(|last| last > since)
    }

    /// Whether all batches of a view have been noted: the committer publishes it before.
    fn knows(&self, view: &View) -> bool {
        self.noted.load(Ordering::SeqCst) >= view.pos().0
    }
}

impl Observer for News {
    fn committed(&self, pos: Pos, topics: &[Topic]) {
        // A batch is about one room. Whoever's own rows change with it is a member whose membership does, or came into being
        // otherwise; the store says which.
        let (mut room, mut users) = (None, Vec::new());
        for topic in topics {
            match Changed::from_topic(*topic) {
                Some(Changed::Timeline(num)) => room = Some(num),
                Some(Changed::User(user)) => users.push(user),
                Some(Changed::Devices(user)) => self.lists.write().push(pos, user),
                Some(Changed::KeySignatures(user)) => self.signatures.note(pos, user),
                _ => {}
            }
        }
        if let Some(room) = room
            && !users.is_empty()
        {
            let mut memberships = self.memberships.write();
            for user in users {
                memberships.push(pos, (room, user));
            }
        }
        self.signatures.noted(pos);
        self.noted.fetch_max(pos.0, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::{Pos, REMEMBERED, Recent};

    #[test]
    fn changes_are_known_after_the_floor() {
        let mut recent = Recent::new();
        recent.floor = Pos(10);
        for (pos, change) in [(11, 3), (12, 1), (13, 3)] {
            recent.push(Pos(pos), change);
        }
        let since = |recent: &Recent<u64>, pos| {
            let changes = recent.since(Pos(pos))?;
            Some(changes.into_iter().collect::<Vec<_>>())
        };
        assert_eq!(since(&recent, 9), None);
        assert_eq!(since(&recent, 10), Some(vec![1, 3]));
        assert_eq!(since(&recent, 12), Some(vec![3]));
        assert_eq!(since(&recent, 13), Some(vec![]));
        for pos in 0..REMEMBERED as u64 {
            recent.push(Pos(20 + pos), 7);
        }
        // Of a batch with several changes some may be forgotten.
        assert_eq!(since(&recent, 12), None);
        assert_eq!(since(&recent, 13), Some(vec![7]));
    }
}
