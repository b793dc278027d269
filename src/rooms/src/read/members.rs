//! `GET /rooms/{roomId}/members` and `/joined_members`.

use std::{collections::BTreeMap, sync::Arc};

use myelin_data::rooms::{Membership, Place};
use myelin_state::Root;
use ruma::{OwnedUserId, RoomId};
use serde::Serialize;
use serde_json::value::RawValue;

use super::{
    Access, EVENTS_AT_ONCE, Format, ReadError, RoomView, Shaper, Viewer, room_view::membership_of,
};
use crate::{Event, Rooms, token::Token};

/// Which members to return.
#[derive(Clone, Debug, Default)]
pub struct MembersQuery {
    /// As of when; none for now.
    pub at: Option<Token>,
    /// Only those with this membership.
    pub membership: Option<Membership>,
    /// Only those without this membership.
    pub not_membership: Option<Membership>,
}

/// The joined members of a room, as the specification's response body.
#[derive(Clone, Debug, Default, Serialize)]
pub struct JoinedMembers {
    /// What each shows of himself.
    pub joined: BTreeMap<OwnedUserId, JoinedMember>,
}

/// What a member shows of himself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct JoinedMember {
    /// His name. Null where he has none, since clients expect the field.
    pub display_name: Option<String>,
    /// His picture; null likewise.
    pub avatar_url: Option<String>,
}

impl Rooms {
    /// Membership events of a room, as of his leaving at the latest for a user who left.
    pub async fn members(
        &self,
        viewer: &Viewer,
        room_id: &RoomId,
        query: MembersQuery,
    ) -> Result<Vec<Box<RawValue>>, ReadError> {
        self.know_all_members(room_id).await?;
        self.read_room(viewer, room_id, move |room, viewer| {
            let access = Access::of(room, viewer.user)?;
            let state = match (access, &query.at) {
                (Access::Peeking | Access::None(_), _) => return Err(ReadError::NotInRoom),
                (access, None) => access.state(room)?,
                (access, Some(at)) => state_at(room, &access, at)?,
            };
            let entries: Vec<_> = room
                .member_entries(state)?
                .iter()
                .map(|entry| entry.1)
                .collect();
            let is_wanted = |member: &Arc<Event>| {
                let membership = membership_of(member);
                match (query.membership, query.not_membership) {
                    (Some(is), Some(not)) => membership == is || membership != not,
                    (Some(is), None) => membership == is,
                    (None, Some(not)) => membership != not,
                    (None, None) => true,
                }
            };
            let shaper = Shaper::new(room, viewer, Format::Client);
            let mut told = Vec::with_capacity(entries.len());
            for entries in entries.chunks(EVENTS_AT_ONCE) {
                let mut members = room.events(entries)?;
                members.retain(is_wanted);
                told.append(&mut shaper.state(&members)?);
            }
            Ok(told)
        })
        .await
    }

    /// The joined members of a room. Only members are told.
    pub async fn joined_members(
        &self,
        viewer: &Viewer,
        room_id: &RoomId,
    ) -> Result<JoinedMembers, ReadError> {
        self.know_all_members(room_id).await?;
        self.read_room(viewer, room_id, |room, viewer| {
            if Access::of(room, viewer.user)? != Access::Joined {
                return Err(ReadError::NotInRoom);
            }
            let entries: Vec<_> = room
                .member_entries(room.current()?)?
                .iter()
                .map(|entry| entry.1)
                .collect();
            let mut members = JoinedMembers::default();
            for event in room.events(&entries)? {
                let user = event
                    .pdu
                    .state_key()
                    .and_then(|key| OwnedUserId::try_from(key).ok());
                let (Membership::Join, Some(user)) = (membership_of(&event), user) else {
                    continue;
                };
                let text = |name| Some(event.pdu.content().get(name)?.as_str()?.to_owned());
                members.joined.insert(
                    user,
                    JoinedMember {
                        display_name: text("displayname"),
                        avatar_url: text("avatar_url"),
                    },
                );
            }
            Ok(members)
        })
        .await
    }
}

/// The state at a token, at most that at the user's leaving.
///
/// A token of a timeline names the state before its place. The first sync of a young room gives out the point before its
/// first event, where there is no state at all: then the state at the time of that sync is meant.
fn state_at(room: &RoomView<'_>, access: &Access, at: &Token) -> Result<Root, ReadError> {
    let mut point = room.point(at)?;
    if room.last_before(point)?.is_none() {
        let last = room.last_through(at.pos())?;
        point = last.map_or(Place::START, |(place, _)| place.next());
    }
    match access {
        Access::Departed(departure) if point > departure.place => Ok(departure.state),
        _ => Ok(room.state_before(point)?),
    }
}
