//! Whether this server shares a room with a user of another one, and since when.

use myelin_data::{
    rooms::{Membership, UserRooms},
    servers::RoomServers,
};
use myelin_store::{Scan, StoreError, View};
use myelin_types::{Pos, UserNum};

use crate::E2ee;

/// What this server has in common with a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sharing {
    /// No room.
    Nothing,
    /// A room, but perhaps none without a break since the position that was asked for.
    Now,
    /// A room that has been shared without a break since then.
    Since,
}

impl E2ee {
    /// What this server has in common with a user, now and since a position.
    pub(super) fn sharing(
        &self,
        view: &View,
        user: UserNum,
        since: Pos,
    ) -> Result<Sharing, StoreError> {
        let here = self.0.rooms.server_name().to_string();
        let mut found = Sharing::Nothing;
        for row in view.scan::<UserRooms>(Scan::prefix(&user)) {
            let ((_, room), row) = row?;
            if row.membership != Membership::Join {
                continue;
            }
            // Of rooms that this server left, the members stay as they were.
            let ours = view.get::<RoomServers>(&(room, here.clone()))?;
            let Some(ours) = ours.filter(|ours| ours.joined > 0) else {
                continue;
            };
            let began = ours.stays.last().map_or(Pos::ZERO, |stay| stay.from);
            if began.max(row.pos) <= since {
                return Ok(Sharing::Since);
            }
            found = Sharing::Now;
        }
        Ok(found)
    }
}
