//! The device lists that a client has to ask for anew, and those that it need not follow any more.
//!
//! Spec: client-server API, "Tracking the device list for a user", the extensions to `/sync`, and `GET /keys/changes`.
//!
//! A change of a list is one row, with its user. Whom it concerns is found out when somebody syncs:
//! 1. users whose lists changed, if they share a room with him or are himself;
//! 2. users who came into a room that he is in, and the members of rooms that he came into, unless they shared one before;
//!    with such members also himself;
//! 3. users whose keys he signed, since only he is shown that;
//! 4. users who went out of such a room, and the members of rooms that he went out of, if no other room is shared: `left`.
//!
//! Whether a room is encrypted makes no difference: clients ask for the lists of a room's members as soon as it is, and what
//! they do not track does not interest them. What happened lately is known in memory ([`news`]), so that nothing is read for
//! who has nothing new.

mod news;
mod sharing;

pub(crate) use news::News;

use std::collections::{BTreeMap, BTreeSet};

use myelin_data::{
    e2ee::{DeviceListsByPos, KeySignatures},
    rooms::{Membership, RoomMembers, UserRoom, UserRooms},
};
use myelin_rooms::read::{RoomView, Viewer};
use myelin_store::{Scan, StoreError, View};
use myelin_types::{Pos, RoomNum, UserNum};

use self::sharing::Sharing;
use crate::{DeviceLists, Inner, ends::Ends, relations::Relations};

/// Of how many users who came into a room it is looked whether they shared another one before. Of more, all are told.
const MOST_COMPARED: usize = 1_000;

/// What is new for a user after `since`. `ends` has the ends of timelines at that position.
pub(crate) fn since(
    (sync, view): (&Inner, &View),
    viewer: &Viewer,
    since: Pos,
    relations: &Relations,
    ends: &Ends,
) -> Result<DeviceLists, StoreError> {
    let search = Search {
        sync,
        view,
        viewer,
        since,
        relations,
        ends,
        sharing: Sharing::of(view, relations),
    };
    search.run()
}

struct Search<'a> {
    sync: &'a Inner,
    view: &'a View,
    viewer: &'a Viewer,
    since: Pos,
    relations: &'a Relations,
    ends: &'a Ends,
    sharing: Sharing<'a>,
}

/// Users who may share a room, or no longer.
#[derive(Default)]
struct Moved {
    /// They came into a room that the user is in, or he into theirs.
    entered: BTreeSet<UserNum>,
    /// They went out of a room that he was in, or he out of theirs.
    gone: BTreeSet<UserNum>,
}

