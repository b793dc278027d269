//! Unread counts: what a user has not read of a room, counted when somebody asks.
//!
//! Spec: client-server API, "Receiving notifications" and "Threaded read receipts". A count is true at a place of the
//! timeline and for the receipts that it knew; the next one goes on from there. Nothing is written when an event is
//! sent, and little when it is read: counts are kept in memory, and saved only when much was counted since the last time.
//!
//! An event counts when the user's push rules notify him of it, he did not send it, and no receipt of his reaches it: an
//! unthreaded one, one for its thread, or a message of his own in its thread, which says just as well that he has read
//! so far.

mod counting;
mod thread;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use myelin_data::rooms::{Membership, Place, Receipts, UnreadCount, UnreadCounts, UserRoom};
use myelin_rooms::read::{RoomView, Viewer};
use myelin_store::{Batch, Scan, Store, StoreError};
use myelin_types::{Pos, RoomNum, UserNum};
use quick_cache::sync::Cache;

use self::counting::Counting;
use crate::{Inner, UnreadNotifications};

/// The name of the main timeline among threads.
const MAIN: &str = "main";
/// How many counts are kept in memory, at about 200 bytes each.
const REMEMBERED: usize = 50_000;
/// A count is saved when more entries than this were looked at since it was saved last.
const UNSAVED: usize = 200;

/// Counts that were made before.
pub(crate) struct UnreadCache {
    counts: Cache<(UserNum, RoomNum), Arc<Counted>>,
}

impl Default for UnreadCache {
    fn default() -> Self {
        Self {
            counts: Cache::new(REMEMBERED),
        }
    }
}

/// What an answer asks to be remembered of unread counts.
#[derive(Default)]
pub(crate) struct UnreadNotes {
    /// What was counted.
    pub(crate) counted: Vec<Counted>,
    /// The rooms that the user left, whose saved counts nobody needs any more.
    pub(crate) gone: Vec<RoomNum>,
}

/// What a user has not read of a room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Counted {
    room: RoomNum,
    /// The place up to which events were counted.
    at: Place,
    /// The newest of the user's receipts that was known.
    receipts: Pos,
    /// By thread, [`MAIN`] among them; threads without unread events are left out.
    threads: BTreeMap<String, UnreadNotifications>,
    /// How many entries were looked at since this was saved.
    unsaved: usize,
}

impl Counted {
    /// Of the main timeline.
    pub(crate) fn main(&self) -> UnreadNotifications {
        self.threads.get(MAIN).copied().unwrap_or_default()
    }

    /// Of each thread.
    pub(crate) fn threads(&self) -> BTreeMap<String, UnreadNotifications> {
        let threads = self.threads.iter().filter(|(thread, _)| *thread != MAIN);
        threads
            .map(|(thread, count)| (thread.clone(), *count))
            .collect()
    }

    /// Of the whole room.
    pub(crate) fn total(&self) -> UnreadNotifications {
        let counts = self.threads.values();
        counts.fold(UnreadNotifications::default(), |sum, count| {
            sum.plus(*count)
        })
    }
}

impl UnreadCache {
    /// Keeps the counts of an answer, saves those that were laborious, and deletes those of rooms that were left. Nobody
    /// waits for the write: without it they are counted again.
    pub(crate) fn remember(&self, store: &Store, user: UserNum, notes: UnreadNotes) {
        let mut batch = Batch::new();
        let mut writes = !notes.gone.is_empty();
        for room in notes.gone {
            batch.delete_prefix::<UnreadCounts>(&(user, room));
            self.counts.remove(&(user, room));
        }
        for mut counted in notes.counted {
            if counted.unsaved > UNSAVED {
                counted.unsaved = 0;
                counted.save(&mut batch, user);
                writes = true;
            }
            let key = (user, counted.room);
            let newer = self
                .counts
                .get(&key)
                .is_none_or(|known| known.at <= counted.at);
            if newer {
                self.counts.insert(key, Arc::new(counted));
            }
        }
        if writes {
            drop(store.commit(batch));
        }
    }
}

/// Whether a count of the user's is saved for a room.
pub(crate) fn is_saved(room: &RoomView<'_>, user: UserNum) -> Result<bool, StoreError> {
    let row = (user, room.num(), String::new());
    room.view().contains::<UnreadCounts>(&row)
}

impl Counted {
    /// The row without a thread says where the counting stands; the others have the counts.
    fn save(&self, batch: &mut Batch, user: UserNum) {
        let row = |count: UnreadNotifications| UnreadCount {
            at: self.at,
            receipts: self.receipts,
            notifications: count.notification_count,
            highlights: count.highlight_count,
        };
        batch.delete_prefix::<UnreadCounts>(&(user, self.room));
        batch.put::<UnreadCounts>(&(user, self.room, String::new()), &row(self.total()));
        for (thread, count) in &self.threads {
            batch.put::<UnreadCounts>(&(user, self.room, thread.clone()), &row(*count));
        }
    }

    fn saved(room: &RoomView<'_>, user: UserNum) -> Result<Option<Counted>, StoreError> {
        let mut counted = None;
        for row in room
            .view()
            .scan::<UnreadCounts>(Scan::prefix(&(user, room.num())))
        {
            let ((_, _, thread), row) = row?;
            let counted = counted.get_or_insert_with(|| Counted {
                room: room.num(),
                at: row.at,
                receipts: row.receipts,
                threads: BTreeMap::new(),
                unsaved: 0,
            });
            if !thread.is_empty() {
                let count = UnreadNotifications {
                    highlight_count: row.highlights,
                    notification_count: row.notifications,
                };
                counted.threads.insert(thread, count);
            }
        }
        Ok(counted)
    }
}

