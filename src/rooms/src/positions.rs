//! Where each room's newest change stands, in memory: what a sync compares its token with.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use myelin_data::{
    rooms::{ReceiptsByPos, Timeline},
    topic::Changed,
};
use myelin_store::{Observer, Scan, StoreError, Topic, View};
use myelin_types::{Pos, RoomNum};
use parking_lot::RwLock;

use crate::{Completeness, Rooms};

/// The positions of a room's last changes. At least as new as the view that was given, possibly newer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoomPositions {
    /// Of its last event, or of the batch that made its state whole.
    pub timeline: Pos,
    /// Of its last receipt, public or private; [`Pos::ZERO`] if it has none.
    pub receipts: Pos,
}

#[derive(Default)]
struct Entry {
    timeline: AtomicU64,
    receipts: AtomicU64,
    /// Whether the store was read; until then a zero says nothing.
    loaded: AtomicBool,
}

/// How many of the last changes are remembered one by one, 16 bytes each. Who asks for older ones compares room by room.
const REMEMBERED: usize = 1 << 16;

/// The last changes of all rooms, oldest first. A room stands here as often as it changed.
struct Recent {
    changes: VecDeque<(Pos, RoomNum)>,
    /// Every change after this position is there.
    floor: Pos,
}

impl Recent {
    fn push(&mut self, pos: Pos, room: RoomNum) {
        // A batch names its topics one after the other.
        if self.changes.back() == Some(&(pos, room)) {
            return;
        }
        if self.changes.len() == REMEMBERED
            && let Some((oldest, _)) = self.changes.pop_front()
        {
            self.floor = oldest;
        }
        self.changes.push_back((pos, room));
    }

    /// The rooms that changed after `since`; None if that is not known, or if there are more changes than `most`.
    fn since(&self, since: Pos, most: usize) -> Option<Vec<RoomNum>> {
        if since < self.floor {
            return None;
        }
        let first = self.changes.partition_point(|(pos, _)| *pos <= since);
        if self.changes.len() - first > most {
            return None;
        }
        let changes = self.changes.range(first..);
        let mut rooms: Vec<RoomNum> = changes.map(|(_, room)| *room).collect();
        rooms.sort_unstable();
        rooms.dedup();
        Some(rooms)
    }
}

/// The map behind [`Rooms::positions`]: one small row for each room that was changed or asked for since the start.
pub(crate) struct Positions {
    rooms: RwLock<HashMap<RoomNum, Arc<Entry>>>,
    recent: RwLock<Recent>,
    /// The newest batch that was noted.
    noted: AtomicU64,
}

impl Positions {
    /// Positions that know everything up to `watermark` by the store alone.
    pub(crate) fn new(watermark: Pos) -> Self {
        Self {
            rooms: RwLock::default(),
            recent: RwLock::new(Recent {
                changes: VecDeque::new(),
                floor: watermark,
            }),
            noted: AtomicU64::new(watermark.0),
        }
    }

    fn entry(&self, room: RoomNum) -> Arc<Entry> {
        if let Some(entry) = self.rooms.read().get(&room) {
            return Arc::clone(entry);
        }
        Arc::clone(self.rooms.write().entry(room).or_default())
    }
}

impl Observer for Positions {
    fn committed(&self, pos: Pos, topics: &[Topic]) {
        for topic in topics {
            match Changed::from_topic(*topic) {
                Some(Changed::Timeline(room)) => {
                    self.entry(room).timeline.fetch_max(pos.0, Ordering::SeqCst);
                    self.recent.write().push(pos, room);
                }
                Some(Changed::Receipts(room) | Changed::PrivateReceipts(room)) => {
                    self.entry(room).receipts.fetch_max(pos.0, Ordering::SeqCst);
                    self.recent.write().push(pos, room);
                }
                _ => {}
            }
        }
        self.noted.fetch_max(pos.0, Ordering::SeqCst);
    }
}

impl Rooms {
    /// The rooms whose timeline or receipts may have changed after `since` and up to `view`, ascending. None if there were
    /// more than `most` changes, or if `since` is too long ago to know: then [`Rooms::positions`] tells of each room.
    pub fn changed_since(&self, view: &View, since: Pos, most: usize) -> Option<Vec<RoomNum>> {
        let positions = &self.0.positions;
        // As below: a batch that the view has and that is not noted yet would be missing.
        if positions.noted.load(Ordering::SeqCst) < view.pos().0 {
            return None;
        }
        positions.recent.read().since(since, most)
    }

    /// The positions of a room's last changes. Reads the store once for each room after a restart.
    pub fn positions(&self, view: &View, room: RoomNum) -> Result<RoomPositions, StoreError> {
        let positions = &self.0.positions;
        // The committer publishes a view before it notes the batch here; a view from in between must not be told that
        // nothing has changed.
        if positions.noted.load(Ordering::SeqCst) < view.pos().0 {
            return self.stored_positions(view, room);
        }
        let entry = positions.entry(room);
        if !entry.loaded.load(Ordering::SeqCst) {
            let stored = self.stored_positions(view, room)?;
            entry
                .timeline
                .fetch_max(stored.timeline.0, Ordering::SeqCst);
            entry
                .receipts
                .fetch_max(stored.receipts.0, Ordering::SeqCst);
            entry.loaded.store(true, Ordering::SeqCst);
        }
        Ok(RoomPositions {
            timeline: Pos(entry.timeline.load(Ordering::SeqCst)),
            receipts: Pos(entry.receipts.load(Ordering::SeqCst)),
        })
    }

    fn stored_positions(&self, view: &View, room: RoomNum) -> Result<RoomPositions, StoreError> {
        let timeline = view
            .scan::<Timeline>(Scan::prefix(&room).reverse().limit(1))
            .next()
            .transpose()?
            .map_or(Pos::ZERO, |(_, entry)| entry.pos);
        let receipts = view
            .scan::<ReceiptsByPos>(Scan::prefix(&room).reverse().limit(1))
            .next()
            .transpose()?
            .map_or(Pos::ZERO, |((_, pos, ..), _)| pos);
        // No event goes with the members that came later.
        let whole = match self.completeness(view, room)? {
            Completeness::Since(pos) => pos,
            Completeness::Whole | Completeness::Partial => Pos::ZERO,
        };
        Ok(RoomPositions {
            timeline: timeline.max(whole),
            receipts,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Pos, REMEMBERED, Recent, RoomNum, VecDeque};

    #[test]
    fn changes_are_known_after_the_floor_and_up_to_a_number() {
        let mut recent = Recent {
            changes: VecDeque::new(),
            floor: Pos(10),
        };
        for (pos, room) in [(11, 3), (11, 3), (12, 1), (13, 3)] {
            recent.push(Pos(pos), RoomNum(room));
        }
        assert_eq!(recent.since(Pos(9), 9), None);
        assert_eq!(recent.since(Pos(10), 9), Some(vec![RoomNum(1), RoomNum(3)]));
        assert_eq!(recent.since(Pos(12), 9), Some(vec![RoomNum(3)]));
        assert_eq!(recent.since(Pos(13), 0), Some(vec![]));
        assert_eq!(recent.since(Pos(10), 2), None);

        for pos in 0..REMEMBERED as u64 {
            recent.push(Pos(20 + pos), RoomNum(7));
        }
        assert_eq!(recent.since(Pos(12), usize::MAX), None);
        assert_eq!(recent.since(Pos(13), usize::MAX), Some(vec![RoomNum(7)]));
    }
}
