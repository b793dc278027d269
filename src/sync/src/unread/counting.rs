//! One walk over the entries of a timeline that are to be counted.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use myelin_data::rooms::{Place, Timeline, TimelineEntry};
use myelin_rooms::{
    Event,
    read::{RoomView, Viewer},
};
use myelin_rules::{
    PowerLevels,
    push::{PushContext, PushEvent, Ruleset, evaluate},
};
use myelin_store::{Scan, StoreError};
use myelin_types::{EventNum, Pos, UserNum};

use super::{Anew, MAIN, Read, thread::thread_of};
use crate::{Inner, UnreadNotifications};

/// No more entries than this are looked at for one count. Before them, what the default rules say to everybody is taken
/// from the running totals of the timeline: after so many unread messages nobody counts his own among them.
const MOST_LOOKED_AT: i64 = 5_000;
/// The same for users with rules of their own, for whom every event must be read.
const MOST_READ: i64 = 1_000;

/// One walk over what is to be counted.
pub(super) struct Counting<'a> {
    pub(super) sync: &'a Inner,
    pub(super) room: &'a RoomView<'a>,
    pub(super) viewer: &'a Viewer,
    pub(super) read: &'a Read,
    pub(super) anew: &'a Anew,
    /// The place up to which threads that are not counted anew were counted.
    pub(super) before: Place,
    /// The user's rules, once they are needed.
    pub(super) rules: Option<Arc<Ruleset>>,
    /// Whose messages he does not want to hear.
    pub(super) ignored: Vec<UserNum>,
    pub(super) circumstances: Option<Circumstances>,
    pub(super) threads: &'a mut BTreeMap<String, UnreadNotifications>,
}

/// What push rules look at besides the event.
pub(super) struct Circumstances {
    display_name: Option<String>,
    member_count: u64,
    power_levels: Option<PowerLevels>,
}

