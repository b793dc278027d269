//! The response body of `/sync` v3. Events are JSON texts that are copied as they are.

use std::collections::BTreeMap;

use ruma::OwnedRoomId;
use serde::Serialize;
use serde_json::value::RawValue;

/// The whole body.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Response {
    /// The `since` of the next request.
    pub next_batch: String,
    /// Global account data.
    pub account_data: Events,
    /// Presence of other users.
    pub presence: Events,
    /// Messages to this device.
    pub to_device: Events,
    /// Users whose devices changed.
    pub device_lists: DeviceLists,
    /// How many one-time keys the server holds for this device, by algorithm.
    pub device_one_time_keys_count: BTreeMap<String, u64>,
    /// The algorithms for which a fallback key is there that was not used.
    pub device_unused_fallback_key_types: Vec<String>,
    /// Rooms by the user's relation to them. Last, so that a body can end with parts of it that are made as it is sent.
    pub rooms: RoomsSection,
}

/// A list of events.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Events {
    /// The events.
    pub events: Vec<Box<RawValue>>,
}

impl Events {
    /// The bytes of the events.
    fn weight(&self) -> usize {
        weight(&self.events)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }
}

fn weight(events: &[Box<RawValue>]) -> usize {
    events.iter().map(|event| event.get().len()).sum()
}

/// Users whose devices changed.
#[derive(Clone, Debug, Default, Serialize)]
pub struct DeviceLists {
    /// Users who have new devices or keys, or whom the user newly shares an encrypted room with.
    pub changed: Vec<String>,
    /// Users whom the user no longer shares an encrypted room with.
    pub left: Vec<String>,
}

/// Rooms by the user's relation to them.
#[derive(Clone, Debug, Default, Serialize)]
pub struct RoomsSection {
    /// Rooms that he is in.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub join: BTreeMap<OwnedRoomId, JoinedRoom>,
    /// Rooms that he is invited to.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub invite: BTreeMap<OwnedRoomId, InvitedRoom>,
    /// Rooms that he knocks at.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub knock: BTreeMap<OwnedRoomId, KnockedRoom>,
    /// Rooms that he left or is kept out of.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub leave: BTreeMap<OwnedRoomId, LeftRoom>,
}

impl RoomsSection {
    /// Adds the rooms of another part of the same answer.
    pub fn extend(&mut self, other: RoomsSection) {
        let RoomsSection {
            join,
            invite,
            knock,
            leave,
        } = other;
        self.join.extend(join);
        self.invite.extend(invite);
        self.knock.extend(knock);
        self.leave.extend(leave);
    }

    /// Whether no room is mentioned.
    pub fn is_empty(&self) -> bool {
        self.join.is_empty()
            && self.invite.is_empty()
            && self.knock.is_empty()
            && self.leave.is_empty()
    }
}

/// A room that the user is in.
#[derive(Clone, Debug, Default, Serialize)]
pub struct JoinedRoom {
    /// What clients need to name it; only what changed.
    #[serde(skip_serializing_if = "Summary::is_empty")]
    pub summary: Summary,
    /// The state before the timeline, as far as the client does not know it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<Events>,
    /// The state after the timeline, as far as the client does not know it; instead of `state` when asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state_after: Option<Events>,
    /// New events.
    pub timeline: Timeline,
    /// Receipts and typing.
    pub ephemeral: Events,
    /// The user's account data for the room.
    pub account_data: Events,
    /// What he has not read; in the main timeline alone when threads are counted apart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unread_notifications: Option<UnreadNotifications>,
    /// What he has not read of each thread.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub unread_thread_notifications: BTreeMap<String, UnreadNotifications>,
}

impl JoinedRoom {
    /// The bytes of its events.
    pub(crate) fn weight(&self) -> usize {
        let lists = [&self.ephemeral, &self.account_data];
        let lists = lists
            .into_iter()
            .chain(&self.state)
            .chain(&self.state_after);
        weight(&self.timeline.events) + lists.map(Events::weight).sum::<usize>()
    }
}

/// What clients need to name a room.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Members to name it after.
    #[serde(rename = "m.heroes", skip_serializing_if = "Option::is_none")]
    pub heroes: Option<Vec<String>>,
    /// How many are joined.
    #[serde(
        rename = "m.joined_member_count",
        skip_serializing_if = "Option::is_none"
    )]
    pub joined_member_count: Option<u64>,
    /// How many are invited.
    #[serde(
        rename = "m.invited_member_count",
        skip_serializing_if = "Option::is_none"
    )]
    pub invited_member_count: Option<u64>,
}

impl Summary {
    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        *self == Summary::default()
    }
}

/// New events of a room.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Timeline {
    /// The events, oldest first.
    pub events: Vec<Box<RawValue>>,
    /// Whether there are more since the client's token, before these.
    pub limited: bool,
    /// Where `/messages` goes on backwards.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prev_batch: Option<String>,
}

/// How much of a room or thread is not read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct UnreadNotifications {
    /// Events that highlight.
    pub highlight_count: u64,
    /// Events that notify, those that highlight included.
    pub notification_count: u64,
}

/// A room that the user is invited to.
#[derive(Clone, Debug, Default, Serialize)]
pub struct InvitedRoom {
    /// What he is shown of it.
    pub invite_state: Events,
}

/// A room that the user knocks at.
#[derive(Clone, Debug, Default, Serialize)]
pub struct KnockedRoom {
    /// What he is shown of it.
    pub knock_state: Events,
}

/// A room that the user left or is kept out of.
#[derive(Clone, Debug, Default, Serialize)]
pub struct LeftRoom {
    /// The state before the timeline, as far as the client does not know it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<Events>,
    /// The state after the timeline; instead of `state` when asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state_after: Option<Events>,
    /// New events up to the end of his stay.
    pub timeline: Timeline,
    /// The user's account data for the room.
    pub account_data: Events,
}

impl LeftRoom {
    /// The bytes of its events.
    pub(crate) fn weight(&self) -> usize {
        let lists = self.state.iter().chain(&self.state_after);
        weight(&self.timeline.events) + lists.map(Events::weight).sum::<usize>()
    }
}

impl Response {
    /// Whether there is nothing new in it, so that a client may as well wait.
    pub fn has_nothing(&self) -> bool {
        self.account_data.is_empty()
            && self.presence.is_empty()
            && self.rooms.is_empty()
            && self.to_device.is_empty()
            && self.device_lists.changed.is_empty()
            && self.device_lists.left.is_empty()
    }
}
