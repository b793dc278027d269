//! What stands in the inbox, in memory: who waits where, what is due, and how much of everything there is.
//!
//! The index mirrors the table. A row is in it before it is durable, so that its place and its room are reserved, and
//! becomes due when it is durable.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    hash::{BuildHasher, RandomState},
};

use myelin_types::{Millis, RoomNum};
use ruma::{OwnedServerName, ServerName};

/// So many events, of so many bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// How many events.
    pub events: usize,
    /// The bytes of their texts.
    pub bytes: usize,
}

impl Load {
    fn add(&mut self, bytes: usize) {
        self.events += 1;
        self.bytes += bytes;
    }

    fn remove(&mut self, bytes: usize) {
        self.events = self.events.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    fn exceeds(self, limit: Load) -> bool {
        self.events > limit.events || self.bytes > limit.bytes
    }
}

/// How much may wait. Whoever would make it more is told to come again; nothing that waits is thrown away for him.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InboxLimits {
    /// In one room.
    pub room: Load,
    /// From one server.
    pub origin: Load,
    /// In all.
    pub total: Load,
}

impl Default for InboxLimits {
    /// Hours of a busy room; what waits in memory takes some 200 bytes an event, so at most 10 MB.
    fn default() -> Self {
        Self {
            room: Load {
                events: 10_000,
                bytes: 64 << 20,
            },
            origin: Load {
                events: 10_000,
                bytes: 64 << 20,
            },
            total: Load {
                events: 50_000,
                bytes: 512 << 20,
            },
        }
    }
}

/// A row as the index knows it.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) origin: OwnedServerName,
    pub(super) print: u64,
    pub(super) bytes: usize,
    /// None while the row is not durable.
    pub(super) due: Option<Millis>,
    pub(super) attempts: u32,
}

/// What waits in one room, in the order in which it came.
#[derive(Debug, Default)]
struct Lane {
    entries: BTreeMap<u64, Entry>,
    prints: HashMap<u64, u64>,
    load: Load,
    /// Somebody works on it.
    busy: bool,
    /// Under which time it is queued.
    queued: Option<Millis>,
}

impl Lane {
    fn next_due(&self) -> Option<Millis> {
        self.entries.values().filter_map(|entry| entry.due).min()
    }
}

/// The index.
#[derive(Debug)]
pub(super) struct Index {
    limits: InboxLimits,
    lanes: HashMap<RoomNum, Lane>,
    origins: HashMap<OwnedServerName, Load>,
    total: Load,
    /// Rooms nobody works on, by when something of them is due.
    due: BTreeSet<(Millis, RoomNum)>,
    next: u64,
    /// Its keys are this process's own, so that nobody can make two texts that look the same to it.
    prints: RandomState,
}

/// A place in the inbox that was given to an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reserved {
    pub(super) room: RoomNum,
    pub(super) seq: u64,
}

/// Something is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

impl Index {
    pub(super) fn new(limits: InboxLimits) -> Self {
        Self {
            limits,
            lanes: HashMap::new(),
            origins: HashMap::new(),
            total: Load::default(),
            due: BTreeSet::new(),
            next: 0,
            prints: RandomState::new(),
        }
    }

    /// What makes a text this text. The id alone does not: of two texts with the same id one may be a forgery whose
    /// signatures do not verify, and must not keep the other one out.
    pub(super) fn print(&self, event_id: &str, json: &str) -> u64 {
        self.prints.hash_one((event_id, json))
    }

    /// Puts in a row that the store has.
    pub(super) fn restore(&mut self, room: RoomNum, seq: u64, entry: Entry) {
        self.next = self.next.max(seq + 1);
        self.insert(room, seq, entry);
        self.queue(room);
    }

