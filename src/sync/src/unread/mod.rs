//! Unread counts: what a user has not read of a room, counted when somebody asks.
//!
//! Spec: client-server API, "Receiving notifications" and "Threaded read receipts". Nothing is written for the members
//! that an event reaches, and little when it is read: counts are kept in memory, and saved only when much was looked at
//! since the last time.
//!
//! An event counts when the user's push rules notify him of it, he did not send it, nobody redacted it, and no receipt of
//! his reaches it: an unthreaded one, one for its thread, or a message of his own in its thread, which says just as well
//! that he has read so far. Counts are exact at the position of the answer, whatever was counted before: they follow from
//! the receipts, rules, ignored users and redactions of that position. (Only the number of members, for rules that ask
//! for it, is always that of today.) A count that was made before goes on from where it stands; a receipt starts its
//! thread anew, a change of the rules, or the redaction of something that was counted, everything.
//!
//! What that costs, where a user comes back to a long gap:
//!
//! - For most it does not depend on the length of the gap. The difference of two running totals of the timeline is what
//!   notifies everybody; what that does not tell of has a row among the [`Notables`](myelin_data::unread::Notables):
//!   entries in threads, mentions, redacted entries. Those rows are walked, and the events of mentions read.
//! - Rules of his own are decided without reading where they say the same of whole classes of events ([`listener`]). A
//!   room that is muted costs nothing.
//! - Who ignores somebody who is or was in the room, or has a rule for such a sender, has every entry of the gap looked
//!   at, but not the events.
//! - Whose rules look at the content of events, for keywords for example, has every event of the gap read, once: the
//!   count is saved.

mod counting;
mod listener;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use myelin_data::{
    rooms::{Head, Place, Receipts, UserRoom},
    unread::{LastSent, MAIN, UnreadCount, UnreadCounts},
};
use myelin_rooms::read::{RoomView, Viewer};
use myelin_store::{Batch, Scan, Store, StoreError};
use myelin_types::{Pos, RoomNum, UserNum};
use quick_cache::{Weighter, sync::Cache};

use self::counting::{Circumstances, Counting};
pub(crate) use self::listener::Listener;
use crate::{Inner, UnreadNotifications};

/// What a count takes in memory besides its threads: itself, the cache's row and its share of the index.
const COUNT: usize = 240;
/// What the count of a thread takes: a map of one thread has room for eleven.
const THREADS: usize = 600;
const THREAD: usize = 128;
/// A count is saved when more rows than this were looked at since it was saved last.
const UNSAVED: usize = 200;

/// Counts that were made before.
pub(crate) struct UnreadCache {
    counts: Cache<(UserNum, RoomNum), Arc<Counted>, ByMemory>,
}

#[derive(Clone)]
struct ByMemory;

impl Weighter<(UserNum, RoomNum), Arc<Counted>> for ByMemory {
    fn weight(&self, _: &(UserNum, RoomNum), counted: &Arc<Counted>) -> u64 {
        let threads = match counted.threads.len() {
            0 => 0,
            count => THREADS + count * THREAD,
        };
        (COUNT + threads) as u64
    }
}

