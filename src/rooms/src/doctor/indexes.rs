//! What is derived from a room's state and history, so that it is found quickly: members, counts, servers, the timeline.

use std::collections::{BTreeMap, HashMap};

use myelin_data::{
    rooms::{
        EventStatus, Gaps, Heads, Membership as Stored, Place, RoomMembers, Timeline,
        TimelineEntry, UserRooms,
    },
    servers::{RoomServers, ServerRooms},
};
use myelin_state::Root;
use myelin_store::{Scan, StoreError};
use myelin_types::{EventNum, Pos, StateKeyNum, UserNum};
use ruma::UserId;

use super::{Doctor, Finding, Problem};
use crate::{Completeness, event::tree_error, servers::lacks_rows};

/// How many rows are looked at together.
const ROWS: usize = 256;

/// The members of a room.
type Members = HashMap<UserNum, Member>;
/// How many users of each server are joined.
type JoinedOf = BTreeMap<String, u64>;

/// A member by the current state.
struct Member {
    membership: Stored,
    event: EventNum,
}

impl Doctor {
    /// Examines everything that is derived.
    pub(super) fn examine_indexes(&mut self) -> Result<(), StoreError> {
        let Some(head) = self.view.get::<Heads>(&self.handle.num)? else {
            return Ok(());
        };
        let (members, servers) = match self.members(head.root()) {
            // It was said that the state cannot be read; nothing of it can be compared.
            Err(StoreError::Missing(_) | StoreError::Codec { .. }) => return Ok(()),
            members => members?,
        };
        let count = |membership| {
            let with = members
                .values()
                .filter(|member| member.membership == membership);
            with.count() as u64
        };
        let (joined, invited) = (count(Stored::Join), count(Stored::Invite));
        self.report.joined = joined;
        for (what, counted, stored) in [
            ("joined", joined, head.joined),
            ("invited", invited, head.invited),
        ] {
            if counted != stored {
                let what = format!("{counted} users are {what}, and {stored} are counted.");
                self.report.add(Finding::new(Problem::WrongCount, what));
            }
        }
        self.examine_members(&members)?;
        self.examine_servers(&servers)?;
        self.examine_timeline(head.last)?;
        self.examine_gaps()
    }

    /// The members of a state, and how many are joined of each server.
    fn members(&self, state: Root) -> Result<(Members, JoinedOf), StoreError> {
        let nodes = self.rooms.nodes(&self.view, self.handle.num);
        let keys = StateKeyNum::FIRST_MEMBER..=StateKeyNum::LAST_MEMBER;
        let entries = myelin_state::range(&nodes, state, keys).map_err(tree_error)?;
        let (mut members, mut servers) = (HashMap::new(), BTreeMap::new());
        for entries in entries.chunks(ROWS) {
            let nums: Vec<EventNum> = entries.iter().map(|(_, num)| *num).collect();
            let events = self.events(&nums)?;
            for event in events.into_iter().flatten() {
                let Some(user) = event
                    .pdu
                    .state_key()
                    .and_then(|key| UserId::parse(key).ok())
                else {
                    continue;
                };
                let Some(num) = self.rooms.interner().find_user(&self.view, &user)? else {
                    continue;
                };
                let membership = crate::read::membership_of(&event);
                if membership == Stored::Join {
                    *servers.entry(user.server_name().to_string()).or_insert(0) += 1;
                }
                let event = event.num;
                members.insert(num, Member { membership, event });
            }
        }
        Ok((members, servers))
    }

    fn wrong_member(&mut self, user: UserNum, what: &str) -> Result<(), StoreError> {
        let id = self.rooms.interner().user_id(&self.view, user)?;
        let what = format!("{id}: {what}");
        self.report.add(Finding::new(Problem::WrongMember, what));
        Ok(())
    }

    fn examine_members(&mut self, members: &Members) -> Result<(), StoreError> {
        let room = self.handle.num;
        let view = self.view.clone();
        let mut listed = 0;
        for key in view.keys::<RoomMembers>(Scan::prefix(&room)) {
            let (_, membership, user) = key?;
            match members.get(&user) {
                Some(member) if member.membership == membership => listed += 1,
                // Whose membership another branch of history took away has left.
                None if membership == Stored::Leave => {}
                _ => {
                    let what = format!(
                        "The list of members has them with {}, and the state has not.",
                        membership.as_str()
                    );
                    self.wrong_member(user, &what)?;
                }
            }
        }
        if listed < members.len() {
            let what = format!(
                "{} members of the state are not in the list of members.",
                members.len() - listed
            );
            self.report.add(Finding::new(Problem::WrongMember, what));
        }
        let users: Vec<UserNum> = members.keys().copied().collect();
        for users in users.chunks(ROWS) {
            let keys: Vec<_> = users.iter().map(|user| (*user, room)).collect();
            let rows = view.multi_get::<UserRooms>(&keys)?;
            for (user, row) in users.iter().zip(rows) {
                let member = &members[user];
                match row {
                    Some(row)
                        if row.membership == member.membership && row.event == member.event => {}
                    // Who left may have forgotten the room.
                    None if matches!(member.membership, Stored::Leave | Stored::Ban) => {}
                    Some(_) => self.wrong_member(
                        *user,
                        "Their own list of rooms says something else of this one than its state.",
                    )?,
                    None => self.wrong_member(*user, "Their own list of rooms lacks this one.")?,
                }
            }
        }
        Ok(())
    }