    /// Reserves places for events of one server; those that wait already get none and are due at once. All of them, or
    /// none if something would be too full.
    pub(super) fn reserve(
        &mut self,
        origin: &ServerName,
        events: &[(RoomNum, u64, usize)],
        now: Millis,
    ) -> Result<Vec<Option<Reserved>>, Full> {
        let mut reserved = Vec::with_capacity(events.len());
        for (room, print, bytes) in events.iter().copied() {
            let lane = self.lanes.get(&room);
            if let Some(seq) = lane.and_then(|lane| lane.prints.get(&print).copied()) {
                self.hasten(room, seq, now);
                reserved.push(None);
                continue;
            }
            let seq = self.next;
            self.next += 1;
            let entry = Entry {
                origin: origin.to_owned(),
                print,
                bytes,
                due: None,
                attempts: 0,
            };
            self.insert(room, seq, entry);
            reserved.push(Some(Reserved { room, seq }));
            if self.is_full(room, origin) {
                for place in reserved.into_iter().flatten() {
                    self.remove(place.room, place.seq);
                }
                return Err(Full);
            }
        }
        Ok(reserved)
    }

    fn is_full(&self, room: RoomNum, origin: &ServerName) -> bool {
        let lane = self.lanes.get(&room).map(|lane| lane.load);
        let origin = self.origins.get(origin).copied();
        lane.is_some_and(|load| load.exceeds(self.limits.room))
            || origin.is_some_and(|load| load.exceeds(self.limits.origin))
            || self.total.exceeds(self.limits.total)
    }

    fn insert(&mut self, room: RoomNum, seq: u64, entry: Entry) {
        self.total.add(entry.bytes);
        let of_origin = self.origins.entry(entry.origin.clone()).or_default();
        of_origin.add(entry.bytes);
        let lane = self.lanes.entry(room).or_default();
        lane.load.add(entry.bytes);
        lane.prints.insert(entry.print, seq);
        lane.entries.insert(seq, entry);
    }

    /// Lets a row go.
    pub(super) fn remove(&mut self, room: RoomNum, seq: u64) {
        let Some(lane) = self.lanes.get_mut(&room) else {
            return;
        };
        let Some(entry) = lane.entries.remove(&seq) else {
            return;
        };
        if lane.prints.get(&entry.print) == Some(&seq) {
            lane.prints.remove(&entry.print);
        }
        lane.load.remove(entry.bytes);
        self.total.remove(entry.bytes);
        if let Some(load) = self.origins.get_mut(&entry.origin) {
            load.remove(entry.bytes);
            if load.events == 0 {
                self.origins.remove(&entry.origin);
            }
        }
        self.queue(room);
    }

    /// Makes a row due: it is durable, or was tried in vain.
    pub(super) fn set_due(&mut self, room: RoomNum, seq: u64, due: Millis, attempts: u32) {
        let lane = self.lanes.get_mut(&room);
        if let Some(entry) = lane.and_then(|lane| lane.entries.get_mut(&seq)) {
            entry.due = Some(due);
            entry.attempts = attempts;
        }
        self.queue(room);
    }

    /// An event that waits came again: whatever was missing may be there now.
    fn hasten(&mut self, room: RoomNum, seq: u64, now: Millis) {
        let lane = self.lanes.get_mut(&room);
        if let Some(entry) = lane.and_then(|lane| lane.entries.get_mut(&seq))
            && let Some(due) = &mut entry.due
        {
            *due = now.min(*due);
        }
        self.queue(room);
    }

    /// Queues a room anew, after what waits in it has changed. Rooms in which nothing waits are forgotten.
    fn queue(&mut self, room: RoomNum) {
        let Some(lane) = self.lanes.get_mut(&room) else {
            return;
        };
        if let Some(queued) = lane.queued.take() {
            self.due.remove(&(queued, room));
        }
        if lane.busy {
            return;
        }
        if lane.entries.is_empty() {
            self.lanes.remove(&room);
        } else if let Some(due) = lane.next_due() {
            lane.queued = Some(due);
            self.due.insert((due, room));
        }
    }

    /// A room in which something is due and nobody works; now somebody does.
    pub(super) fn claim(&mut self, now: Millis) -> Option<RoomNum> {
        let (at, room) = self.due.first().copied()?;
        if at > now {
            return None;
        }
        if let Some(lane) = self.lanes.get_mut(&room) {
            lane.busy = true;
        }
        self.queue(room);
        Some(room)
    }

