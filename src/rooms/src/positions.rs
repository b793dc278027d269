//! Where each room's newest change stands, in memory: what a sync compares its token with.

use std::{
    collections::HashMap,
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

use crate::Rooms;

/// The positions of a room's last changes. At least as new as the view that was given, possibly newer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoomPositions {
    /// Of its last event.
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

/// The map behind [`Rooms::positions`]: one small row for each room that was changed or asked for since the start.
pub(crate) struct Positions {
    rooms: RwLock<HashMap<RoomNum, Arc<Entry>>>,
    /// The newest batch that was noted.
    noted: AtomicU64,
}

impl Positions {
    /// Positions that know everything up to `watermark` by the store alone.
    pub(crate) fn new(watermark: Pos) -> Self {
        Self {
            rooms: RwLock::default(),
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
                }
                Some(Changed::Receipts(room) | Changed::PrivateReceipts(room)) => {
                    self.entry(room).receipts.fetch_max(pos.0, Ordering::SeqCst);
                }
                _ => {}
            }
        }
        self.noted.fetch_max(pos.0, Ordering::SeqCst);
    }
}

impl Rooms {
    /// The positions of a room's last changes. Reads the store once for each room after a restart.
    pub fn positions(&self, view: &View, room: RoomNum) -> Result<RoomPositions, StoreError> {
        let positions = &self.0.positions;
        // The committer publishes a view before it notes the batch here; a view from in between must not be told that
        // nothing has changed.
        if positions.noted.load(Ordering::SeqCst) < view.pos().0 {
            return stored(view, room);
        }
        let entry = positions.entry(room);
        if !entry.loaded.load(Ordering::SeqCst) {
            let stored = stored(view, room)?;
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
}

fn stored(view: &View, room: RoomNum) -> Result<RoomPositions, StoreError> {
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
    Ok(RoomPositions { timeline, receipts })
}
