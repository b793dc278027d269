//! One pass over what is to be counted.

use std::collections::{BTreeMap, HashMap};

use myelin_data::{
    rooms::{Membership, Place, RoomMembers, Timeline, TimelineEntry},
    unread::{MAIN, Notable, Notables, RedactedPlaces},
};
use myelin_rooms::{
    Event,
    read::{RoomView, Viewer},
};
use myelin_rules::{
    PowerLevels,
    push::{PushContext, PushEvent, evaluate},
};
use myelin_state::Root;
use myelin_store::{Scan, StoreError};
use myelin_types::{EventNum, Pos};

use super::{
    Anew, Read,
    listener::{Hearing, Listener},
};
use crate::UnreadNotifications;

/// How many rows are taken at a time.
const CHUNK: usize = 256;

/// One pass over what is to be counted.
pub(super) struct Counting<'a> {
    pub(super) room: &'a RoomView<'a>,
    pub(super) viewer: &'a Viewer,
    pub(super) listener: &'a Listener,
    pub(super) hearing: &'a Hearing<'a>,
    pub(super) read: &'a Read,
    pub(super) anew: &'a Anew,
    /// The place up to which threads that are not counted anew were counted.
    pub(super) before: Place,
    pub(super) circumstances: Circumstances,
    pub(super) threads: &'a mut BTreeMap<String, UnreadNotifications>,
    /// How many rows were looked at.
    pub(super) looked_at: usize,
}

/// An entry of the timeline that is looked at by itself.
type Item = (Place, TimelineEntry, Notable);

impl Counting<'_> {
    /// Counts the entries after `low`, up to and including `last`.
    pub(super) fn run(
        &mut self,
        low: Place,
        (last, last_entry): (Place, &TimelineEntry),
    ) -> Result<(), StoreError> {
        if self.hearing.is_deaf() {
            return Ok(());
        }
        let main = self.start_of(MAIN).max(low).min(last);
        if let Some(each) = self.hearing.of_plain()
            && !self.has_particular(main, last)?
        {
            let told = self.notables(low, last, main)?;
            if each != UnreadNotifications::default() && main < last {
                let before = self.room.last_before(main.next())?;
                let before = before.map_or(0, |(_, entry)| entry.notifying);
                let notifying = last_entry.notifying.saturating_sub(before);
                self.add(MAIN, each.times(notifying.saturating_sub(told)));
            }
            return Ok(());
        }
        self.notables(low, main, main)?;
        self.entries(main, last)
    }

    /// Whether between two places there may be messages of somebody whom the user hears otherwise than others.
    fn has_particular(&self, low: Place, high: Place) -> Result<bool, StoreError> {
        const ALL: [Membership; 5] = [
            Membership::Join,
            Membership::Leave,
            Membership::Ban,
            Membership::Invite,
            Membership::Knock,
        ];
        if self.hearing.particular().next().is_none() {
            return Ok(false);
        }
        let steps = high.index.saturating_sub(low.index);
        if low.segment == high.segment && steps <= CHUNK as i64 {
            // To look is as cheap as to ask.
            return Ok(true);
        }
        let room = self.room.num();
        let rows: Vec<_> = self
            .hearing
            .particular()
            .flat_map(|user| ALL.map(|membership| (room, membership, user)))
            .collect();
        let found = self.room.view().multi_get::<RoomMembers>(&rows)?;
        Ok(found.iter().any(Option::is_some))
    }

    /// Looks at the notable entries after `low`, up to and including `high`. Answers how many of those after `main` are
    /// in the running total of what notifies.
    fn notables(&mut self, low: Place, high: Place, main: Place) -> Result<u64, StoreError> {
        let (view, room) = (self.room.view(), self.room.num());
        let mut told = 0;
        let mut start = low.next();
        while start <= high {
            let scan = Scan::prefix(&room)
                .from(&(room, start))
                .through(&(room, high))
                .limit(CHUNK);
            let rows = view.scan::<Notables>(scan);
            let rows = rows
                .map(|row| row.map(|((_, place), notable)| (place, notable)))
                .collect::<Result<Vec<_>, StoreError>>()?;
            let Some((end, _)) = rows.last() else { break };
            start = end.next();
            self.looked_at += rows.len();
            let wanted: Vec<(Place, Notable)> = rows
                .into_iter()
                .filter(|(place, notable)| {
                    // Of the main timeline, only what comes after `main` is counted at all.
                    let thread = notable.thread.as_deref();
                    *place > main || thread.is_some_and(|thread| *place > self.start_of(thread))
                })
                .collect();
            let keys: Vec<_> = wanted.iter().map(|(place, _)| (room, *place)).collect();
            let entries = view.multi_get::<Timeline>(&keys)?;
            let items = wanted
                .into_iter()
                .zip(entries)
                .filter_map(|((place, notable), entry)| Some((place, entry?, notable)))
                .collect::<Vec<Item>>();
            let in_total = |(place, entry, _): &&Item| *place > main && entry.traits.notifies;
            told += items.iter().filter(in_total).count() as u64;
            self.look_at(items)?;
        }
        Ok(told)
    }

    /// Looks at all entries after `low`, up to and including `high`.
    fn entries(&mut self, low: Place, high: Place) -> Result<(), StoreError> {
        let (view, room) = (self.room.view(), self.room.num());
        let mut start = low.next();
        while start <= high {
            let range = |until: Place| {
                Scan::prefix(&room)
                    .from(&(room, start))
                    .through(&(room, until))
            };
            let rows = view.scan::<Timeline>(range(high).limit(CHUNK));
            let rows = rows
                .map(|row| row.map(|((_, place), entry)| (place, entry)))
                .collect::<Result<Vec<_>, StoreError>>()?;
            let Some((end, _)) = rows.last() else { break };
            let end = *end;
            let mut notables = HashMap::new();
            for row in view.scan::<Notables>(range(end)) {
                let ((_, place), notable) = row?;
                notables.insert(place, notable);
            }
            self.looked_at += rows.len();
            start = end.next();
            let items = rows
                .into_iter()
                .map(|(place, entry)| (place, entry, notables.remove(&place).unwrap_or_default()))
                .collect();
            self.look_at(items)?;
        }
        Ok(())
    }

    /// Counts entries one by one. Those of which the event decides are read together.
    fn look_at(&mut self, items: Vec<Item>) -> Result<(), StoreError> {
        let mut unread: Vec<(EventNum, String)> = Vec::new();
        for (place, entry, notable) in items {
            let counts = !notable.redacted
                && !place.is_filled_in()
                && entry.sender != self.viewer.user
                && place > self.start_of(notable.thread.as_deref().unwrap_or(MAIN));
            if !counts {
                continue;
            }
            let thread = notable.thread.unwrap_or_else(|| MAIN.to_owned());
            match self.hearing.of(&entry) {
                Some(count) => self.add(&thread, count),
                None => unread.push((entry.event, thread)),
            }
        }
        let nums: Vec<EventNum> = unread.iter().map(|(num, _)| *num).collect();
        let events = self.room.events(&nums)?;
        for (event, (_, thread)) in events.iter().zip(unread) {
            let count = self.evaluate(event)?;
            self.add(&thread, count);
        }
        Ok(())
    }

    /// The place after which what is in a thread is counted.
    fn start_of(&self, thread: &str) -> Place {
        let mark = self.read.mark(thread);
        if self.anew.has(thread) {
            mark
        } else {
            mark.max(self.before)
        }
    }

    fn add(&mut self, thread: &str, count: UnreadNotifications) {
        if count == UnreadNotifications::default() {
            return;
        }
        if let Some(sum) = self.threads.get_mut(thread) {
            *sum = sum.plus(count);
        } else {
            self.threads.insert(thread.to_owned(), count);
        }
    }

    /// What the user's rules say of an event.
    fn evaluate(&mut self, event: &Event) -> Result<UnreadNotifications, StoreError> {
        self.circumstances.go_to(self.room, self.viewer, event)?;
        let context = PushContext {
            user_id: self.viewer.user_id.as_str(),
            display_name: self.circumstances.display_name.as_deref(),
            member_count: self.circumstances.joined,
            power_levels: self.circumstances.power_levels.as_ref(),
        };
        // The event is shared by all who read it; what is decoded here goes again.
        let event = event.pdu.undecoded();
        let event = PushEvent::from(&event);
        Ok(evaluate(&self.listener.rules, &event, &context).into())
    }
}

