//! The summary section of a room: what clients need to name it.

use myelin_data::rooms::{Head, Membership, RoomMembers};
use myelin_rooms::read::RoomView;
use myelin_state::Root;
use myelin_store::{Scan, StoreError};
use myelin_types::UserNum;
use ruma::UserId;

use crate::Summary;

/// How many members a room is named after.
const HEROES: usize = 5;
/// In rooms with at most this many joined and invited members the heroes are those whose membership is oldest; in
/// larger ones, those whom this server met first.
const SORTED: usize = 32;

/// The summary of a room for a user.
pub(crate) fn summary(
    room: &RoomView<'_>,
    head: &Head,
    viewer: UserNum,
) -> Result<Summary, StoreError> {
    let heroes = if is_named(room, head.root())? {
        None
    } else {
        Some(heroes(room, head.root(), viewer)?)
    };
    Ok(Summary {
        heroes,
        joined_member_count: Some(head.joined),
        invited_member_count: Some(head.invited),
    })
}

/// Whether the room has a name or a canonical alias of its own.
fn is_named(room: &RoomView<'_>, state: Root) -> Result<bool, StoreError> {
    for (event_type, field) in [("m.room.name", "name"), ("m.room.canonical_alias", "alias")] {
        if let Some(event) = room.state_entry(state, event_type, "")? {
            let event = room.event(event)?;
            let value = event
                .pdu
                .content()
                .get(field)
                .and_then(|value| value.as_str());
            if value.is_some_and(|value| !value.is_empty()) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Members to name a room after: those who are there or invited, else those who were.
fn heroes(room: &RoomView<'_>, state: Root, viewer: UserNum) -> Result<Vec<String>, StoreError> {
    let mut users = others(room, [Membership::Join, Membership::Invite], viewer)?;
    if users.is_empty() {
        users = others(room, [Membership::Leave, Membership::Ban], viewer)?;
    }
    let ids = room.rooms().interner().user_ids(room.view(), &users)?;
    if ids.len() > SORTED {
        return Ok(ids.iter().take(HEROES).map(ToString::to_string).collect());
    }
    let mut aged = Vec::with_capacity(ids.len());
    for id in &ids {
        let id: &UserId = id;
        aged.push((room.state_entry(state, "m.room.member", id.as_str())?, id));
    }
    aged.sort();
    Ok(aged
        .into_iter()
        .take(HEROES)
        .map(|(_, id)| id.to_string())
        .collect())
}

fn others(
    room: &RoomView<'_>,
    memberships: [Membership; 2],
    viewer: UserNum,
) -> Result<Vec<UserNum>, StoreError> {
    let mut users = Vec::new();
    for membership in memberships {
        let left = SORTED + 1 - users.len().min(SORTED + 1);
        // One more, for the viewer himself.
        let scan = Scan::prefix(&(room.num(), membership)).limit(left + 1);
        for key in room.view().keys::<RoomMembers>(scan) {
            let (_, _, user) = key?;
            if user != viewer {
                users.push(user);
            }
        }
    }
    Ok(users)
}
