//! The state section of a room: what the client needs besides the timeline to have the room's state.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use myelin_rooms::{
    Event,
    read::{EVENTS_AT_ONCE, RoomView, Shaper},
};
use myelin_state::Root;
use myelin_store::StoreError;
use myelin_types::{EventNum, StateKeyNum};
use serde_json::value::RawValue;

use crate::answer::{Context, Notes};

/// What happened to a room's state between the client's token and the end of the timeline.
pub(crate) struct StateChange<'a> {
    /// The state that the client has; empty if it has none of this room.
    pub(crate) known: Root,
    /// Whether the client wants the whole state, whatever it has.
    pub(crate) whole: bool,
    /// The state before the timeline.
    pub(crate) start: Root,
    /// The state after it.
    pub(crate) end: Root,
    /// The timeline that is sent.
    pub(crate) timeline: &'a [Arc<Event>],
    /// Users whose membership is to be sent besides those of the timeline's senders, if members are loaded lazily.
    pub(crate) members: &'a [String],
}

/// The events of the state section, as they are told.
///
/// The client applies these, then the timeline. An entry that the timeline changes is sent as it is before the timeline, any
/// other as it is at the end: also when its event lies in the timeline's range but was filtered out or cannot be seen.
/// With `use_state_after` the client does not apply the timeline, and everything is sent as it is at the end.
pub(crate) fn events(
    context: &Context<'_>,
    room: &RoomView<'_>,
    change: &StateChange<'_>,
    shaper: &Shaper<'_>,
    notes: &mut Notes,
) -> Result<Vec<Box<RawValue>>, StoreError> {
    let filters = &context.filters;
    let timeline = TimelineKeys::of(room, change.timeline)?;
    let mut entries = BTreeMap::new();
    if !filters.state.takes_nothing() && filters.state.takes_room(room.room_id()) {
        let in_timeline = |key: &StateKeyNum| !context.state_after && timeline.keys.contains(key);
        // Of members loaded lazily the whole state has only those needed: changes of others that the client has must
        // not be lost for that.
        if !change.known.is_empty() && (!change.whole || filters.lazy.is_some()) {
            differing(room, change, &in_timeline, &mut entries)?;
        }
        if change.whole {
            whole(context, room, change, &in_timeline, &mut entries)?;
        }
        if let Some(repeat) = filters.lazy {
            let fresh = change.whole || repeat;
            for (key, event) in needed_members(room, change, &in_timeline)? {
                if fresh || !context.known.has(room.num(), key, event) {
                    entries.entry(key).or_insert(event);
                }
            }
        }
    }
    let mut keys: Vec<(StateKeyNum, EventNum)> = entries.into_iter().collect();
    keys.sort_by_key(|(_, event)| *event);
    let mut told = Vec::with_capacity(keys.len());
    for keys in keys.chunks(EVENTS_AT_ONCE) {
        let nums: Vec<EventNum> = keys.iter().map(|(_, event)| *event).collect();
        let mut events = Vec::with_capacity(nums.len());
        for ((key, num), event) in keys.iter().zip(room.events(&nums)?) {
            if filters.state.takes(&event) {
                if key.is_member() {
                    notes.members.insert((room.num(), *key), *num);
                }
                events.push(event);
            }
        }
        told.append(&mut shaper.state(&events)?);
    }
    for (key, num) in timeline.members {
        notes.members.insert((room.num(), key), num);
    }
    Ok(told)
}

/// The state keys that a timeline touches.
struct TimelineKeys {
    keys: HashSet<StateKeyNum>,
    /// The membership events, in the timeline's order.
    members: Vec<(StateKeyNum, EventNum)>,
}