/// Whether something was redacted after `known` that was counted at the time, so that the count is wrong now. `at` is the
/// place up to which was counted.
pub(super) fn was_redacted(
    room: &RoomView<'_>,
    viewer: &Viewer,
    hearing: &Hearing<'_>,
    read: &Read,
    (known, at): (Pos, Place),
) -> Result<bool, StoreError> {
    let view = room.view();
    let scan = Scan::prefix(&room.num()).after(&(room.num(), known));
    for key in view.keys::<RedactedPlaces>(scan) {
        let (_, _, place) = key?;
        if place > at {
            continue;
        }
        let key = (room.num(), place);
        let notable = view.get::<Notables>(&key)?.unwrap_or_default();
        if place <= read.mark(notable.thread.as_deref().unwrap_or(MAIN)) {
            continue;
        }
        let Some(entry) = view.get::<Timeline>(&key)? else {
            continue;
        };
        if entry.sender != viewer.user && hearing.of(&entry) != Some(UnreadNotifications::default())
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What push rules look at besides the event: the state that it was sent in, and the number of members of today.
#[derive(Default)]
pub(super) struct Circumstances {
    joined: u64,
    /// The state of which the others are.
    state: Option<Root>,
    display_name: Option<String>,
    power_levels: Option<PowerLevels>,
    /// The event that the power levels are of.
    levels: Option<EventNum>,
}

impl Circumstances {
    pub(super) fn new(joined: u64) -> Self {
        Self {
            joined,
            ..Self::default()
        }
    }

    fn go_to(
        &mut self,
        room: &RoomView<'_>,
        viewer: &Viewer,
        event: &Event,
    ) -> Result<(), StoreError> {
        let state = event.header.before();
        if self.state == Some(state) {
            return Ok(());
        }
        let member = room.member(state, &viewer.user_id)?;
        self.display_name = member.and_then(|member| {
            let name = member.pdu.content().get("displayname")?;
            Some(name.as_str()?.to_owned())
        });
        let levels = room.state_entry(state, "m.room.power_levels", "")?;
        if levels != self.levels || self.power_levels.is_none() {
            let create = room.state_entry(state, "m.room.create", "")?;
            let of = |num: Option<EventNum>| num.map(|num| room.event(num)).transpose();
            let (create, event) = (of(create)?, of(levels)?);
            self.power_levels = create.map(|create| {
                PowerLevels::new(&create.pdu, event.as_ref().map(|event| &event.pdu))
            });
            self.levels = levels;
        }
        self.state = Some(state);
        Ok(())
    }
}
