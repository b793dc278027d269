//! What a server is answered whose user has joined: the state before the join, its auth chain, the servers in the room.

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
};

use myelin_data::rooms::{Membership as Stored, RoomMembers};
use myelin_state::Root;
use myelin_store::{Scan, StoreError, View};
use myelin_types::{EventNum, RoomNum};
use ruma::{OwnedServerName, UserId};

use super::AcceptedJoin;
use crate::{Event, Failure, RoomHandle, Rooms, membership::MEMBER, read::RoomView};

/// How many members a room without a name is named after (client-server specification, room summary).
const HEROES: usize = 5;
/// How many members are looked at for them.
const MOST_CANDIDATES: usize = 32;

impl Rooms {
    /// The answer to a join that was taken in.
    pub(super) async fn joined(
        &self,
        handle: RoomHandle,
        event: Arc<Event>,
        omit_members: bool,
    ) -> Result<AcceptedJoin, Failure> {
        let (rooms, view) = (self.clone(), self.0.store.view());
        tokio::task::spawn_blocking(move || {
            let room = RoomView::open(&rooms, &view, handle.num)?;
            let before = event.header.before();
            let mut nums: Vec<EventNum> = if omit_members {
                room.state_without_members(before)?
            } else {
                room.state_entries(before)?
            }
            .into_iter()
            .map(|(_, num)| num)
            .collect();
            if omit_members && !is_named(&room, before)? {
                nums.extend(heroes(&room, before, &event)?);
            }
            let state = room.events(&nums)?;
            let roots: Vec<Arc<Event>> = state.iter().chain([&event]).cloned().collect();
            let mut auth_chain = rooms.auth_chain(&view, handle.num, &roots)?;
            if omit_members {
                let told: HashSet<EventNum> = nums.into_iter().collect();
                auth_chain.retain(|event| !told.contains(&event.num));
            }
            Ok::<_, StoreError>(AcceptedJoin {
                room_version: handle.version,
                servers: servers(&room, &event)?,
                event,
                state,
                auth_chain,
                members_omitted: omit_members,
            })
        })
        .await
        .map_err(|_| Failure::CutShort)?
        .map_err(Failure::from)
    }

    /// The auth chain of some events: without them, unless they are in it.
    pub(super) fn auth_chain(
        &self,
        view: &View,
        room: RoomNum,
        events: &[Arc<Event>],
    ) -> Result<Vec<Arc<Event>>, StoreError> {
        let mut seen: BTreeSet<String> = BTreeSet::new();
        let mut chain = Vec::new();
        let mut left: Vec<Arc<Event>> = events.to_vec();
        while !left.is_empty() {
            let ids: Vec<String> = left
                .iter()
                .flat_map(|event| event.pdu.auth_events())
                .filter(|id| !seen.contains(*id))
                .map(str::to_owned)
                .collect();
            let ids: Vec<String> = ids
                .into_iter()
                .filter(|id| seen.insert(id.clone()))
                .collect();
            left = self
                .events_by_id(view, room, &ids)?
                .into_iter()
                .flatten()
                .collect();
            chain.extend(left.iter().cloned());
        }
        Ok(chain)
    }
}

/// Whether a room has a name of its own.
fn is_named(room: &RoomView<'_>, state: Root) -> Result<bool, StoreError> {
    for event_type in ["m.room.name", "m.room.canonical_alias"] {
        if room.state_entry(state, event_type, "")?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The membership events of those after whom the room is named for somebody who joins: members and invited users, else
/// those who were. Of the first that this server met, the ones whose membership is oldest.
fn heroes(room: &RoomView<'_>, state: Root, join: &Event) -> Result<Vec<EventNum>, StoreError> {
    for memberships in [[Stored::Join, Stored::Invite], [Stored::Leave, Stored::Ban]] {
        let mut found = Vec::new();
        for membership in memberships {
            let scan = Scan::prefix(&(room.num(), membership)).limit(MOST_CANDIDATES);
            for key in room.view().keys::<RoomMembers>(scan) {
                let (.., user) = key?;
                if user == join.header.sender {
                    continue;
                }
                let id = room.rooms().interner().user_id(room.view(), user)?;
                found.extend(room.state_entry(state, MEMBER, id.as_str())?);
            }
        }
        if !found.is_empty() {
            found.sort_unstable();
            found.truncate(HEROES);
            return Ok(found);
        }
    }
    Ok(Vec::new())
}

/// The servers that were in the room without the join.
fn servers(room: &RoomView<'_>, join: &Event) -> Result<Vec<OwnedServerName>, StoreError> {
    let rows = room.rooms().server_rows(room.view(), room.num())?;
    let joining = UserId::parse(join.pdu.sender()).ok();
    let joining = joining.as_ref().map(|user| user.server_name());
    let present = rows
        .into_iter()
        .filter(|(name, row)| row.joined > u64::from(Some(&**name) == joining));
    Ok(present.map(|(name, _)| name).collect())
}
