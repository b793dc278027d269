//! Which servers are in which rooms. The rows are written with the memberships, in the pipeline.

use std::collections::BTreeMap;

use myelin_data::{
    log::{Counter, Counters},
    rooms::{Heads, Membership as Stored, RoomMembers, Rooms as RoomRows},
    servers::{RoomServers, ServerInRoom, ServerRooms},
};
use myelin_store::{Batch, Scan, StoreError, View};
use myelin_types::{RoomNum, UserNum};
use ruma::{OwnedServerName, ServerName};

use crate::{Failure, Rooms, read::RoomView};

/// Up to which room the index is known to be complete: the next number, [`COMPLETE`] once all are.
const PROGRESS: &str = "servers_indexed";
const COMPLETE: u64 = u64::MAX;
/// How many rooms a step of building looks at.
const ROOMS_A_STEP: usize = 64;
/// How many members' names are looked up at once.
const MEMBERS_A_READ: usize = 256;

impl Rooms {
    /// Whether a user of a server is joined to a room.
    pub fn is_server_in_room(
        &self,
        view: &View,
        room: RoomNum,
        server: &ServerName,
    ) -> Result<bool, StoreError> {
        match view.get::<RoomServers>(&(room, server.as_str().to_owned()))? {
            Some(row) => Ok(row.joined > 0),
            None if lacks_rows(view, room)? => {
                let counted = self.count_servers(view, room)?;
                Ok(counted.contains_key(server.as_str()))
            }
            None => Ok(false),
        }
    }

    /// The servers whose users are joined to a room, ours among them, by name.
    pub fn servers_in_room(
        &self,
        view: &View,
        room: RoomNum,
    ) -> Result<Vec<OwnedServerName>, StoreError> {
        let rows = self.server_rows(view, room)?;
        let present = rows.into_iter().filter(|(_, row)| row.joined > 0);
        Ok(present.map(|(name, _)| name).collect())
    }

    /// The servers that are or were in a room, with when they were. Those that left go when they have been told.
    pub fn server_rows(
        &self,
        view: &View,
        room: RoomNum,
    ) -> Result<Vec<(OwnedServerName, ServerInRoom)>, StoreError> {
        let mut rows = Vec::new();
        for row in view.scan::<RoomServers>(Scan::prefix(&room)) {
            let ((_, name), row) = row?;
            rows.push((stored_name(&name)?, row));
        }
        if rows.is_empty() && lacks_rows(view, room)? {
            for (name, joined) in self.count_servers(view, room)? {
                rows.push((stored_name(&name)?, ServerInRoom::long_there(joined)));
            }
        }
        Ok(rows)
    }

    /// The rooms in which a server is, or was until it left them and has not been told yet.
    pub fn rooms_of_server(
        &self,
        view: &View,
        server: &ServerName,
    ) -> Result<Vec<RoomNum>, StoreError> {
        view.keys::<ServerRooms>(Scan::prefix(&server.as_str().to_owned()))
            .map(|key| Ok(key?.1))
            .collect()
    }

    /// Whether a user of this server is joined to a room.
    pub(crate) fn is_resident(&self, view: &View, room: RoomNum) -> Result<bool, StoreError> {
        self.is_server_in_room(view, room, &self.0.server_name)
    }

    /// Writes the index for rooms that an older version of the program wrote to, a bounded number at a time. Answers
    /// whether more is left. Until it is done, such a room's members are read instead.
    pub async fn index_servers(&self) -> Result<bool, Failure> {
        let read = |view: &View| {
            let done = view.get::<Counters>(&PROGRESS.to_owned())?;
            let done = done.map_or(0, |counter| counter.0);
            let Ok(from) = u32::try_from(done) else {
                return Ok(None);
            };
            let mut looked_at = Vec::new();
            for room in view.keys::<RoomRows>(Scan::all().from(&RoomNum(from)).limit(ROOMS_A_STEP))
            {
                let room = room?;
                looked_at.push((room, lacks_rows(view, room)?));
            }
            Ok::<_, StoreError>(Some(looked_at))
        };
        let Some(looked_at) = self.0.store.read(read).await? else {
            return Ok(false);
        };
        for (room, lacking) in &looked_at {
            if *lacking {
                let handle = self.handle_now(*room).await?;
                let mut guard = self.lock(&handle).await?;
                // Under the room's lock: a writer may have been faster.
                let room = *room;
                let read = move |view: &View| lacks_rows(view, room);
                guard.settle().await?;
                if self.0.store.read(read).await? {
                    guard.index_servers().await?;
                    guard.commit().durable().await?;
                }
            }
        }
        let next = match looked_at.last() {
            Some((RoomNum(last), _)) if looked_at.len() == ROOMS_A_STEP => u64::from(*last) + 1,
            _ => COMPLETE,
        };
        let mut batch = Batch::new();
        batch.put::<Counters>(&PROGRESS.to_owned(), &Counter(next));
        self.0.store.commit(batch).await?;
        Ok(next != COMPLETE)
    }

    /// How many users of each server are joined to a room, by looking at all of them.
    pub(crate) fn count_servers(
        &self,
        view: &View,
        room: RoomNum,
    ) -> Result<BTreeMap<String, u64>, StoreError> {
        let mut counted = BTreeMap::new();
        let mut users: Vec<UserNum> = Vec::with_capacity(MEMBERS_A_READ);
        let mut count = |users: &mut Vec<UserNum>| {
            for user in self.0.interner.user_ids(view, users)? {
                *counted.entry(user.server_name().to_string()).or_insert(0) += 1;
            }
            users.clear();
            Ok::<_, StoreError>(())
        };
        for key in view.keys::<RoomMembers>(Scan::prefix(&(room, Stored::Join))) {
            users.push(key?.2);
            if users.len() == MEMBERS_A_READ {
                count(&mut users)?;
            }
        }
        count(&mut users)?;
        Ok(counted)
    }
}

impl RoomView<'_> {
    /// Whether a user of a server is joined to the room.
    pub fn has_server(&self, server: &ServerName) -> Result<bool, StoreError> {
        self.rooms()
            .is_server_in_room(self.view(), self.num(), server)
    }

    /// The servers whose users are joined to the room, ours among them, by name.
    pub fn servers(&self) -> Result<Vec<OwnedServerName>, StoreError> {
        self.rooms().servers_in_room(self.view(), self.num())
    }
}

/// Whether a room has members and no rows of servers, because an older version of the program wrote to it last. A room
/// with members that has been written to since has at least one.
pub(crate) fn lacks_rows(view: &View, room: RoomNum) -> Result<bool, StoreError> {
    let mut rows = view.keys::<RoomServers>(Scan::prefix(&room).limit(1));
    if rows.next().transpose()?.is_some() {
        return Ok(false);
    }
    Ok(view
        .get::<Heads>(&room)?
        .is_some_and(|head| head.joined > 0))
}

fn stored_name(name: &str) -> Result<OwnedServerName, StoreError> {
    OwnedServerName::try_from(name).map_err(|_| StoreError::Missing("room_servers"))
}