impl Counting<'_> {
    /// Counts the entries after `low`, up to and including `last`. Returns how many were looked at.
    pub(super) fn run(
        &mut self,
        low: Place,
        last: Place,
        last_entry: &TimelineEntry,
    ) -> Result<usize, StoreError> {
        let own_rules = self
            .sync
            .accounts
            .push_rules_pos(self.room.view(), self.viewer.user)?
            > Pos::ZERO;
        let most = if own_rules { MOST_READ } else { MOST_LOOKED_AT };
        let low = self.skip(low, last, last_entry, most)?;
        let room = self.room.num();
        let mut looked_at = 0;
        let mut start = low.next();
        loop {
            let scan = Scan::prefix(&room)
                .from(&(room, start))
                .until(&(room, last.next()))
                .limit(256);
            let rows = self.room.view().scan::<Timeline>(scan);
            let rows = rows
                .map(|row| row.map(|((_, place), entry)| (place, entry)))
                .collect::<Result<Vec<_>, StoreError>>()?;
            let Some((end, _)) = rows.last() else {
                return Ok(looked_at);
            };
            looked_at += rows.len();
            start = end.next();
            self.look_at(&rows, own_rules)?;
        }
    }

    /// Passes over the older part of a long gap, by the running totals of what notifies everybody.
    fn skip(
        &mut self,
        low: Place,
        last: Place,
        last_entry: &TimelineEntry,
        most: i64,
    ) -> Result<Place, StoreError> {
        let target = Place {
            index: last.index.saturating_sub(most),
            ..last
        };
        if target <= low || !matches!(self.anew, Anew::All) && target <= self.before {
            return Ok(low);
        }
        let total =
            |found: Option<(Place, TimelineEntry)>| found.map_or(0, |(_, entry)| entry.notifying);
        let from = low.max(match self.anew {
            Anew::All => low,
            Anew::Threads(_) => self.before,
        });
        let skipped = total(self.room.last_before(target.next())?).min(last_entry.notifying);
        let read = total(self.room.last_before(from.next())?);
        self.add(MAIN, skipped.saturating_sub(read), 0);
        Ok(target)
    }

    fn look_at(
        &mut self,
        rows: &[(Place, TimelineEntry)],
        own_rules: bool,
    ) -> Result<(), StoreError> {
        let must_read: Vec<EventNum> = rows
            .iter()
            .filter(|(_, entry)| self.must_read(entry, own_rules))
            .map(|(_, entry)| entry.event)
            .collect();
        let read: HashMap<EventNum, Arc<Event>> = must_read
            .iter()
            .copied()
            .zip(self.room.events(&must_read)?)
            .collect();
        for (place, entry) in rows {
            let event = read.get(&entry.event);
            let own = entry.sender == self.viewer.user;
            if !own && !entry.traits.notifies && event.is_none() {
                continue;
            }
            let thread = match event {
                Some(event) => thread_of(self.room, event)?.unwrap_or_else(|| MAIN.to_owned()),
                None => MAIN.to_owned(),
            };
            if *place <= self.read.mark(&thread) || (*place <= self.before && !self.anew(&thread)) {
                continue;
            }
            if own {
                // State changes, like that of a name in all rooms at once, say nothing about having read.
                if !entry.traits.state {
                    self.threads.remove(&thread);
                }
                continue;
            }
            let ignored = !entry.traits.state && self.ignored.contains(&entry.sender);
            if ignored {
                continue;
            }
            match event {
                Some(event) if own_rules || entry.traits.special => {
                    let (notify, highlight) = self.evaluate(event)?;
                    self.add(&thread, u64::from(notify), u64::from(notify && highlight));
                }
                _ => self.add(&thread, u64::from(entry.traits.notifies), 0),
            }
        }
        Ok(())
    }

    fn must_read(&self, entry: &TimelineEntry, own_rules: bool) -> bool {
        let traits = entry.traits;
        if entry.sender == self.viewer.user {
            return traits.threaded && !traits.state;
        }
        own_rules || traits.special || (traits.threaded && traits.notifies)
    }

    fn anew(&self, thread: &str) -> bool {
        match self.anew {
            Anew::All => true,
            Anew::Threads(threads) => threads.iter().any(|moved| moved == thread),
        }
    }

    fn add(&mut self, thread: &str, notifications: u64, highlights: u64) {
        if notifications == 0 && highlights == 0 {
            return;
        }
        let count = self.threads.entry(thread.to_owned()).or_default();
        count.notification_count += notifications;
        count.highlight_count += highlights;
    }

    /// Whether the user's rules notify him of an event, and whether it highlights.
    fn evaluate(&mut self, event: &Event) -> Result<(bool, bool), StoreError> {
        let rules = if let Some(rules) = &self.rules {
            Arc::clone(rules)
        } else {
            let accounts = &self.sync.accounts;
            let rules = accounts.push_rules(self.room.view(), self.viewer.user)?;
            self.rules = Some(Arc::clone(&rules));
            rules
        };
        if self.circumstances.is_none() {
            self.circumstances = Some(Circumstances::of(self.room, self.viewer)?);
        }
        let Some(circumstances) = &self.circumstances else {
            return Ok((false, false));
        };
        let context = PushContext {
            user_id: self.viewer.user_id.as_str(),
            display_name: circumstances.display_name.as_deref(),
            member_count: circumstances.member_count,
            power_levels: circumstances.power_levels.as_ref(),
        };
        let outcome = evaluate(&rules, &PushEvent::from(&event.pdu), &context);
        Ok((outcome.notify, outcome.highlight))
    }
}

impl Circumstances {
    fn of(room: &RoomView<'_>, viewer: &Viewer) -> Result<Self, StoreError> {
        let head = room.head()?;
        let state = room.current()?;
        let entry = |event_type: &str| match room.state_entry(state, event_type, "")? {
            Some(event) => room.event(event).map(Some),
            None => Ok::<_, StoreError>(None),
        };
        let (create, power_levels) = (entry("m.room.create")?, entry("m.room.power_levels")?);
        let member = room.member(state, &viewer.user_id)?;
        let display_name = member.and_then(|member| {
            Some(
                member
                    .pdu
                    .content()
                    .get("displayname")?
                    .as_str()?
                    .to_owned(),
            )
        });
        Ok(Self {
            display_name,
            member_count: head.map_or(0, |head| head.joined),
            power_levels: create.map(|create| {
                PowerLevels::new(&create.pdu, power_levels.as_ref().map(|event| &event.pdu))
            }),
        })
    }
}
