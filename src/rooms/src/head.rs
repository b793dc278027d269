//! The decoded current state of a room, as far as writers need it: kept up by every event that is appended.

use std::sync::Arc;

use myelin_data::rooms::{Head, Place};
use myelin_rules::{
    EventRef, Membership, Pdu, PowerLevels,
    auth::{Create, JoinRule},
    event::MAX_PREV_EVENTS,
    visibility::HistoryVisibility,
};
use myelin_state::Root;
use myelin_types::EventNum;
use ruma::OwnedUserId;

use crate::event::Event;

/// The state events with an empty state key that are kept decoded. `m.room.create` comes first.
pub(crate) const KEPT: [&str; 12] = [
    "m.room.create",
    "m.room.power_levels",
    "m.room.join_rules",
    "m.room.history_visibility",
    "m.room.guest_access",
    "m.room.name",
    "m.room.topic",
    "m.room.avatar",
    "m.room.canonical_alias",
    "m.room.encryption",
    "m.room.tombstone",
    "m.room.policy",
];

/// The number of the segment with which a room's timeline begins.
pub(crate) const FIRST_SEGMENT: u32 = 1;

/// Those of [`KEPT`] that somebody who is invited is shown (client-server specification, "Stripped state").
pub(crate) const SHOWN_TO_INVITED: [&str; 7] = [
    "m.room.create",
    "m.room.join_rules",
    "m.room.canonical_alias",
    "m.room.name",
    "m.room.avatar",
    "m.room.topic",
    "m.room.encryption",
];

/// The events of [`KEPT`], in its order.
pub(crate) type Kept = [Option<Arc<Event>>; KEPT.len()];

/// The current state of a room, or of a room that is about to be made, which has nothing yet.
#[derive(Clone, Debug)]
pub(crate) struct RoomState {
    /// Where the next event attaches; none before the create event.
    pub(crate) head: Option<Head>,
    kept: Kept,
    /// The forward extremities as events, in the order in which they came.
    tips: Vec<Arc<Event>>,
    levels: Option<PowerLevels>,
}

impl RoomState {
    /// The state of a room without events.
    pub(crate) fn empty() -> Self {
        Self {
            head: None,
            kept: Default::default(),
            tips: Vec::new(),
            levels: None,
        }
    }

    /// The state at a stored head. `kept` are the events of [`KEPT`], in its order; `tips` the extremities' events.
    pub(crate) fn at(head: Head, kept: Kept, tips: Vec<Arc<Event>>) -> Self {
        let mut state = Self {
            head: Some(head),
            kept,
            tips,
            levels: None,
        };
        state.derive_levels();
        state
    }

    fn derive_levels(&mut self) {
        self.levels = self
            .create()
            .map(|create| PowerLevels::new(create, self.kept("m.room.power_levels")));
    }

    /// The root of the state.
    pub(crate) fn root(&self) -> Root {
        self.head.as_ref().map_or(Root::EMPTY, Head::root)
    }

    /// The place of the next event.
    pub(crate) fn next_place(&self) -> Place {
        self.head.as_ref().map_or(
            Place {
                segment: FIRST_SEGMENT,
                index: 0,
            },
            |head| head.last.next(),
        )
    }

    /// The place of the next event if there is a gap before it.
    pub(crate) fn next_segment(&self) -> Place {
        Place {
            segment: self.head.as_ref().map_or(0, |head| head.last.segment) + 1,
            index: 0,
        }
    }

    /// What the next event's `prev_events` are: the forward extremities, of too many the newest.
    pub(crate) fn prev_events(&self) -> Vec<EventRef> {
        let newest = self.tips.iter().rev().take(MAX_PREV_EVENTS);
        newest.map(|event| EventRef::from(&event.pdu)).collect()
    }

    /// The forward extremities.
    pub(crate) fn tips(&self) -> &[Arc<Event>] {
        &self.tips
    }

    /// The depth of the next event.
    pub(crate) fn next_depth(&self) -> i64 {
        self.head.as_ref().map_or(1, |head| {
            i64::try_from(head.depth)
                .unwrap_or(i64::MAX)
                .saturating_add(1)
        })
    }

    /// Whether events of this type with an empty state key are kept.
    pub(crate) fn keeps(event_type: &str, state_key: &str) -> bool {
        state_key.is_empty() && KEPT.contains(&event_type)
    }