impl TimelineKeys {
    fn of(room: &RoomView<'_>, timeline: &[Arc<Event>]) -> Result<Self, StoreError> {
        let states: Vec<(&Event, &str)> = timeline
            .iter()
            .filter_map(|event| Some((&**event, event.pdu.state_key()?)))
            .collect();
        let pairs: Vec<(&str, &str)> = states
            .iter()
            .map(|(event, state_key)| (event.pdu.event_type(), *state_key))
            .collect();
        let found = room
            .rooms()
            .interner()
            .find_state_keys(room.view(), &pairs)?;
        let keyed = found
            .into_iter()
            .zip(states)
            .filter_map(|(key, (event, _))| Some((key?, event.num)));
        let keyed: Vec<(StateKeyNum, EventNum)> = keyed.collect();
        Ok(Self {
            keys: keyed.iter().map(|(key, _)| *key).collect(),
            members: keyed
                .into_iter()
                .filter(|(key, _)| key.is_member())
                .collect(),
        })
    }
}

/// The whole state; without its members if they are loaded lazily.
fn whole(
    context: &Context<'_>,
    room: &RoomView<'_>,
    change: &StateChange<'_>,
    in_timeline: &impl Fn(&StateKeyNum) -> bool,
    entries: &mut BTreeMap<StateKeyNum, EventNum>,
) -> Result<(), StoreError> {
    let lazy = context.filters.lazy.is_some();
    let mut before = Vec::new();
    let all = if lazy {
        room.state_without_members(change.end)?
    } else {
        room.state_entries(change.end)?
    };
    for (key, event) in all {
        if in_timeline(&key) {
            before.push(key);
        } else {
            entries.insert(key, event);
        }
    }
    let found = room.state_nums(change.start, &before)?;
    let found = before.into_iter().zip(found);
    entries.extend(found.filter_map(|(key, event)| Some((key, event?))));
    Ok(())
}

/// What differs from the state that the client has. With lazy loading too, this has every member whose membership
/// changed in a gap.
fn differing(
    room: &RoomView<'_>,
    change: &StateChange<'_>,
    in_timeline: &impl Fn(&StateKeyNum) -> bool,
    entries: &mut BTreeMap<StateKeyNum, EventNum>,
) -> Result<(), StoreError> {
    let at_end = room.state_diff(change.known, change.end)?;
    let at_end = at_end.into_iter().filter(|entry| !in_timeline(&entry.key));
    entries.extend(at_end.filter_map(|entry| Some((entry.key, entry.new?))));
    if change.start != change.known {
        let at_start = room.state_diff(change.known, change.start)?;
        let at_start = at_start.into_iter().filter(|entry| in_timeline(&entry.key));
        entries.extend(at_start.filter_map(|entry| Some((entry.key, entry.new?))));
    }
    Ok(())
}

/// The memberships that lazy loading asks for: of the timeline's senders, and of those named.
fn needed_members(
    room: &RoomView<'_>,
    change: &StateChange<'_>,
    in_timeline: &impl Fn(&StateKeyNum) -> bool,
) -> Result<Vec<(StateKeyNum, EventNum)>, StoreError> {
    let senders = change.timeline.iter().map(|event| event.pdu.sender());
    let users: HashSet<&str> = senders
        .chain(change.members.iter().map(String::as_str))
        .collect();
    let pairs: Vec<(&str, &str)> = users
        .into_iter()
        .map(|user| ("m.room.member", user))
        .collect();
    let found = room
        .rooms()
        .interner()
        .find_state_keys(room.view(), &pairs)?;
    let mut keys: Vec<StateKeyNum> = found.into_iter().flatten().collect();
    keys.sort_unstable();
    let (before, after): (Vec<_>, Vec<_>) = keys.into_iter().partition(|key| in_timeline(key));
    let at_start = room.state_nums(change.start, &before)?;
    let at_end = room.state_nums(change.end, &after)?;
    let all = before
        .into_iter()
        .zip(at_start)
        .chain(after.into_iter().zip(at_end));
    Ok(all.filter_map(|(key, event)| Some((key, event?))).collect())
}