    fn examine_servers(&mut self, counted: &JoinedOf) -> Result<(), StoreError> {
        let room = self.handle.num;
        let view = self.view.clone();
        self.report.servers = counted.len() as u64;
        if self.is_partial() || lacks_rows(&view, room)? {
            // As long as members are missing, servers are counted by what another one says. Of a room of before there was
            // this list, it is built when somebody writes to the room.
            return Ok(());
        }
        let mut left: BTreeMap<&str, u64> = counted
            .iter()
            .map(|(name, count)| (name.as_str(), *count))
            .collect();
        for row in view.scan::<RoomServers>(Scan::prefix(&room)) {
            let ((_, name), row) = row?;
            let expected = left.remove(name.as_str()).unwrap_or(0);
            if row.joined != expected {
                let what = format!(
                    "{expected} users of {name} are joined, and {} are counted.",
                    row.joined
                );
                self.report.add(Finding::new(Problem::WrongServer, what));
            }
            if view.get::<ServerRooms>(&(name.clone(), room))?.is_none() {
                let what = format!("The list of rooms of {name} lacks this one.");
                self.report.add(Finding::new(Problem::WrongServer, what));
            }
        }
        for (name, count) in left {
            let what = format!(
                "{count} users of {name} are joined, and the list of servers lacks it: it is sent nothing."
            );
            self.report.add(Finding::new(Problem::WrongServer, what));
        }
        Ok(())
    }

    /// Events of the room. One that was refused when all members were known keeps its place.
    fn may_stand_in_timeline(&self, status: EventStatus) -> bool {
        let was_partial = matches!(self.completeness, Completeness::Since(_));
        status == EventStatus::Accepted || was_partial && status == EventStatus::Rejected
    }

    fn wrong_timeline(&mut self, place: Place, what: &str) {
        let what = format!("Segment {}, index {}: {what}", place.segment, place.index);
        self.report.add(Finding::new(Problem::WrongTimeline, what));
    }

    /// Whether the timeline has the room's events, each at its place, in the order in which they came.
    fn examine_timeline(&mut self, last: Place) -> Result<(), StoreError> {
        let room = self.handle.num;
        let view = self.view.clone();
        let mut rows = view.scan::<Timeline>(Scan::prefix(&room));
        let (mut end, mut before) = (None, (u32::MAX, Pos::ZERO));
        let (mut notifying, mut listed) = (0, 0);
        loop {
            let mut some: Vec<(Place, TimelineEntry)> = Vec::with_capacity(ROWS);
            for row in rows.by_ref().take(ROWS) {
                let ((_, place), entry) = row?;
                some.push((place, entry));
            }
            if some.is_empty() {
                break;
            }
            let nums: Vec<EventNum> = some.iter().map(|(_, entry)| entry.event).collect();
            let events = self.events(&nums)?;
            for ((place, entry), event) in some.into_iter().zip(events) {
                listed += 1;
                end = Some(place);
                match event {
                    Some(event)
                        if event.header.place == Some(place)
                            && self.may_stand_in_timeline(event.header.status) => {}
                    Some(_) => self.wrong_timeline(place, "Its event does not stand there."),
                    None => self.wrong_timeline(place, "Its event is not there."),
                }
                if place.is_filled_in() {
                    continue;
                }
                if before.0 == place.segment && entry.pos < before.1 {
                    self.wrong_timeline(place, "It came before the one in front of it.");
                }
                before = (place.segment, entry.pos);
                if entry.notifying < notifying {
                    self.wrong_timeline(place, "The total of what notifies grows smaller.");
                }
                notifying = entry.notifying;
            }
        }
        if listed < self.placed {
            let what = format!(
                "{} events have a place in the timeline and are not in it.",
                self.placed - listed
            );
            self.report.add(Finding::new(Problem::WrongTimeline, what));
        }
        if end.is_some_and(|end| end != last) {
            self.wrong_timeline(last, "It is said to be the last entry, and is not.");
        }
        Ok(())
    }

    /// What is missing of the history.
    fn examine_gaps(&mut self) -> Result<(), StoreError> {
        let room = self.handle.num;
        let view = self.view.clone();
        for row in view.scan::<Gaps>(Scan::prefix(&room)) {
            let ((_, segment), gap) = row?;
            let known = self.ground.events_by_id(&view, &gap.missing)?;
            let settled = known
                .iter()
                .flatten()
                .filter(|event| event.header.place.is_some())
                .count();
            let missing = gap.missing.len() - settled;
            if missing == 0 {
                let what = format!("A gap before segment {segment} misses nothing any more.");
                self.report.add(Finding::new(Problem::WrongTimeline, what));
            } else {
                let what =
                    format!("Before segment {segment}, history is missing ({missing} known ends).");
                self.report.add(Finding::new(Problem::Gap, what));
            }
        }
        Ok(())
    }
}
