//! What a destination has missed, from the timelines of the rooms that it is or was in: complete, in order, a transaction
//! at a time.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, BinaryHeap, binary_heap::PeekMut},
};

use myelin_data::{
    rooms::{Place, Timeline},
    servers::{RoomServers, Stay},
};
use myelin_rooms::{Rooms, read::RoomView};
use myelin_store::{Scan, StoreError, View};
use myelin_types::{Pos, RoomNum};
use ruma::{OwnedServerName, ServerName};

use super::{
    book::{At, Item, LISTS_AT_ONCE, Sent},
    durable::ListNews,
    lists,
};

/// A walk through the timelines of a destination's rooms, merged by position. About 100 bytes a room in which there is
/// something.
pub(super) struct CatchUp {
    server: OwnedServerName,
    /// From where it goes, and up to where: the position of the view in which it began.
    from: Pos,
    through: Pos,
    rooms: Vec<Lane>,
    /// The next event of each room that has one, and the room's index above.
    next: BinaryHeap<Reverse<(Item, usize)>>,
    /// The rooms in which it is.
    shared: BTreeSet<RoomNum>,
    /// Up to where changes of device lists have been told; none when all are.
    lists: Option<Pos>,
}

/// One room of the walk.
struct Lane {
    room: RoomNum,
    stays: Vec<Stay>,
    /// Where to look for the next event.
    place: Place,
    /// The position last seen, and how many events of it.
    seen: (Pos, u32),
}

impl CatchUp {
    /// The walk from a position on. Blocks.
    pub(super) fn open(
        rooms: &Rooms,
        view: &View,
        server: &ServerName,
        from: Pos,
    ) -> Result<Self, StoreError> {
        let mut walk = Self {
            server: server.to_owned(),
            from,
            through: view.pos(),
            rooms: Vec::new(),
            next: BinaryHeap::new(),
            shared: BTreeSet::new(),
            lists: Some(from),
        };
        let name = server.as_str().to_owned();
        let nums = rooms.rooms_of_server(view, server)?;
        let keys: Vec<_> = nums.iter().map(|room| (*room, name.clone())).collect();
        let rows = view.multi_get::<RoomServers>(&keys)?;
        for (room, row) in nums.into_iter().zip(rows) {
            let Some(row) = row else { continue };
            if row.joined > 0 {
                walk.shared.insert(room);
            }
            if rooms.positions(view, room)?.timeline <= from {
                continue;
            }
            let last = RoomView::open(rooms, view, room)?.last_through(from)?;
            let mut lane = Lane {
                room,
                stays: row.stays,
                place: last.map_or(Place::START, |(place, _)| place.next()),
                seen: (Pos::ZERO, 0),
            };
            if let Some(item) = lane.advance(rooms, view, server, walk.through)? {
                walk.next.push(Reverse((item, walk.rooms.len())));
                walk.rooms.push(lane);
            }
        }
        Ok(walk)
    }

    /// Up to where the walk goes.
    pub(super) fn through(&self) -> Pos {
        self.through
    }

    /// The next device lists that were changed and that the destination is to hear of; none when all have been told. They
    /// come before the events, so that its position passes none of them. Blocks.
    pub(super) fn next_lists(
        &mut self,
        rooms: &Rooms,
        view: &View,
    ) -> Result<Vec<ListNews>, StoreError> {
        let mut news = Vec::new();
        while news.len() < LISTS_AT_ONCE
            && let Some(after) = self.lists
        {
            // One position at a time, since each may be several lists.
            let changed = lists::changed_between(rooms, view, after, self.through, 1)?;
            self.lists = changed.last.filter(|_| changed.more);
            for (pos, user) in changed.users {
                let rooms_of = lists::rooms_of(view, user)?;
                if rooms_of.iter().any(|room| self.shared.contains(room)) {
                    news.push(ListNews::changed(user, pos));
                }
            }
        }
        // What the destination has of a list is known by its position, not by that of the list's last change.
        for news in &mut news {
            news.from = Pos(self.from.0 + 1);
        }
        Ok(news)
    }

    /// The next events, at most so many; none at the end. Blocks.
    pub(super) fn next(
        &mut self,
        rooms: &Rooms,
        view: &View,
        most: usize,
    ) -> Result<Sent, StoreError> {
        let mut items = Vec::new();
        while items.len() < most
            && let Some(mut first) = self.next.peek_mut()
        {
            let Reverse((item, index)) = *first;
            items.push(item);
            let lane = &mut self.rooms[index];
            match lane.advance(rooms, view, &self.server, self.through)? {
                Some(item) => *first = Reverse((item, index)),
                None => drop(PeekMut::pop(first)),
            }
        }
        let next = self.next.peek().map(|Reverse((item, _))| item);
        let mut sent = Sent::before(items, next);
        if next.is_none() {
            sent.through = self.through;
        }
        Ok(sent)
    }
}

impl Lane {
    /// The next event of the room that is for the destination.
    fn advance(
        &mut self,
        rooms: &Rooms,
        view: &View,
        server: &ServerName,
        through: Pos,
    ) -> Result<Option<Item>, StoreError> {
        let rest = Scan::prefix(&self.room).from(&(self.room, self.place));
        for row in view.scan::<Timeline>(rest) {
            let ((_, place), entry) = row?;
            // History that was filled in later is nothing that happened.
            if place.is_filled_in() {
                continue;
            }
            if entry.pos > through {
                return Ok(None);
            }
            self.place = place.next();
            let index = match self.seen {
                (pos, count) if pos == entry.pos => count,
                _ => 0,
            };
            self.seen = (entry.pos, index + 1);
            if !entry.traits.outgoing || !self.stays.iter().any(|stay| stay.includes(entry.pos)) {
                continue;
            }
            let sender = rooms.interner().user_id(view, entry.sender)?;
            if sender.server_name() == server {
                continue;
            }
            return Ok(Some(Item {
                at: At {
                    pos: entry.pos,
                    index,
                },
                room: self.room,
                event: entry.event,
            }));
        }
        Ok(None)
    }
}