    /// Nobody works on the room any more.
    pub(super) fn release(&mut self, room: RoomNum) {
        if let Some(lane) = self.lanes.get_mut(&room) {
            lane.busy = false;
        }
        self.queue(room);
    }

    /// The oldest rows of a room that are due, as far as they are of one server, at most `most`. One that was tried before
    /// comes alone: it must not spoil the others' try.
    pub(super) fn due_of(&self, room: RoomNum, now: Millis, most: usize) -> Vec<u64> {
        let Some(lane) = self.lanes.get(&room) else {
            return Vec::new();
        };
        let mut due = lane
            .entries
            .iter()
            .filter(|(_, entry)| entry.due.is_some_and(|due| due <= now));
        let Some((first, entry)) = due.next() else {
            return Vec::new();
        };
        let mut taken = vec![*first];
        if entry.attempts == 0 {
            let same =
                due.take_while(|(_, other)| other.origin == entry.origin && other.attempts == 0);
            taken.extend(same.map(|(seq, _)| *seq).take(most.saturating_sub(1)));
        }
        taken
    }

    /// How often the row was tried in vain.
    pub(super) fn attempts(&self, room: RoomNum, seq: u64) -> u32 {
        let lane = self.lanes.get(&room);
        lane.and_then(|lane| lane.entries.get(&seq))
            .map_or(0, |entry| entry.attempts)
    }

    /// How much waits in all.
    pub(super) fn total(&self) -> Load {
        self.total
    }