/// Up to where the user has read, by his receipts.
struct Read {
    /// The newest receipt.
    pos: Pos,
    everywhere: Place,
    /// By thread, with the receipt's position.
    threads: HashMap<String, (Place, Pos)>,
    everywhere_pos: Pos,
}

impl Read {
    fn of(room: &RoomView<'_>, user: UserNum, stay: Place) -> Result<Read, StoreError> {
        let mut read = Read {
            pos: Pos::ZERO,
            everywhere: stay,
            threads: HashMap::new(),
            everywhere_pos: Pos::ZERO,
        };
        for row in room
            .view()
            .scan::<Receipts>(Scan::prefix(&(room.num(), user)))
        {
            let ((_, _, _, thread), receipt) = row?;
            read.pos = read.pos.max(receipt.pos);
            if thread.is_empty() {
                read.everywhere = read.everywhere.max(receipt.place);
                read.everywhere_pos = read.everywhere_pos.max(receipt.pos);
            } else {
                let (place, pos) = read.threads.entry(thread).or_default();
                *place = (*place).max(receipt.place);
                *pos = (*pos).max(receipt.pos);
            }
        }
        Ok(read)
    }

    /// Up to where a thread is read.
    fn mark(&self, thread: &str) -> Place {
        let of_thread = self.threads.get(thread).map(|(place, _)| *place);
        of_thread.map_or(self.everywhere, |place| place.max(self.everywhere))
    }
}

/// What is to be counted anew.
enum Anew {
    /// Everything.
    All,
    /// The threads whose receipts have moved; the others only from where they were counted up to.
    Threads(Vec<String>),
}

/// Counts what the user has not read of a room at the end of its timeline.
pub(crate) fn count(
    sync: &Inner,
    room: &RoomView<'_>,
    viewer: &Viewer,
    relation: &UserRoom,
) -> Result<Counted, StoreError> {
    let user = viewer.user;
    let Some((last, last_entry)) = room.last()? else {
        return Ok(Counted::nothing(room.num(), Place::START));
    };
    let stay = stay_began(room, relation)?;
    let read = Read::of(room, user, stay)?;
    let base = match sync.unread.counts.get(&(user, room.num())) {
        Some(known) => Some((*known).clone()),
        None => Counted::saved(room, user)?,
    };
    // What another sync counted at a later view, or in an earlier stay, is of no use.
    let base = base.filter(|base| base.at <= last && base.at >= stay && base.receipts <= read.pos);
    let (mut counted, anew, low) = match base {
        None => {
            let from = read.everywhere;
            (Counted::nothing(room.num(), from), Anew::All, from)
        }
        Some(mut base) => {
            let (anew, low) = base.forget_read(&read);
            (base, anew, low)
        }
    };
    let before = std::mem::replace(&mut counted.at, last);
    counted.receipts = read.pos;
    if low >= last {
        return Ok(counted);
    }
    let mut counting = Counting {
        sync,
        room,
        viewer,
        read: &read,
        anew: &anew,
        before,
        rules: None,
        ignored: ignored(sync, room, user)?,
        circumstances: None,
        threads: &mut counted.threads,
    };
    counted.unsaved += counting.run(low, last, &last_entry)?;
    counted
        .threads
        .retain(|_, count| *count != UnreadNotifications::default());
    Ok(counted)
}

impl Counted {
    fn nothing(room: RoomNum, at: Place) -> Self {
        Self {
            room,
            at,
            receipts: Pos::ZERO,
            threads: BTreeMap::new(),
            unsaved: 0,
        }
    }

    /// Takes out what newer receipts have reached. Returns what must be counted anew, and after which place to begin.
    fn forget_read(&mut self, read: &Read) -> (Anew, Place) {
        if read.everywhere_pos > self.receipts {
            self.threads.clear();
            return (Anew::All, read.everywhere.min(self.at));
        }
        let mut low = self.at;
        let mut moved = Vec::new();
        for (thread, (_, pos)) in &read.threads {
            if *pos > self.receipts && self.threads.remove(thread).is_some() {
                low = low.min(read.mark(thread));
                moved.push(thread.clone());
            }
        }
        (Anew::Threads(moved), low)
    }
}

/// The place where the user's present stay in the room began.
fn stay_began(room: &RoomView<'_>, relation: &UserRoom) -> Result<Place, StoreError> {
    let mut place = relation.place;
    let mut event = room.event(relation.event)?;
    // Members who change their names more often than that are taken to have joined later.
    for _ in 0..100 {
        let Some(replaced) = event.header.replaces else {
            break;
        };
        event = room.event(replaced)?;
        let membership = event
            .pdu
            .content()
            .get("membership")
            .and_then(|value| value.as_str());
        if membership != Some(Membership::Join.as_str()) {
            break;
        }
        place = event.header.place.unwrap_or(place);
    }
    Ok(place)
}

/// The numbers of those whom the user ignores.
fn ignored(sync: &Inner, room: &RoomView<'_>, user: UserNum) -> Result<Vec<UserNum>, StoreError> {
    let mut nums = Vec::new();
    for id in sync.accounts.ignored_users(room.view(), user)? {
        nums.extend(room.rooms().interner().find_user(room.view(), &id)?);
    }
    Ok(nums)
}