impl UnreadCache {
    /// A memory of at most about so many bytes.
    pub(crate) fn new(bytes: usize) -> Self {
        Self {
            counts: Cache::with_weighter((bytes / COUNT).max(16), bytes as u64, ByMemory),
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
    /// The position at which was counted.
    known: Pos,
    /// How many users were joined then.
    joined: u64,
    /// By thread, [`MAIN`] among them; threads without unread events are left out.
    threads: BTreeMap<String, UnreadNotifications>,
    /// How many rows were looked at since this was saved.
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
                .is_none_or(|other| other.known <= counted.known);
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
            known: self.known,
            notifications: count.notification_count,
            highlights: count.highlight_count,
            joined: self.joined,
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
                known: row.known,
                joined: row.joined,
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

/// Up to where the user has read, by his receipts and messages.
struct Read {
    everywhere: Mark,
    by_thread: HashMap<String, Mark>,
}

/// A place up to which was read, and the position since which that is so.
#[derive(Clone, Copy, Default)]
struct Mark {
    place: Place,
    pos: Pos,
}

impl Mark {
    fn reach(&mut self, place: Place, pos: Pos) {
        self.place = self.place.max(place);
        self.pos = self.pos.max(pos);
    }
}

impl Read {
    /// What came before the user `entered` the room does not count.
    fn of(room: &RoomView<'_>, user: UserNum, entered: Place) -> Result<Read, StoreError> {
        let mut read = Read {
            everywhere: Mark {
                place: entered,
                pos: Pos::ZERO,
            },
            by_thread: HashMap::new(),
        };
        let (view, own) = (room.view(), (room.num(), user));
        for row in view.scan::<Receipts>(Scan::prefix(&own)) {
            let ((_, _, _, thread), receipt) = row?;
            let mark = if thread.is_empty() {
                &mut read.everywhere
            } else {
                read.by_thread.entry(thread).or_default()
            };
            mark.reach(receipt.place, receipt.pos);
        }
        for row in view.scan::<LastSent>(Scan::prefix(&own)) {
            let ((_, _, thread), sent) = row?;
            let mark = read.by_thread.entry(thread).or_default();
            mark.reach(sent.place, sent.pos);
        }
        Ok(read)
    }

    /// Up to where a thread is read.
    fn mark(&self, thread: &str) -> Place {
        let of_thread = self.by_thread.get(thread);
        let everywhere = self.everywhere.place;
        of_thread.map_or(everywhere, |mark| mark.place.max(everywhere))
    }
}

/// What is to be counted anew.
enum Anew {
    /// Everything.
    All,
    /// The threads whose receipts have moved; the others only from where they were counted up to.
    Threads(Vec<String>),
}

impl Anew {
    fn has(&self, thread: &str) -> bool {
        match self {
            Anew::All => true,
            Anew::Threads(threads) => threads.iter().any(|moved| moved == thread),
        }
    }
}

/// Counts what the user has not read of a room at the end of its timeline.
pub(crate) fn count(
    sync: &Inner,
    room: &RoomView<'_>,
    viewer: &Viewer,
    listener: &Listener,
    (relation, head): (&UserRoom, &Head),
) -> Result<Counted, StoreError> {
    let (user, joined, now) = (viewer.user, head.joined, room.view().pos());
    let nothing = |at| Counted {
        room: room.num(),
        at,
        known: now,
        joined,
        threads: BTreeMap::new(),
        unsaved: 0,
    };
    let Some((last, last_entry)) = room.last()? else {
        return Ok(nothing(Place::START));
    };
    let read = Read::of(room, user, relation.entered)?;
    let hearing = listener.in_room(room, joined);
    let base = match sync.unread.counts.get(&(user, room.num())) {
        Some(known) => Some((*known).clone()),
        None => Counted::saved(room, user)?,
    };
    // Of no use is what another sync counted at a later view, in an earlier stay, or by other rules.
    let base = base.filter(|base| {
        base.known <= now
            && base.at <= last
            && base.at >= relation.entered
            && base.known >= listener.changed
            && listener.is_same(base.joined, joined)
    });
    let base = match base {
        Some(base) => {
            let counted = (base.known, base.at);
            let wrong = counting::was_redacted(room, viewer, &hearing, &read, counted)?;
            (!wrong).then_some(base)
        }
        None => None,
    };
    let (mut counted, anew, low) = match base {
        None => {
            let from = read.everywhere.place;
            (nothing(from), Anew::All, from)
        }
        Some(mut base) => {
            let (anew, low) = base.forget_read(&read);
            (base, anew, low)
        }
    };
    let before = std::mem::replace(&mut counted.at, last);
    counted.known = now;
    counted.joined = joined;
    if low >= last {
        return Ok(counted);
    }
    let mut counting = Counting {
        room,
        viewer,
        listener,
        hearing: &hearing,
        read: &read,
        anew: &anew,
        before,
        circumstances: Circumstances::new(joined),
        threads: &mut counted.threads,
        looked_at: 0,
    };
    counting.run(low, (last, &last_entry))?;
    counted.unsaved += counting.looked_at;
    Ok(counted)
}

impl Counted {
    /// Takes out what newer receipts have reached. Returns what must be counted anew, and after which place to begin.
    fn forget_read(&mut self, read: &Read) -> (Anew, Place) {
        if read.everywhere.pos > self.known {
            self.threads.clear();
            return (Anew::All, read.everywhere.place.min(self.at));
        }
        let mut low = self.at;
        let mut moved = Vec::new();
        for (thread, mark) in &read.by_thread {
            if mark.pos > self.known && self.threads.remove(thread).is_some() {
                low = low.min(read.mark(thread));
                moved.push(thread.clone());
            }
        }
        (Anew::Threads(moved), low)
    }
}
