//! The rooms that are being written to, or were lately: one lock and one decoded head for each.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use myelin_types::RoomNum;
use parking_lot::Mutex;

use super::layer::Layer;
use crate::{RoomHandle, head::RoomState};

/// A room in memory.
pub(crate) struct Slot {
    pub(crate) handle: RoomHandle,
    pub(crate) state: Arc<tokio::sync::Mutex<SlotState>>,
    last_used: AtomicU64,
}

/// What the room's lock protects.
#[derive(Default)]
pub(crate) struct SlotState {
    /// Grows when the head is thrown away, so that of several failed batches only the first does it.
    pub(crate) epoch: u64,
    /// The pending head: what the next event builds on. None until it is read from the store.
    pub(crate) head: Option<RoomState>,
    /// The layers of batches that were queued, oldest first.
    pending: VecDeque<(Arc<AtomicBool>, Arc<Layer>)>,
}

impl SlotState {
    /// Adds the layer of a batch that was queued. The flag is to be set when it is durable.
    pub(crate) fn push(&mut self, layer: Arc<Layer>) -> Arc<AtomicBool> {
        let durable = Arc::new(AtomicBool::new(false));
        if !layer.is_empty() {
            self.pending.push_back((Arc::clone(&durable), layer));
        }
        durable
    }

    /// The layers that are not durable yet.
    pub(crate) fn layers(&mut self) -> Vec<Arc<Layer>> {
        self.pending
            .retain(|(durable, _)| !durable.load(Ordering::SeqCst));
        self.pending
            .iter()
            .map(|(_, layer)| Arc::clone(layer))
            .collect()
    }

    /// Throws away what was built on a batch that failed.
    pub(crate) fn reset(&mut self) {
        self.epoch += 1;
        self.head = None;
        self.pending.clear();
    }
}

/// The slots by room. A slot that somebody holds (a writer, a waiter, a batch on its way) is never evicted; of the
/// others the least recently used go when there are more than `idle`.
pub(crate) struct Slots {
    by_room: Mutex<HashMap<RoomNum, Arc<Slot>>>,
    ticks: AtomicU64,
    idle: usize,
}

impl Slots {
    pub(crate) fn new(idle: usize) -> Self {
        Self {
            by_room: Mutex::default(),
            ticks: AtomicU64::new(0),
            idle: idle.max(1),
        }
    }

    /// The slot of a room.
    pub(crate) fn get(&self, handle: &RoomHandle) -> Arc<Slot> {
        let tick = self.ticks.fetch_add(1, Ordering::Relaxed);
        let mut slots = self.by_room.lock();
        if let Some(slot) = slots.get(&handle.num) {
            slot.last_used.store(tick, Ordering::Relaxed);
            return Arc::clone(slot);
        }
        // A quarter over the limit before anything is done, so that eviction is rare and its sorting pays off.
        if slots.len() > self.idle + self.idle / 4 {
            evict(&mut slots, self.idle);
        }
        let slot = Arc::new(Slot {
            handle: handle.clone(),
            state: Arc::default(),
            last_used: AtomicU64::new(tick),
        });
        slots.insert(handle.num, Arc::clone(&slot));
        slot
    }
}

fn evict(slots: &mut HashMap<RoomNum, Arc<Slot>>, keep: usize) {
    let mut idle: Vec<(u64, RoomNum)> = slots
        .iter()
        .filter(|(_, slot)| Arc::strong_count(slot) == 1)
        .map(|(room, slot)| (slot.last_used.load(Ordering::Relaxed), *room))
        .collect();
    idle.sort_unstable();
    let excess = slots.len().saturating_sub(keep);
    for (_, room) in idle.into_iter().take(excess) {
        slots.remove(&room);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use myelin_data::rooms::Room;
    use myelin_rules::RoomVersion;
    use myelin_types::{Millis, RoomNum};

    use super::Slots;
    use crate::RoomHandle;

    fn handle(num: u32) -> RoomHandle {
        let version = RoomVersion::V11;
        RoomHandle {
            num: RoomNum(num),
            version,
            room: Arc::new(Room {
                room_id: format!("!{num}:here.org"),
                version: version.to_string(),
                created_at: Millis(0),
            }),
        }
    }

    #[test]
    fn held_slots_stay_and_the_least_recently_used_go() {
        let slots = Slots::new(4);
        let held = slots.get(&handle(0));
        for num in 1..100 {
            slots.get(&handle(num));
        }
        let rooms = slots.by_room.lock();
        assert!(rooms.len() <= 6);
        assert!(rooms.contains_key(&RoomNum(99)));
        assert!(!rooms.contains_key(&RoomNum(1)));
        assert!(
            rooms
                .get(&RoomNum(0))
                .is_some_and(|slot| Arc::ptr_eq(slot, &held))
        );
    }
}
