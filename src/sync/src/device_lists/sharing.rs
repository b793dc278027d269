//! Whether two users share a room.

use std::collections::BTreeSet;

use myelin_data::rooms::{Heads, Membership, RoomMembers, UserRooms};
use myelin_store::{Scan, StoreError, View};
use myelin_types::{Pos, RoomNum, UserNum};

use crate::relations::Relations;

/// How many rows are walked before the next room of the other is looked for anew.
const WALKED: usize = 8;
/// Up to how many users each is compared by himself.
const FEW: usize = 256;

/// The rooms that a user is in.
pub(super) struct Sharing<'a> {
    view: &'a View,
    /// By ascending number, with the position at which he came in.
    rooms: Vec<(RoomNum, Pos)>,
}

impl<'a> Sharing<'a> {
    pub(super) fn of(view: &'a View, relations: &Relations) -> Self {
        let joined = relations
            .rooms
            .iter()
            .filter(|(_, relation)| relation.membership == Membership::Join);
        Self {
            view,
            rooms: joined
                .map(|(room, relation)| (*room, relation.pos))
                .collect(),
        }
    }

    /// Whether he shares a room with `other`; with `since`, whether they have been in it together since then.
    ///
    /// The rooms of both ascend, so that each leaps to the next that the other may have: whoever is in few rooms decides what
    /// it costs.
    pub(super) fn with(&self, other: UserNum, since: Option<Pos>) -> Result<bool, StoreError> {
        let early = |pos: Pos| since.is_none_or(|since| pos <= since);
        let mut rooms = self.rooms.as_slice();
        while let Some((first, _)) = rooms.first() {
            let scan = Scan::prefix(&other).from(&(other, *first)).limit(WALKED);
            let mut walked = 0;
            for row in self.view.scan::<UserRooms>(scan) {
                walked += 1;
                let ((_, room), relation) = row?;
                let passed = rooms.partition_point(|(own, _)| *own < room);
                rooms = rooms.get(passed..).unwrap_or_default();
                let Some((own, pos)) = rooms.first() else {
                    return Ok(false);
                };
                if *own == room {
                    let together = relation.membership == Membership::Join;
                    if together && early(*pos) && early(relation.pos) {
                        return Ok(true);
                    }
                    rooms = &rooms[1..];
                }
            }
            if walked < WALKED {
                break;
            }
        }
        Ok(false)
    }

    /// Those of some users with whom he shares a room.
    ///
    /// Few are compared one by one. Of many, either that is done or the members of his rooms are looked through, whichever
    /// is less.
    pub(super) fn among(&self, users: &BTreeSet<UserNum>) -> Result<BTreeSet<UserNum>, StoreError> {
        if users.len() > FEW && self.members()? <= users.len() as u64 * 4 {
            return self.members_among(users);
        }
        let mut sharing = BTreeSet::new();
        for user in users {
            if self.with(*user, None)? {
                sharing.insert(*user);
            }
        }
        Ok(sharing)
    }

    /// How many members his rooms have together.
    fn members(&self) -> Result<u64, StoreError> {
        let rooms: Vec<RoomNum> = self.rooms.iter().map(|(room, _)| *room).collect();
        let heads = self.view.multi_get::<Heads>(&rooms)?;
        Ok(heads.into_iter().flatten().map(|head| head.joined).sum())
    }

    fn members_among(&self, users: &BTreeSet<UserNum>) -> Result<BTreeSet<UserNum>, StoreError> {
        let mut sharing = BTreeSet::new();
        for (room, _) in &self.rooms {
            for key in self
                .view
                .keys::<RoomMembers>(Scan::prefix(&(*room, Membership::Join)))
            {
                let (.., user) = key?;
                if users.contains(&user) {
                    sharing.insert(user);
                }
            }
            if sharing.len() == users.len() {
                break;
            }
        }
        Ok(sharing)
    }
}
