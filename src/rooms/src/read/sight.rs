//! Which events of a room a user may see, and what he was there when they were sent.

use std::collections::HashMap;

use myelin_data::rooms::{EventStatus, Membership};
use myelin_rules::visibility::{HistoryVisibility, Side, can_see_event};
use myelin_state::Root;
use myelin_store::StoreError;
use myelin_types::{EventNum, StateKeyNum};
use ruma::OwnedUserId;

use super::{Access, RoomView, Viewer, access::visibility_of, room_view::membership_of};
use crate::Event;

/// A user's sight of a room's history. Remembers what it read of each state: neighbours in a timeline mostly share one.
pub struct Sight<'a> {
    room: &'a RoomView<'a>,
    access: Access,
    user: OwnedUserId,
    member_key: Option<StateKeyNum>,
    visibility_key: Option<StateKeyNum>,
    sides: HashMap<Root, (HistoryVisibility, Membership)>,
    visibilities: HashMap<EventNum, HistoryVisibility>,
    memberships: HashMap<EventNum, Membership>,
}

impl<'a> Sight<'a> {
    /// The sight of a user with this access.
    pub fn new(
        room: &'a RoomView<'a>,
        access: Access,
        viewer: &Viewer,
    ) -> Result<Self, StoreError> {
        let keys = [
            ("m.room.member", viewer.user_id.as_str()),
            ("m.room.history_visibility", ""),
        ];
        let keys = room
            .rooms()
            .interner()
            .find_state_keys(room.view(), &keys)?;
        Ok(Self {
            room,
            access,
            user: viewer.user_id.clone(),
            member_key: keys.first().copied().flatten(),
            visibility_key: keys.get(1).copied().flatten(),
            sides: HashMap::new(),
            visibilities: HashMap::new(),
            memberships: HashMap::new(),
        })
    }

    /// Whether the user may see an event.
    ///
    /// His own memberships he may always see, even where the rules of history visibility would not show them: the event
    /// that refuses an invitation tells his other devices that it is gone.
    pub fn sees(&mut self, event: &Event) -> Result<bool, StoreError> {
        if is_history(event) && event.pdu.is_state("m.room.member", self.user.as_str()) {
            return Ok(true);
        }
        self.shown_by_rules(event)
    }

    /// Whether the rules of history visibility alone show an event, and with it the state around it.
    pub(super) fn shown_by_rules(&mut self, event: &Event) -> Result<bool, StoreError> {
        if !is_history(event) {
            return Ok(false);
        }
        let after = self.side(event.header.after())?;
        let before = match event.header.state_before {
            Some(_) => self.side(event.header.before())?,
            None => after,
        };
        Ok(can_see_event(
            rules_side(before),
            rules_side(after),
            self.access.joined_after(event.header.place),
        ))
    }

    /// What the user was in the room at an event; for his own memberships, what it made him.
    pub fn membership_at(&mut self, event: &Event) -> Result<Membership, StoreError> {
        self.side(event.header.after())
            .map(|(_, membership)| membership)
    }

    fn side(&mut self, state: Root) -> Result<(HistoryVisibility, Membership), StoreError> {
        if let Some(side) = self.sides.get(&state) {
            return Ok(*side);
        }
        let keys = [self.member_key, self.visibility_key];
        let known: Vec<StateKeyNum> = keys.into_iter().flatten().collect();
        let mut found = self.room.state_nums(state, &known)?.into_iter();
        let mut entry = |key: Option<StateKeyNum>| key.and_then(|_| found.next().flatten());
        let (member, visibility) = (entry(self.member_key), entry(self.visibility_key));
        let side = (self.visibility(visibility)?, self.membership(member)?);
        self.sides.insert(state, side);
        Ok(side)
    }

    fn visibility(&mut self, event: Option<EventNum>) -> Result<HistoryVisibility, StoreError> {
        let Some(num) = event else {
            return Ok(visibility_of(None));
        };
        if let Some(visibility) = self.visibilities.get(&num) {
            return Ok(*visibility);
        }
        let event = self.room.event(num)?;
        let visibility = visibility_of(Some(&event));
        self.visibilities.insert(num, visibility);
        Ok(visibility)
    }

    fn membership(&mut self, event: Option<EventNum>) -> Result<Membership, StoreError> {
        let Some(num) = event else {
            return Ok(Membership::Leave);
        };
        if let Some(membership) = self.memberships.get(&num) {
            return Ok(*membership);
        }
        let event = self.room.event(num)?;
        let membership = membership_of(&event);
        self.memberships.insert(num, membership);
        Ok(membership)
    }
}

/// Whether an event is part of the room's history, as far as that is known here.
fn is_history(event: &Event) -> bool {
    let accepted = event.header.place.is_some() && event.header.status == EventStatus::Accepted;
    accepted || event.is_point()
}

fn rules_side((visibility, membership): (HistoryVisibility, Membership)) -> Side {
    let membership = match membership {
        Membership::Join => myelin_rules::Membership::Join,
        Membership::Invite => myelin_rules::Membership::Invite,
        Membership::Knock => myelin_rules::Membership::Knock,
        Membership::Leave => myelin_rules::Membership::Leave,
        Membership::Ban => myelin_rules::Membership::Ban,
    };
    Side {
        visibility,
        membership,
    }
}
