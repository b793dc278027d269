//! One room as one view of the store has it.

use std::sync::{Arc, OnceLock};

use myelin_data::rooms::{Head, Heads, Membership, Place, Timeline, TimelineEntry};
use myelin_state::{Change, Entry, Root, TreeError};
use myelin_store::{Scan, StoreError, View};
use myelin_types::{EventNum, Pos, RoomNum, StateKeyNum};
use ruma::{EventId, RoomId, UserId};

use crate::{Event, RoomHandle, Rooms, head::FIRST_SEGMENT};

/// A room, read from one view. Remembers its head and the last entry of its timeline.
#[derive(Clone)]
pub struct RoomView<'a> {
    rooms: &'a Rooms,
    view: &'a View,
    handle: RoomHandle,
    head: OnceLock<Option<Head>>,
    last: OnceLock<Option<(Place, TimelineEntry)>>,
}

impl<'a> RoomView<'a> {
    /// The room of a number.
    pub fn open(rooms: &'a Rooms, view: &'a View, room: RoomNum) -> Result<Self, StoreError> {
        Ok(Self::of(rooms, view, rooms.handle(view, room)?))
    }

    /// The room of an id, if the server knows it.
    pub fn find(
        rooms: &'a Rooms,
        view: &'a View,
        room: &RoomId,
    ) -> Result<Option<Self>, StoreError> {
        let handle = rooms.find(view, room)?;
        Ok(handle.map(|handle| Self::of(rooms, view, handle)))
    }

    fn of(rooms: &'a Rooms, view: &'a View, handle: RoomHandle) -> Self {
        Self {
            rooms,
            view,
            handle,
            head: OnceLock::new(),
            last: OnceLock::new(),
        }
    }

    /// The room's number.
    pub fn num(&self) -> RoomNum {
        self.handle.num
    }

    /// The room's id.
    pub fn room_id(&self) -> &RoomId {
        self.handle.room_id()
    }

