//! Rooms that are known only from outside: before somebody of this server is in them, or while nobody is.

use std::sync::Arc;

use myelin_data::{
    Shown,
    accounts::Number,
    rooms::{
        Heads, Membership as Stored, Room, RoomMembers, RoomNums, Rooms as RoomRows,
        StrippedStates, UserRooms,
    },
    topic::Changed,
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
    /// The room of an id, numbered now if it was never met. The version may be another one if the server has some of the
    /// room's history.
    pub async fn meet(
        &self,
        room_id: &RoomId,
        version: RoomVersion,
    ) -> Result<RoomHandle, Failure> {
        if let Some(handle) = self.find_now(room_id).await? {
            if handle.version == version {
                return Ok(handle);
            }
            return self.meet_anew(handle, version).await;
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

    /// The version of a room, if this server knows it.
    pub async fn known_version(&self, room_id: &RoomId) -> Result<Option<RoomVersion>, Failure> {
        let handle = self.find_now(room_id).await?;
        Ok(handle.map(|handle| handle.version))
    }

    /// Starts anew with a room of which another version was told than it turns out to have, as long as it is known only from
    /// outside: then nothing else that was told of it holds either, and whoever was invited by that was invited by a lie.
    async fn meet_anew(
        &self,
        known: RoomHandle,
        version: RoomVersion,
    ) -> Result<RoomHandle, Failure> {
        let (room_id, old) = (known.room.room_id.clone(), known.num);
        let read = move |view: &View| {
            let members = view
                .keys::<RoomMembers>(Scan::prefix(&old))
                .collect::<Result<Vec<_>, StoreError>>()?;
            Ok::<_, StoreError>((view.get::<Heads>(&old)?.is_some(), members))
        };
        let (has_history, members) = self.0.store.read(read).await?;
        if has_history {
            return Ok(known);
        }
        let num = self.0.interner.next_room().await?;
        let room = Room {
            version: version.to_string(),
            ..Room::clone(&known.room)
        };
        let mut batch = Batch::new();
        batch.expect::<RoomNums>(&room_id, Some(&Number(old.0)));
        batch.expect::<Heads>(&old, None);
        for (_, membership, user) in members {
            batch.delete::<RoomMembers>(&(old, membership, user));
            batch.delete::<UserRooms>(&(user, old));
            batch.delete::<StrippedStates>(&(user, old));
            batch.touch(Changed::User(user).into());
        }
        batch.put::<RoomNums>(&room_id, &Number(num.0));
        batch.put::<RoomRows>(&num, &room);
        self.0.store.commit(batch).await?;
        self.0.interner.renumbered(&room_id, num);
        Ok(RoomHandle {
            num,
            room: Arc::new(room),
            version,
        })
    }

    /// A room that this server is in, and of which it knows all members: so that it can judge who may come in.
    pub(super) async fn whole_room(&self, room_id: &RoomId) -> Result<Option<RoomHandle>, Failure> {
        let handle = self.resident_room(room_id).await?;
        Ok(handle.filter(|handle| !self.0.partial.is_partial(handle.num)))
    }

    /// Whether a user of this server is in a room.
    pub async fn is_in(&self, room_id: &RoomId) -> Result<bool, Failure> {
        Ok(self.resident_room(room_id).await?.is_some())
    }

    /// The servers that told a user of a room: of an invitation, or in answer to a knock; and that of whoever invited him.
    pub async fn telling_servers(
        &self,
        room_id: &RoomId,
        user: &UserId,
    ) -> Result<Vec<OwnedServerName>, Failure> {
        let (rooms, room_id, user) = (self.clone(), room_id.to_owned(), user.to_owned());
        let read = move |view: &View| match rooms.find(view, &room_id)? {
            Some(handle) => rooms.told_by(view, &handle, &user),
            None => Ok(Vec::new()),
        };
        Ok(self.0.store.read(read).await?)
    }

    fn told_by(
        &self,
        view: &View,
        handle: &RoomHandle,
        user: &UserId,
    ) -> Result<Vec<OwnedServerName>, StoreError> {
        let mut told = Vec::new();
        let Some(num) = self.0.interner.find_user(view, user)? else {
            return Ok(told);
        };
        let key = (num, handle.num);
        if let Some(Shown::Raw { via, .. }) = view.get::<StrippedStates>(&key)? {
            let named = via.into_iter();
            told.extend(named.filter_map(|name| OwnedServerName::try_from(name).ok()));
        }
        let relation = view.get::<UserRooms>(&key)?;
        if let Some(relation) = relation.filter(|row| row.membership == Stored::Invite)
            && let Some(invitation) = self.event(view, handle.num, relation.event)?
            && let Ok(inviter) = UserId::parse(invitation.pdu.sender())
        {
            told.push(inviter.server_name().to_owned());
        }
        Ok(told)
    }

    /// Other servers that may know a room better than this one, the likeliest first: those that told of an invitation or
    /// took a knock, that of whoever invited the user, those of users with power in the room, those of members, by what was known last.
    pub async fn likely_servers(
        &self,
        room_id: &RoomId,
        user: &UserId,
    ) -> Result<Vec<OwnedServerName>, Failure> {
        let (rooms, room_id, user) = (self.clone(), room_id.to_owned(), user.to_owned());
        let read = move |view: &View| {
            let Some(handle) = rooms.find(view, &room_id)? else {
                return Ok((Vec::new(), Vec::new()));
            };
            let told = rooms.told_by(view, &handle, &user)?;
            let mut users: Vec<OwnedUserId> = Vec::new();
            users.extend(stored_state(&rooms, view, &handle)?.users_with_levels());
            let joined = Scan::prefix(&(handle.num, Stored::Join)).limit(MOST_MEMBERS);
            let members = view
                .keys::<RoomMembers>(joined)
                .map(|key| key.map(|(.., user)| user))
                .collect::<Result<Vec<_>, StoreError>>()?;
            users.extend(rooms.0.interner.user_ids(view, &members)?);
            Ok::<_, StoreError>((told, users))
        };
        let mut servers: Vec<OwnedServerName> = Vec::new();
        let (told, users) = self.0.store.read(read).await?;
        let of_users = users.iter().map(|user| user.server_name().to_owned());
        for server in told.into_iter().chain(of_users) {
            if server != self.0.server_name && !servers.contains(&server) {
                servers.push(server);
            }
        }
        servers.truncate(MOST_SERVERS);
        Ok(servers)
    }
}