    /// How much waits in the room in which most does.
    pub(super) fn deepest(&self) -> usize {
        let depths = self.lanes.values().map(|lane| lane.load.events);
        depths.max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ruma::owned_server_name;

    use super::*;

    const ROOM: RoomNum = RoomNum(1);
    const NOW: Millis = Millis(1_000);

    fn small() -> InboxLimits {
        let load = |events| Load {
            events,
            bytes: 10 * events,
        };
        InboxLimits {
            room: load(3),
            origin: load(4),
            total: load(6),
        }
    }

    fn put(index: &mut Index, origin: &ServerName, room: RoomNum, print: u64) -> Option<u64> {
        let reserved = index.reserve(origin, &[(room, print, 10)], NOW).ok()?;
        let place = reserved[0]?;
        index.set_due(room, place.seq, NOW, 0);
        Some(place.seq)
    }

    #[test]
    fn the_same_event_waits_once_and_what_is_refused_leaves_nothing_behind() {
        let (a, b) = (owned_server_name!("a.org"), owned_server_name!("b.org"));
        let mut index = Index::new(small());
        let first = put(&mut index, &a, ROOM, 1).expect("there is room");
        assert_eq!(put(&mut index, &b, ROOM, 1), None, "it waits already");
        put(&mut index, &a, ROOM, 2);
        // Two more: one fits into the room, so neither is taken.
        let two = [(ROOM, 3, 10), (ROOM, 4, 10)];
        assert_eq!(index.reserve(&a, &two, NOW), Err(Full));
        assert_eq!(
            index.total(),
            Load {
                events: 2,
                bytes: 20
            }
        );
        let other = RoomNum(2);
        assert!(
            index
                .reserve(&a, &[(other, 5, 10), (other, 6, 10)], NOW)
                .is_ok()
        );
        assert_eq!(
            index.reserve(&a, &[(other, 7, 10)], NOW),
            Err(Full),
            "of one server"
        );
        assert!(index.reserve(&b, &[(other, 7, 10)], NOW).is_ok());
        let third = RoomNum(3);
        assert!(index.reserve(&b, &[(third, 8, 10)], NOW).is_ok());
        assert_eq!(
            index.reserve(&b, &[(third, 9, 10)], NOW),
            Err(Full),
            "in all"
        );
        index.remove(ROOM, first);
        assert!(index.reserve(&b, &[(third, 9, 10)], NOW).is_ok());
        assert_eq!(index.deepest(), 3);
    }

    #[test]
    fn a_room_has_one_worker_and_comes_up_when_something_is_due() {
        let a = owned_server_name!("a.org");
        let mut index = Index::new(InboxLimits::default());
        let place = index.reserve(&a, &[(ROOM, 1, 10)], NOW).expect("room")[0].expect("new");
        assert_eq!(index.claim(NOW), None, "it is not durable");
        index.set_due(ROOM, place.seq, NOW, 0);
        assert_eq!(index.claim(NOW), Some(ROOM));
        let second = put(&mut index, &a, ROOM, 2).expect("there is room");
        assert_eq!(index.claim(NOW), None, "somebody works on it");
        assert_eq!(index.due_of(ROOM, NOW, 50), [place.seq, second]);
        // The first one has to wait.
        index.set_due(ROOM, place.seq, Millis(2_000), 1);
        assert_eq!(index.due_of(ROOM, NOW, 50), [second]);
        index.remove(ROOM, second);
        index.release(ROOM);
        assert_eq!(index.claim(NOW), None);
        // It comes again, and with it the hope that it can be judged.
        assert_eq!(index.reserve(&a, &[(ROOM, 1, 10)], NOW), Ok(vec![None]));
        assert_eq!(index.claim(NOW), Some(ROOM));
        index.remove(ROOM, place.seq);
        index.release(ROOM);
        assert!(index.lanes.is_empty() && index.origins.is_empty() && index.due.is_empty());
    }

    #[test]
    fn a_batch_is_of_one_server() {
        let (a, b) = (owned_server_name!("a.org"), owned_server_name!("b.org"));
        let mut index = Index::new(InboxLimits::default());
        let seqs: Vec<u64> = [(&a, 1), (&a, 2), (&b, 3), (&a, 4)]
            .into_iter()
            .filter_map(|(origin, print)| put(&mut index, origin, ROOM, print))
            .collect();
        assert_eq!(index.due_of(ROOM, NOW, 50), seqs[..2]);
        assert_eq!(index.due_of(ROOM, NOW, 1), seqs[..1]);
        index.set_due(ROOM, seqs[0], NOW, 1);
        assert_eq!(index.due_of(ROOM, NOW, 50), seqs[..1], "alone");
    }

    proptest! {
        /// Whatever happens, the sums are those of the entries, and every room in which something is due is found.
        #[test]
        fn the_sums_agree(steps in prop::collection::vec((0_u8..5, 0_u32..3, 0_u64..6), 0..80)) {
            let origins = [owned_server_name!("a.org"), owned_server_name!("b.org")];
            let mut index = Index::new(small());
            let mut places: Vec<(RoomNum, u64)> = Vec::new();
            for (what, room, number) in steps {
                let room = RoomNum(room);
                let pick = usize::try_from(number).unwrap_or(0);
                match what {
                    0 | 1 => {
                        let origin = &origins[usize::from(what)];
                        places.extend(put(&mut index, origin, room, number).map(|seq| (room, seq)));
                    }
                    2 if pick < places.len() => {
                        let (room, seq) = places.remove(pick);
                        index.remove(room, seq);
                    }
                    3 if pick < places.len() => {
                        let (room, seq) = places[pick];
                        index.set_due(room, seq, Millis(number * 1_000), 1);
                    }
                    _ => {
                        if let Some(room) = index.claim(NOW) {
                            index.release(room);
                        }
                    }
                }
                let events: usize = index.lanes.values().map(|lane| lane.entries.len()).sum();
                let loads: usize = index.lanes.values().map(|lane| lane.load.events).sum();
                let origins: usize = index.origins.values().map(|load| load.events).sum();
                prop_assert_eq!(events, places.len());
                prop_assert_eq!([index.total().events, loads, origins], [events; 3]);
                for (room, lane) in &index.lanes {
                    let due = lane.next_due().expect("all are durable");
                    prop_assert!(index.due.contains(&(due, *room)));
                }
                prop_assert_eq!(index.due.len(), index.lanes.len());
            }
        }
    }
}