    /// All rooms.
    pub fn rooms(&self) -> &'a Rooms {
        self.rooms
    }

    /// The view.
    pub fn view(&self) -> &'a View {
        self.view
    }

    /// The room's head, if it has any event.
    pub fn head(&self) -> Result<Option<&Head>, StoreError> {
        if let Some(head) = self.head.get() {
            return Ok(head.as_ref());
        }
        let head = self.view.get::<Heads>(&self.num())?;
        Ok(self.head.get_or_init(|| head).as_ref())
    }

    /// The root of the current state.
    pub fn current(&self) -> Result<Root, StoreError> {
        Ok(self.head()?.map_or(Root::EMPTY, Head::root))
    }

    /// An event that something in this room refers to.
    pub fn event(&self, event: EventNum) -> Result<Arc<Event>, StoreError> {
        self.rooms
            .event(self.view, self.num(), event)?
            .ok_or(StoreError::Missing("events"))
    }

    /// Events that something in this room refers to, in the order asked for.
    pub fn events(&self, events: &[EventNum]) -> Result<Vec<Arc<Event>>, StoreError> {
        let found = self.rooms.events(self.view, self.num(), events)?;
        found
            .into_iter()
            .map(|event| event.ok_or(StoreError::Missing("events")))
            .collect()
    }

    /// The event of an id, if this room has it.
    pub fn event_by_id(&self, event_id: &EventId) -> Result<Option<Arc<Event>>, StoreError> {
        match self.rooms.event_num(self.view, self.num(), event_id)? {
            Some(num) => self.rooms.event(self.view, self.num(), num),
            None => Ok(None),
        }
    }

    /// The last entry of the timeline.
    pub fn last(&self) -> Result<Option<(Place, TimelineEntry)>, StoreError> {
        if let Some(last) = self.last.get() {
            return Ok(*last);
        }
        let last = match self.head()? {
            Some(head) => self.at(head.last)?.map(|entry| (head.last, entry)),
            None => None,
        };
        Ok(*self.last.get_or_init(|| last))
    }

    /// The last entry before a place.
    pub fn last_before(&self, place: Place) -> Result<Option<(Place, TimelineEntry)>, StoreError> {
        if let Some(Some(last)) = self.last.get()
            && last.0 < place
        {
            return Ok(Some(*last));
        }
        // Indexes mostly follow one another, and to look a row up is much cheaper than to walk to it.
        if let Some(index) = place.index.checked_sub(1) {
            let before = Place { index, ..place };
            if let Some(entry) = self.at(before)? {
                return Ok(Some((before, entry)));
            }
        } else if place.segment <= FIRST_SEGMENT {
            return Ok(None);
        }
        let scan = Scan::prefix(&self.num())
            .until(&(self.num(), place))
            .reverse()
            .limit(1);
        let last = self.view.scan::<Timeline>(scan).next().transpose()?;
        Ok(last.map(|((_, place), entry)| (place, entry)))
    }

    /// The first entry at a place or after it.
    pub fn first_from(&self, place: Place) -> Result<Option<(Place, TimelineEntry)>, StoreError> {
        if let Some(entry) = self.at(place)? {
            return Ok(Some((place, entry)));
        }
        let scan = Scan::prefix(&self.num())
            .from(&(self.num(), place))
            .limit(1);
        let first = self.view.scan::<Timeline>(scan).next().transpose()?;
        Ok(first.map(|((_, place), entry)| (place, entry)))
    }

    fn at(&self, place: Place) -> Result<Option<TimelineEntry>, StoreError> {
        self.view.get::<Timeline>(&(self.num(), place))
    }

    /// The last entry of the timeline that was there at a position.
    ///
    /// Searched from the end in growing steps: the cost is logarithmic in the number of events since then.
    pub fn last_through(&self, pos: Pos) -> Result<Option<(Place, TimelineEntry)>, StoreError> {
        let mut last = self.last()?;
        while let Some((place, entry)) = last {
            if entry.pos <= pos {
                return Ok(last);
            }
            if let Some(found) = self.last_of_segment(place, pos)? {
                return Ok(Some(found));
            }
            // The whole segment was opened later.
            last = self.last_before(Place {
                index: i64::MIN,
                ..place
            })?;
        }
        Ok(None)
    }

    /// The last entry of the segment of `end` with a position up to `pos`, which the one at `end` does not have. Entries
    /// with negative indexes were filled in later than the segment was opened, and do not count.
    fn last_of_segment(
        &self,
        end: Place,
        pos: Pos,
    ) -> Result<Option<(Place, TimelineEntry)>, StoreError> {
        let mut high = end.index;
        let mut step = 1;
        let mut low = loop {
            if high <= 0 {
                return Ok(None);
            }
            let index = high.saturating_sub(step).max(0);
            match self.last_before(Place { index, ..end }.next())? {
                Some((place, entry)) if place.segment == end.segment && place.index >= 0 => {
                    if entry.pos <= pos {
                        break (place, entry);
                    }
                    high = place.index;
                }
                _ => return Ok(None),
            }
            step *= 2;
        };
        while high - low.0.index > 1 {
            let index = low.0.index + (high - low.0.index) / 2;
            match self.last_before(Place { index, ..end }.next())? {
                Some(found) if found.1.pos > pos => high = found.0.index,
                Some(found) if found.0.index > low.0.index => low = found,
                // Nothing lies between `low` and `index`.
                _ => high = index,
            }
            high = high.max(low.0.index + 1);
        }
        Ok(Some(low))
    }

    /// The point of the timeline that was its end at a position, and the room's state there. None if the room was not
    /// known then.
    pub fn end_at(&self, pos: Pos) -> Result<Option<(Place, Root)>, StoreError> {
        match self.last_through(pos)? {
            Some((place, entry)) => Ok(Some((place.next(), self.state_after(entry.event)?))),
            None => Ok(None),
        }
    }

    /// The root of the state at a position.
    pub fn state_at(&self, pos: Pos) -> Result<Root, StoreError> {
        Ok(self.end_at(pos)?.map_or(Root::EMPTY, |(_, state)| state))
    }

    /// The root of the state before what stands at `place` or follows it.
    ///
    /// Within a segment that is the state after the entry before. Where a segment begins, what happened in the gap before
    /// it is not in the timeline, and the first event knows its state.
    pub fn state_before(&self, place: Place) -> Result<Root, StoreError> {
        let before = self.last_before(place)?;
        let next = self.first_from(place)?;
        match (before, next) {
            (Some((before, entry)), Some((next, _))) if before.segment == next.segment => {
                self.state_after(entry.event)
            }
            (_, Some((_, next))) => Ok(self.event(next.event)?.header.before()),
            (Some((_, entry)), None) => self.state_after(entry.event),
            (None, None) => Ok(Root::EMPTY),
        }
    }

    /// The room's state after an event of the timeline, with what other branches of its history say.
    fn state_after(&self, event: EventNum) -> Result<Root, StoreError> {
        Ok(self.event(event)?.header.current())
    }

    /// One entry of a state.
    pub fn state_entry(
        &self,
        state: Root,
        event_type: &str,
        state_key: &str,
    ) -> Result<Option<EventNum>, StoreError> {
        let key = self
            .rooms
            .interner()
            .find_state_key(self.view, event_type, state_key)?;
        match key {
            Some(key) => self.state_num(state, key),
            None => Ok(None),
        }
    }

    /// One entry of a state, by the number of its key.
    pub fn state_num(&self, state: Root, key: StateKeyNum) -> Result<Option<EventNum>, StoreError> {
        myelin_state::get(&self.rooms.nodes(self.view, self.num()), state, key).map_err(tree)
    }

    /// Entries of a state, by the numbers of their keys.
    pub fn state_nums(
        &self,
        state: Root,
        keys: &[StateKeyNum],
    ) -> Result<Vec<Option<EventNum>>, StoreError> {
        myelin_state::get_many(&self.rooms.nodes(self.view, self.num()), state, keys).map_err(tree)
    }

    /// All entries of a state.
    pub fn state_entries(&self, state: Root) -> Result<Vec<Entry>, StoreError> {
        let all = StateKeyNum(0)..=StateKeyNum(u32::MAX);
        myelin_state::range(&self.rooms.nodes(self.view, self.num()), state, all).map_err(tree)
    }

    /// The entries of a state that are no memberships.
    pub fn state_without_members(&self, state: Root) -> Result<Vec<Entry>, StoreError> {
        let others = StateKeyNum(0)..=StateKeyNum(StateKeyNum::MEMBER_BIT - 1);
        myelin_state::range(&self.rooms.nodes(self.view, self.num()), state, others).map_err(tree)
    }

    /// The memberships of a state.
    pub fn member_entries(&self, state: Root) -> Result<Vec<Entry>, StoreError> {
        let members = StateKeyNum::FIRST_MEMBER..=StateKeyNum::LAST_MEMBER;
        myelin_state::range(&self.rooms.nodes(self.view, self.num()), state, members).map_err(tree)
    }

    /// What differs between two states.
    pub fn state_diff(&self, old: Root, new: Root) -> Result<Vec<Change>, StoreError> {
        myelin_state::diff(&self.rooms.nodes(self.view, self.num()), old, new).map_err(tree)
    }

    /// A user's membership event in a state.
    pub fn member(&self, state: Root, user: &UserId) -> Result<Option<Arc<Event>>, StoreError> {
        match self.state_entry(state, "m.room.member", user.as_str())? {
            Some(event) => self.event(event).map(Some),
            None => Ok(None),
        }
    }

    /// A user's membership in a state; that of a stranger is [`Membership::Leave`].
    pub fn membership(&self, state: Root, user: &UserId) -> Result<Membership, StoreError> {
        let event = self.member(state, user)?;
        Ok(event.map_or(Membership::Leave, |event| membership_of(&event)))
    }
}

/// The membership that an `m.room.member` event sets.
pub(crate) fn membership_of(event: &Event) -> Membership {
    let membership = event.pdu.content().get("membership");
    membership
        .and_then(|membership| membership.as_str())
        .and_then(Membership::from_name)
        .unwrap_or(Membership::Leave)
}

/// The store's own error if there is one: [`Store::read`](myelin_store::Store::read) must see that the disk was needed.
fn tree(error: TreeError<StoreError>) -> StoreError {
    match error {
        TreeError::Store(error) => error,
        TreeError::Missing { .. } | TreeError::Corrupt { .. } => StoreError::Missing("state_nodes"),
    }
}