impl Search<'_> {
    fn run(&self) -> Result<DeviceLists, StoreError> {
        let own = self.viewer.user;
        let mut lists = self.changed_lists()?;
        let mut changed = BTreeSet::new();
        if lists.remove(&own) {
            changed.insert(own);
        }
        let mut moved = self.moved()?;
        let came = moved.entered.remove(&own);
        moved.gone.remove(&own);
        let new = self.newly_sharing(moved.entered)?;
        // Members whom he meets will send keys to all of his devices, and so has he to.
        if came && !new.is_empty() {
            changed.insert(own);
        }
        changed.extend(new);
        changed.extend(self.signed()?);
        let lists = lists.difference(&changed).copied().collect();
        changed.extend(self.sharing.among(&lists)?);

        let gone: BTreeSet<UserNum> = moved.gone.difference(&changed).copied().collect();
        let still = self.sharing.among(&gone)?;
        let left: BTreeSet<UserNum> = gone.difference(&still).copied().collect();
        Ok(DeviceLists {
            changed: self.ids(changed)?,
            left: self.ids(left)?,
        })
    }

    fn ids(&self, users: BTreeSet<UserNum>) -> Result<Vec<String>, StoreError> {
        let users: Vec<UserNum> = users.into_iter().collect();
        let ids = self.sync.rooms.interner().user_ids(self.view, &users)?;
        Ok(ids.iter().map(ToString::to_string).collect())
    }

    /// Users whose lists changed: one row each, however often that happened.
    fn changed_lists(&self) -> Result<BTreeSet<UserNum>, StoreError> {
        if let Some(known) = self.sync.device_news.lists(self.view, self.since) {
            return Ok(known);
        }
        self.view
            .keys::<DeviceListsByPos>(Scan::all().after(&self.since))
            .map(|key| key.map(|(_, user)| user))
            .collect()
    }

    /// Users of whose keys the user signed one.
    fn signed(&self) -> Result<BTreeSet<UserNum>, StoreError> {
        let (own, news) = (self.viewer.user, &self.sync.device_news);
        let mut signed = BTreeSet::new();
        if !news.may_have_signed(self.view, own, self.since) {
            return Ok(signed);
        }
        for row in self.view.scan::<KeySignatures>(Scan::prefix(&own)) {
            let ((_, user, _), signatures) = row?;
            if signatures.pos > self.since {
                signed.insert(user);
            }
        }
        Ok(signed)
    }

    /// Those of the users who came into a room, or into whose room the user came, with whom he did not share one before.
    fn newly_sharing(&self, entered: BTreeSet<UserNum>) -> Result<BTreeSet<UserNum>, StoreError> {
        if entered.len() > MOST_COMPARED {
            return Ok(entered);
        }
        let mut new = BTreeSet::new();
        for user in entered {
            if !self.sharing.with(user, Some(self.since))? {
                new.insert(user);
            }
        }
        Ok(new)
    }

    /// Who came and went.
    fn moved(&self) -> Result<Moved, StoreError> {
        let mut moved = Moved::default();
        self.add_others(&mut moved)?;
        if self.relations.newest > self.since {
            self.add_own(&mut moved)?;
        }
        Ok(moved)
    }

    /// Adds the members of rooms that the user came into or went out of himself.
    fn add_own(&self, moved: &mut Moved) -> Result<(), StoreError> {
        for (room, relation) in &self.relations.rooms {
            if relation.pos <= self.since {
                continue;
            }
            if relation.membership == Membership::Join {
                moved.entered.extend(self.members(*room)?);
            } else if self
                .was_in(*room, std::iter::once(self.viewer.user))?
                .contains(&self.viewer.user)
            {
                let members: Vec<UserNum> = self.members(*room)?.into_iter().collect();
                let keys: Vec<_> = members.iter().map(|user| (*user, *room)).collect();
                let rows = self.view.multi_get::<UserRooms>(&keys)?;
                // Who came in later was never there together with him.
                let there =
                    |row: &Option<UserRoom>| row.as_ref().is_some_and(|row| row.pos < relation.pos);
                let there = members.into_iter().zip(rows).filter(|(_, row)| there(row));
                moved.gone.extend(there.map(|(user, _)| user));
            }
        }
        Ok(())
    }

    fn members(&self, room: RoomNum) -> Result<BTreeSet<UserNum>, StoreError> {
        self.view
            .keys::<RoomMembers>(Scan::prefix(&(room, Membership::Join)))
            .map(|key| key.map(|(.., user)| user))
            .collect()
    }

    /// Adds those who came into a room that the user is in, and who went out of one that he is or was in.
    fn add_others(&self, moved: &mut Moved) -> Result<(), StoreError> {
        let news = self.sync.device_news.memberships(self.view, self.since);
        let pairs = match news {
            Some(known) => known,
            None => self.memberships_since()?,
        };
        let (mut keys, mut others) = (Vec::new(), Vec::new());
        for (room, user) in pairs {
            let Some(relation) = self.relations.of(room) else {
                continue;
            };
            let is_in = relation.membership == Membership::Join;
            if user != self.viewer.user && (is_in || relation.pos > self.since) {
                keys.push((user, room));
                others.push(is_in);
            }
        }
        let rows = self.view.multi_get::<UserRooms>(&keys)?;
        let mut gone = BTreeMap::<RoomNum, BTreeSet<UserNum>>::new();
        for (((user, room), is_in), row) in keys.into_iter().zip(others).zip(rows) {
            let Some(row) = row.filter(|row| row.pos > self.since) else {
                continue;
            };
            if row.membership != Membership::Join {
                gone.entry(room).or_default().insert(user);
            } else if is_in {
                moved.entered.insert(user);
            }
        }
        for (room, users) in gone {
            // Most who go still share another room; of the others it is looked whether they were in this one.
            let sharing = self.sharing.among(&users)?;
            let users = users.difference(&sharing).copied();
            moved.gone.extend(self.was_in(room, users)?);
        }
        Ok(())
    }

    /// Those of some users who were in a room at the client's token.
    fn was_in(
        &self,
        room: RoomNum,
        users: impl Iterator<Item = UserNum>,
    ) -> Result<BTreeSet<UserNum>, StoreError> {
        let users: Vec<UserNum> = users.collect();
        if users.is_empty() {
            return Ok(BTreeSet::new());
        }
        let room = RoomView::open(&self.sync.rooms, self.view, room)?;
        let Some((_, state)) = self.ends.of(&room, self.since)? else {
            return Ok(BTreeSet::new());
        };
        let ids = self.sync.rooms.interner().user_ids(self.view, &users)?;
        let mut were = BTreeSet::new();
        for (user, id) in users.into_iter().zip(&ids) {
            if room.membership(state, id)? == Membership::Join {
                were.insert(user);
            }
        }
        Ok(were)
    }

    /// The memberships that differ from those at the token, in rooms of the user, by the states then and now: for tokens from
    /// before what is remembered.
    fn memberships_since(&self) -> Result<BTreeSet<(RoomNum, UserNum)>, StoreError> {
        let mut moved = BTreeSet::new();
        let interner = self.sync.rooms.interner();
        for (num, relation) in &self.relations.rooms {
            let concerns = relation.membership == Membership::Join || relation.pos > self.since;
            let positions = self.sync.rooms.positions(self.view, *num)?;
            if !concerns || positions.timeline <= self.since {
                continue;
            }
            let room = RoomView::open(&self.sync.rooms, self.view, *num)?;
            let Some((_, then)) = self.ends.of(&room, self.since)? else {
                continue;
            };
            for change in room.state_diff(then, room.current()?)? {
                if !change.key.is_member() {
                    continue;
                }
                let key = interner.state_key(self.view, change.key)?;
                if let Ok(user_id) = ruma::UserId::parse(key.state_key.as_str())
                    && let Some(user) = interner.find_user(self.view, &user_id)?
                {
                    moved.insert((*num, user));
                }
            }
        }
        Ok(moved)
    }
}
