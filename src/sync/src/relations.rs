//! Which rooms a user has to do with, remembered between his syncs.

use std::sync::Arc;

use myelin_data::{
    rooms::{UserRoom, UserRooms},
    topic::Changed,
};
use myelin_store::{Observer, Scan, StoreError, Topic, View};
use myelin_types::{Pos, RoomNum, UserNum};
use quick_cache::{Weighter, sync::Cache};

use crate::changes::LastChanges;

/// The rooms that a user has to do with, by ascending number.
pub(crate) struct Relations {
    /// At which position they were read.
    pub(crate) pos: Pos,
    /// Every room with what he is to it.
    pub(crate) rooms: Vec<(RoomNum, UserRoom)>,
    /// The position of the newest among them.
    pub(crate) newest: Pos,
}

impl Relations {
    /// Bytes of memory that the rooms take.
    pub(crate) fn memory(&self) -> usize {
        size_of_val(&*self.rooms)
    }

    /// What he is to one room.
    pub(crate) fn of(&self, room: RoomNum) -> Option<&UserRoom> {
        let at = self.rooms.binary_search_by_key(&room, |(room, _)| *room);
        at.ok().map(|at| &self.rooms[at].1)
    }
}

/// What a user's relations take in memory besides the rooms.
const USER: usize = 192;

/// The relations of users who sync. An entry holds as long as nothing of its user's own changes.
pub(crate) struct RelationsCache {
    users: Cache<UserNum, Arc<Relations>, ByMemory>,
    changes: LastChanges,
}

#[derive(Clone)]
struct ByMemory;

impl Weighter<UserNum, Arc<Relations>> for ByMemory {
    fn weight(&self, _: &UserNum, relations: &Arc<Relations>) -> u64 {
        (USER + relations.memory()) as u64
    }
}

impl RelationsCache {
    /// A cache of at most about so many bytes.
    pub(crate) fn new(bytes: usize) -> Self {
        let (users, changes) = (bytes / 4 * 3, bytes / 4);
        Self {
            users: Cache::with_weighter((users / USER).max(16), users as u64, ByMemory),
            changes: LastChanges::new(changes),
        }
    }

    /// Says that nothing up to `watermark` will be noted, since it was committed before this cache was there.
    pub(crate) fn start(&self, watermark: Pos) {
        self.changes.start(watermark);
    }

    /// Whether something of a user's own may have changed after `since` and up to `view`: his relations, his account data.
    pub(crate) fn may_have_changed(&self, view: &View, user: UserNum, since: Pos) -> bool {
        let last = self.changes.last(view, user);
        last.is_none_or(|last| last > since)
    }

    /// The relations of a user.
    pub(crate) fn get(&self, view: &View, user: UserNum) -> Result<Arc<Relations>, StoreError> {
        let at = view.pos();
        // A view of which that is not known is not served from here.
        if let Some(changed) = self.changes.last(view, user)
            && let Some(relations) = self.users.get(&user)
            && changed <= at.min(relations.pos)
        {
            return Ok(relations);
        }
        let rows = view.scan::<UserRooms>(Scan::prefix(&user));
        let mut rooms = rows
            .map(|row| row.map(|((_, room), relation)| (room, relation)))
            .collect::<Result<Vec<_>, StoreError>>()?;
        rooms.shrink_to_fit();
        let newest = rooms
            .iter()
            .map(|(_, relation): &(_, UserRoom)| relation.pos);
        let relations = Arc::new(Relations {
            pos: at,
            newest: newest.max().unwrap_or(Pos::ZERO),
            rooms,
        });
        self.users.insert(user, Arc::clone(&relations));
        Ok(relations)
    }
}

impl Observer for RelationsCache {
    fn committed(&self, pos: Pos, topics: &[Topic]) {
        for topic in topics {
            if let Some(Changed::User(user)) = Changed::from_topic(*topic) {
                self.changes.note(pos, user);
            }
        }
        self.changes.noted(pos);
    }
}
