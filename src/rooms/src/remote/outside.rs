//! Rooms that are known only from outside: before somebody of this server is in them, or while nobody is.

use std::sync::Arc;

use myelin_data::{
    accounts::Number,
    rooms::{Membership as Stored, Room, RoomMembers, RoomNums, Rooms as RoomRows, UserRooms},
};
use myelin_rules::RoomVersion;
use myelin_store::{Batch, Scan, StoreError, View};
use ruma::{OwnedServerName, OwnedUserId, RoomId, UserId};

use crate::{Failure, RoomHandle, Rooms, pipeline::stored_state};

/// Most servers that are named.
const MOST_SERVERS: usize = 10;
/// Most members that are looked at for their servers.
const MOST_MEMBERS: usize = 500;

impl Rooms {
    /// The room of an id, numbered now if it was never met. The version is that of a room that is known already.
    pub async fn meet(
        &self,
        room_id: &RoomId,
        version: RoomVersion,
    ) -> Result<RoomHandle, Failure> {
        if let Some(handle) = self.find_now(room_id).await? {
            return Ok(handle);
        }
        let num = self.0.interner.next_room().await?;
        let room = Room {
            room_id: room_id.to_string(),
            version: version.to_string(),
            created_at: self.0.clock.now(),
        };
        let mut batch = Batch::new();
        batch.expect::<RoomNums>(&room.room_id, None);
        batch.put::<RoomNums>(&room.room_id, &Number(num.0));
        batch.put::<RoomRows>(&num, &room);
        match self.0.store.commit(batch).await {
            Ok(_) => Ok(RoomHandle {
                num,
                room: Arc::new(room),
                version,
            }),
            // Somebody else has met it in the same moment.
            Err(error) => match self.find_now(room_id).await? {
                Some(handle) => Ok(handle),
                None => Err(error.into()),
            },
        }
    }

    /// Other servers that may know a room better than this one, the likeliest first: that of whoever invited the user, those
    /// of users with power in the room, those of members, by what was known last.
    pub async fn likely_servers(
        &self,
        room_id: &RoomId,
        user: &UserId,
    ) -> Result<Vec<OwnedServerName>, Failure> {
        let (rooms, room_id, user) = (self.clone(), room_id.to_owned(), user.to_owned());
        let read = move |view: &View| {
            let mut users: Vec<OwnedUserId> = Vec::new();
            let Some(handle) = rooms.find(view, &room_id)? else {
                return Ok(users);
            };
            let relation = match rooms.0.interner.find_user(view, &user)? {
                Some(num) => view.get::<UserRooms>(&(num, handle.num))?,
                None => None,
            };
            if let Some(relation) = relation.filter(|row| row.membership == Stored::Invite)
                && let Some(invitation) = rooms.event(view, handle.num, relation.event)?
            {
                users.extend(OwnedUserId::try_from(invitation.pdu.sender()));
            }
            users.extend(stored_state(&rooms, view, &handle)?.users_with_levels());
            let joined = Scan::prefix(&(handle.num, Stored::Join)).limit(MOST_MEMBERS);
            let members = view
                .keys::<RoomMembers>(joined)
                .map(|key| key.map(|(.., user)| user))
                .collect::<Result<Vec<_>, StoreError>>()?;
            users.extend(rooms.0.interner.user_ids(view, &members)?);
            Ok::<_, StoreError>(users)
        };
        let mut servers: Vec<OwnedServerName> = Vec::new();
        for user in self.0.store.read(read).await? {
            let server = user.server_name();
            if server != self.0.server_name && !servers.iter().any(|known| known == server) {
                servers.push(server.to_owned());
            }
        }
        servers.truncate(MOST_SERVERS);
        Ok(servers)
    }
}
