//! Which rooms were entered with a part of their state only: kept in memory, as it is asked for by almost everything.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use myelin_data::{
    partial::{PartialJoin, PartialJoins},
    rooms::{Membership, UserRooms},
};
use myelin_store::{Scan, StoreError, View};
use myelin_types::{Pos, RoomNum, UserNum};
use parking_lot::{Mutex, RwLock};
use ruma::{OwnedRoomId, RoomId, UserId};
use tokio::sync::Notify;

use crate::{Failure, Rooms};

/// How far the state of a room is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completeness {
    /// It always was whole.
    Whole,
    /// Members are missing.
    Partial,
    /// It has been whole since this position.
    Since(Pos),
}

impl Completeness {
    fn of(row: &PartialJoin) -> Self {
        match row {
            PartialJoin::Incomplete(_) => Self::Partial,
            PartialJoin::Complete(pos) => Self::Since(*pos),
        }
    }
}

/// The rooms that were ever entered with a part of their state: a dozen bytes each.
#[derive(Debug, Default)]
pub(crate) struct PartialRooms {
    /// None until they were read from the store.
    rooms: RwLock<Option<HashMap<RoomNum, Completeness>>>,
    /// Those of which the last batch that makes them whole is on its way to the disk.
    closing: Mutex<HashSet<RoomNum>>,
    changed: Notify,
}

impl PartialRooms {
    /// Reads the rows, unless that was done. Nothing can be written to them before.
    pub(crate) fn load(&self, view: &View) -> Result<(), StoreError> {
        if self.rooms.read().is_some() {
            return Ok(());
        }
        let mut rooms = self.rooms.write();
        if rooms.is_none() {
            let mut found = HashMap::new();
            for row in view.scan::<PartialJoins>(Scan::all()) {
                let (room, row) = row?;
                found.insert(room, Completeness::of(&row));
            }
            *rooms = Some(found);
        }
        Ok(())
    }

    /// How far the state of a room is known, as of now.
    pub(crate) fn completeness_now(&self, room: RoomNum) -> Completeness {
        let rooms = self.rooms.read();
        let found = rooms.as_ref().and_then(|rooms| rooms.get(&room));
        found.copied().unwrap_or(Completeness::Whole)
    }

    /// Whether members of a room are missing, as of now.
    pub(crate) fn is_partial(&self, room: RoomNum) -> bool {
        self.completeness_now(room) == Completeness::Partial
    }

    /// Whether members of a room are missing for the next writer.
    pub(crate) fn is_partial_for_writers(&self, room: RoomNum) -> bool {
        self.is_partial(room) && !self.closing.lock().contains(&room)
    }

    /// The batch that makes a room whole is about to be queued.
    pub(crate) fn closing(&self, room: RoomNum) {
        self.closing.lock().insert(room);
    }

    /// That batch is durable, or has failed (`None`).
    pub(crate) fn closed(&self, room: RoomNum, completeness: Option<Completeness>) {
        if let Some(completeness) = completeness {
            self.set(room, completeness);
        }
        self.closing.lock().remove(&room);
    }

    fn any_partial(&self) -> bool {
        let rooms = self.rooms.read();
        let mut states = rooms.iter().flat_map(HashMap::values);
        states.any(|completeness| *completeness == Completeness::Partial)
    }

    /// The rooms of which members are missing.
    pub(crate) fn all_partial(&self) -> Vec<RoomNum> {
        let rooms = self.rooms.read();
        let partial = rooms
            .iter()
            .flatten()
            .filter(|(_, completeness)| **completeness == Completeness::Partial);
        partial.map(|(room, _)| *room).collect()
    }

    /// Must be called before the batch that makes a room partial is queued, and after the one that makes it whole is
    /// durable: whoever asks meanwhile waits rather than reads what is not there.
    pub(crate) fn set(&self, room: RoomNum, completeness: Completeness) {
        if let Some(rooms) = self.rooms.write().as_mut() {
            if completeness == Completeness::Whole {
                // It was about to be entered in part, and was not.
                rooms.remove(&room);
            } else {
                rooms.insert(room, completeness);
            }
        }
        self.changed.notify_waiters();
    }
}

impl Rooms {
    /// How far a room's state is known in a view. Reads a row only of a room that was lately entered.
    pub fn completeness(&self, view: &View, room: RoomNum) -> Result<Completeness, StoreError> {
        self.0.partial.load(view)?;
        let now = self.0.partial.completeness_now(room);
        let may_differ = match now {
            Completeness::Whole => false,
            // Readers are woken by the batch that makes the room whole before it is noted in memory.
            Completeness::Partial => true,
            // The view was taken before.
            Completeness::Since(pos) => pos > view.pos(),
        };
        if !may_differ {
            return Ok(now);
        }
        let row = view.get::<PartialJoins>(&room)?;
        Ok(row.as_ref().map_or(Completeness::Whole, Completeness::of))
    }

    /// Waits until all of a room's state is known. Answers whether that is so: nobody waits longer than `patience`.
    pub async fn wait_until_whole(
        &self,
        room: &RoomId,
        patience: Duration,
    ) -> Result<bool, StoreError> {
        if !self.0.partial.any_partial() {
            return Ok(true);
        }
        let Some(handle) = self.find_now(room).await? else {
            return Ok(true);
        };
        let partial = &self.0.partial;
        let wait = async {
            loop {
                // Registered before the look, so that no change is missed in between.
                let changed = partial.changed.notified();
                if !partial.is_partial(handle.num) {
                    return;
                }
                changed.await;
            }
        };
        Ok(tokio::time::timeout(patience, wait).await.is_ok())
    }

    /// Gives a user of another server a number, if he may be one of the members of a room that are missing: so that
    /// [`Self::present_user`] can tell it. Only servers that are in the room have users numbered so.
    pub(crate) async fn number_missing(&self, room: &RoomId, user: &UserId) -> Result<(), Failure> {
        if !self.0.partial.any_partial() || self.is_local(user) {
            return Ok(());
        }
        let Some(handle) = self.find_now(room).await? else {
            return Ok(());
        };
        if !self.0.partial.is_partial(handle.num) {
            return Ok(());
        }
        let (rooms, server) = (self.clone(), user.server_name().to_owned());
        let read = move |view: &View| rooms.is_server_in_room(view, handle.num, &server);
        if self.0.store.read(read).await? {
            self.0.interner.user(user).await?;
        }
        Ok(())
    }

    /// The number of a user who is joined to a room. While members are missing, also of one of whom nothing is known but
    /// that his server is in the room.
    pub(crate) fn present_user(
        &self,
        view: &View,
        room: RoomNum,
        user: &UserId,
    ) -> Result<Option<UserNum>, StoreError> {
        let Some(num) = self.0.interner.find_user(view, user)? else {
            return Ok(None);
        };
        let present = match view.get::<UserRooms>(&(num, room))? {
            Some(row) => row.membership == Membership::Join,
            None => {
                !self.is_local(user)
                    && self.completeness(view, room)? == Completeness::Partial
                    && self.is_server_in_room(view, room, user.server_name())?
            }
        };
        Ok(present.then_some(num))
    }

    /// The rooms whose state is to be completed.
    pub async fn partial_rooms(&self) -> Result<Vec<OwnedRoomId>, Failure> {
        let rooms = self.clone();
        let read = move |view: &View| {
            rooms.0.partial.load(view)?;
            let nums = rooms.0.partial.all_partial();
            nums.into_iter()
                .map(|num| Ok(rooms.handle(view, num)?.room_id().to_owned()))
                .collect::<Result<Vec<_>, StoreError>>()
        };
        Ok(self.0.store.read(read).await?)
    }
}