    /// A kept event of this type.
    pub(crate) fn kept_event(&self, event_type: &str) -> Option<&Arc<Event>> {
        let index = KEPT.iter().position(|kept| *kept == event_type)?;
        self.kept[index].as_ref()
    }

    fn kept(&self, event_type: &str) -> Option<&Pdu> {
        self.kept_event(event_type).map(|event| &event.pdu)
    }

    /// The create event.
    pub(crate) fn create(&self) -> Option<&Pdu> {
        self.kept(KEPT[0])
    }

    /// What the create event decides.
    pub(crate) fn create_content(&self) -> Option<Create> {
        self.create().map(Create::of)
    }

    /// The power levels in force.
    pub(crate) fn levels(&self) -> Option<&PowerLevels> {
        self.levels.as_ref()
    }

    /// The room's creators, and the users that its power levels name.
    pub(crate) fn users_with_levels(&self) -> Vec<OwnedUserId> {
        let mut users: Vec<String> = Vec::new();
        if let Some(create) = self.create_content() {
            users.extend(create.creator);
            users.extend(create.additional_creators);
        }
        let levels = self.kept("m.room.power_levels");
        let named = levels.and_then(|levels| levels.content().get("users")?.as_object());
        users.extend(named.into_iter().flat_map(|users| users.keys().cloned()));
        users
            .into_iter()
            .filter_map(|user| OwnedUserId::try_from(user).ok())
            .collect()
    }

    /// Whether a user may send state of this type. Says nothing about membership.
    pub(crate) fn may_send_state(&self, user: &str, event_type: &str) -> bool {
        self.levels
            .as_ref()
            .is_some_and(|levels| levels.may_send(user, event_type, true))
    }

    /// Who may join.
    pub(crate) fn join_rule(&self) -> JoinRule {
        self.kept("m.room.join_rules")
            .map_or_else(JoinRule::default, JoinRule::of)
    }

    /// Who may read.
    pub(crate) fn history_visibility(&self) -> HistoryVisibility {
        let event = self.kept("m.room.history_visibility");
        HistoryVisibility::from_value(
            event
                .and_then(|event| event.content().get("history_visibility"))
                .and_then(|value| value.as_str()),
        )
    }

    /// Takes in an event that was appended at the head: what is kept, and the extremities. The head itself is the
    /// pipeline's.
    pub(crate) fn advance(&mut self, event: &Arc<Event>) {
        let cited = |tip: &str| event.pdu.prev_events().any(|prev| prev == tip);
        self.extend(event, cited);
        if event.pdu.state_key() == Some("") {
            self.set_kept(event);
        }
    }

    /// Makes an event a forward extremity, in the place of those that it has in its past.
    pub(crate) fn extend(&mut self, event: &Arc<Event>, is_past: impl Fn(&str) -> bool) {
        self.tips.retain(|tip| !is_past(tip.pdu.event_id()));
        self.tips.push(Arc::clone(event));
    }

    /// Replaces what is kept, after the current state became another one than that after the last event.
    pub(crate) fn set_all_kept(&mut self, kept: Kept) {
        self.kept = kept;
        self.derive_levels();
    }

    /// Replaces the forward extremities by those that they are when their events were judged again.
    pub(crate) fn set_tips(&mut self, tips: Vec<Arc<Event>>) {
        self.tips = tips;
    }

    /// Replaces an event that was pruned.
    pub(crate) fn pruned(&mut self, event: &Arc<Event>) {
        for tip in &mut self.tips {
            if tip.num == event.num {
                *tip = Arc::clone(event);
            }
        }
        let is_current = |num: EventNum| self.kept.iter().flatten().any(|kept| kept.num == num);
        if is_current(event.num) {
            self.set_kept(event);
        }
    }

    fn set_kept(&mut self, event: &Arc<Event>) {
        let Some(index) = KEPT.iter().position(|kept| *kept == event.pdu.event_type()) else {
            return;
        };
        self.kept[index] = Some(Arc::clone(event));
        if index < 2 {
            self.derive_levels();
        }
    }
}

/// The membership that an event gives, [`Membership::Leave`] if there is none.
pub(crate) fn membership_of(member: Option<&Arc<Event>>) -> Membership {
    member.map_or(Membership::Leave, |event| Membership::of(&event.pdu))
}
