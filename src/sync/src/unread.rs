//! Unread counts: what a user has not read of a room, counted when somebody asks.
//!
//! Spec: client-server API, "Receiving notifications" and "Threaded read receipts". A count is true at a place of the
//! timeline and for the receipts that it knew; the next one goes on from there. Nothing is written when an event is
//! sent, and little when it is read: counts are kept in memory, and saved only when much was counted since the last time.
//!
//! An event counts when the user's push rules notify him of it, he did not send it, and no receipt of his reaches it: an
//! unthreaded one, one for its thread, or a message of his own in its thread, which says just as well that he has read
//! so far.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use myelin_data::{
    rooms::{Membership, Place, Receipts, Timeline, TimelineEntry, UnreadCount, UnreadCounts, UserRoom},
};
use myelin_rooms::{
    Event,
    read::{RoomView, Viewer},
};
use myelin_rules::{
    PowerLevels,
    push::{PushContext, PushEvent, Ruleset, evaluate},
};
use myelin_store::{Batch, Scan, Store, StoreError};
use myelin_types::{EventNum, Pos, RoomNum, UserNum};
use quick_cache::sync::Cache;
use ruma::EventId;

use crate::{Inner, UnreadNotifications};

/// The name of the main timeline among threads.
const MAIN: &str = "main";
/// How many counts are kept in memory, at about 200 bytes each.
const REMEMBERED: usize = 50_000;
/// A count is saved when more entries than this were looked at since it was saved last.
const UNSAVED: usize = 200;
/// No more entries than this are looked at for one count. Before them, what the default rules say to everybody is taken
/// from the running totals of the timeline: after so many unread messages nobody counts his own among them.
const MOST_LOOKED_AT: i64 = 5_000;
/// The same for users with rules of their own, for whom every event must be read.
const MOST_READ: i64 = 1_000;
/// How many relations are followed in search of an event's thread (as the specification recommends).
const MOST_HOPS: usize = 3;

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
        threads.map(|(thread, count)| (thread.clone(), *count)).collect()
    }

    /// Of the whole room.
    pub(crate) fn total(&self) -> UnreadNotifications {
        let counts = self.threads.values();
        counts.fold(UnreadNotifications::default(), |sum, count| sum.plus(*count))
    }
}

impl UnreadCache {
    /// Keeps the counts of an answer, and saves those that were laborious. Nobody waits for the write: without it they are
    /// counted again.
    pub(crate) fn remember(&self, store: &Store, user: UserNum, counts: Vec<Counted>) {
        let mut batch = Batch::new();
        let mut saving = false;
        for mut counted in counts {
            if counted.unsaved > UNSAVED {
                counted.unsaved = 0;
                counted.save(&mut batch, user);
                saving = true;
            }
            let key = (user, counted.room);
            let newer = self.counts.get(&key).is_none_or(|known| known.at <= counted.at);
            if newer {
                self.counts.insert(key, Arc::new(counted));
            }
        }
        if saving {
            drop(store.commit(batch));
        }
    }
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
        for row in room.view().scan::<UnreadCounts>(Scan::prefix(&(user, room.num()))) {
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
        for row in room.view().scan::<Receipts>(Scan::prefix(&(room.num(), user))) {
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
    counted.threads.retain(|_, count| *count != UnreadNotifications::default());
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
        let membership = event.pdu.content().get("membership").and_then(|value| value.as_str());
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

/// One walk over what is to be counted.
struct Counting<'a> {
    sync: &'a Inner,
    room: &'a RoomView<'a>,
    viewer: &'a Viewer,
    read: &'a Read,
    anew: &'a Anew,
    /// The place up to which threads that are not counted anew were counted.
    before: Place,
    /// The user's rules, once they are needed.
    rules: Option<Arc<Ruleset>>,
    ignored: Vec<UserNum>,
    circumstances: Option<Circumstances>,
    threads: &'a mut BTreeMap<String, UnreadNotifications>,
}

/// What push rules look at besides the event.
struct Circumstances {
    display_name: Option<String>,
    member_count: u64,
    power_levels: Option<PowerLevels>,
}

impl Counting<'_> {
    /// Counts the entries after `low`, up to and including `last`. Returns how many were looked at.
    fn run(&mut self, low: Place, last: Place, last_entry: &TimelineEntry) -> Result<usize, StoreError> {
        let own_rules = self.sync.accounts.push_rules_pos(self.room.view(), self.viewer.user)? > Pos::ZERO;
        let most = if own_rules { MOST_READ } else { MOST_LOOKED_AT };
        let low = self.skip(low, last, last_entry, most)?;
        let room = self.room.num();
        let mut looked_at = 0;
        let mut start = low.next();
        loop {
            let scan = Scan::prefix(&room)
                .from(&(room, start))
                .until(&(room, last.next()))
                .limit(256);
            let rows = self.room.view().scan::<Timeline>(scan);
            let rows = rows
                .map(|row| row.map(|((_, place), entry)| (place, entry)))
                .collect::<Result<Vec<_>, StoreError>>()?;
            let Some((end, _)) = rows.last() else {
                return Ok(looked_at);
            };
            looked_at += rows.len();
            start = end.next();
            self.look_at(&rows, own_rules)?;
        }
    }

    /// Passes over the older part of a long gap, by the running totals of what notifies everybody.
    fn skip(&mut self, low: Place, last: Place, last_entry: &TimelineEntry, most: i64) -> Result<Place, StoreError> {
        let target = Place {
            index: last.index.saturating_sub(most),
            ..last
        };
        if target <= low || !matches!(self.anew, Anew::All) && target <= self.before {
            return Ok(low);
        }
        let total = |found: Option<(Place, TimelineEntry)>| found.map_or(0, |(_, entry)| entry.notifying);
        let from = low.max(match self.anew {
            Anew::All => low,
            Anew::Threads(_) => self.before,
        });
        let skipped = total(self.room.last_before(target.next())?).min(last_entry.notifying);
        let read = total(self.room.last_before(from.next())?);
        self.add(MAIN, skipped.saturating_sub(read), 0);
        Ok(target)
    }

    fn look_at(&mut self, rows: &[(Place, TimelineEntry)], own_rules: bool) -> Result<(), StoreError> {
        let must_read: Vec<EventNum> = rows
            .iter()
            .filter(|(_, entry)| self.must_read(entry, own_rules))
            .map(|(_, entry)| entry.event)
            .collect();
        let read: HashMap<EventNum, Arc<Event>> = must_read
            .iter()
            .copied()
            .zip(self.room.events(&must_read)?)
            .collect();
        for (place, entry) in rows {
            let event = read.get(&entry.event);
            let own = entry.sender == self.viewer.user;
            if !own && !entry.traits.notifies && event.is_none() {
                continue;
            }
            let thread = match event {
                Some(event) => thread_of(self.room, event)?.unwrap_or_else(|| MAIN.to_owned()),
                None => MAIN.to_owned(),
            };
            if *place <= self.read.mark(&thread) || (*place <= self.before && !self.anew(&thread)) {
                continue;
            }
            if own {
                // State changes, like that of a name in all rooms at once, say nothing about having read.
                if !entry.traits.state {
                    self.threads.remove(&thread);
                }
                continue;
            }
            let ignored = !entry.traits.state && self.ignored.contains(&entry.sender);
            if ignored {
                continue;
            }
            match event {
                Some(event) if own_rules || entry.traits.special => {
                    let (notify, highlight) = self.evaluate(event)?;
                    self.add(&thread, u64::from(notify), u64::from(notify && highlight));
                }
                _ => self.add(&thread, u64::from(entry.traits.notifies), 0),
            }
        }
        Ok(())
    }

    fn must_read(&self, entry: &TimelineEntry, own_rules: bool) -> bool {
        let traits = entry.traits;
        if entry.sender == self.viewer.user {
            return traits.threaded && !traits.state;
        }
        own_rules || traits.special || (traits.threaded && traits.notifies)
    }

    fn anew(&self, thread: &str) -> bool {
        match self.anew {
            Anew::All => true,
            Anew::Threads(threads) => threads.iter().any(|moved| moved == thread),
        }
    }

    fn add(&mut self, thread: &str, notifications: u64, highlights: u64) {
        if notifications == 0 && highlights == 0 {
            return;
        }
        let count = self.threads.entry(thread.to_owned()).or_default();
        count.notification_count += notifications;
        count.highlight_count += highlights;
    }

    /// Whether the user's rules notify him of an event, and whether it highlights.
    fn evaluate(&mut self, event: &Event) -> Result<(bool, bool), StoreError> {
        let rules = match &self.rules {
            Some(rules) => Arc::clone(rules),
            None => {
                let rules = self.sync.accounts.push_rules(self.room.view(), self.viewer.user)?;
                self.rules = Some(Arc::clone(&rules));
                rules
            }
        };
        if self.circumstances.is_none() {
            self.circumstances = Some(Circumstances::of(self.room, self.viewer)?);
        }
        let Some(circumstances) = &self.circumstances else {
            return Ok((false, false));
        };
        let context = PushContext {
            user_id: self.viewer.user_id.as_str(),
            display_name: circumstances.display_name.as_deref(),
            member_count: circumstances.member_count,
            power_levels: circumstances.power_levels.as_ref(),
        };
        let outcome = evaluate(&rules, &PushEvent::from(&event.pdu), &context);
        Ok((outcome.notify, outcome.highlight))
    }
}

impl Circumstances {
    fn of(room: &RoomView<'_>, viewer: &Viewer) -> Result<Self, StoreError> {
        let head = room.head()?;
        let state = room.current()?;
        let entry = |event_type: &str| match room.state_entry(state, event_type, "")? {
            Some(event) => room.event(event).map(Some),
            None => Ok::<_, StoreError>(None),
        };
        let (create, power_levels) = (entry("m.room.create")?, entry("m.room.power_levels")?);
        let member = room.member(state, &viewer.user_id)?;
        let display_name = member.and_then(|member| Some(member.pdu.content().get("displayname")?.as_str()?.to_owned()));
        Ok(Self {
            display_name,
            member_count: head.map_or(0, |head| head.joined),
            power_levels: create
                .map(|create| PowerLevels::new(&create.pdu, power_levels.as_ref().map(|event| &event.pdu))),
        })
    }
}

/// The root of the thread that an event belongs to: by its own relation, or by that of an event that it relates to.
fn thread_of(room: &RoomView<'_>, event: &Event) -> Result<Option<String>, StoreError> {
    let mut relation = Relation::of(event);
    for _ in 0..MOST_HOPS {
        let Some(Relation { kind, target }) = relation else {
            return Ok(None);
        };
        if kind == "m.thread" {
            return Ok(Some(target));
        }
        let Ok(target) = EventId::parse(&target) else {
            return Ok(None);
        };
        relation = room.event_by_id(&target)?.and_then(|event| Relation::of(&event));
    }
    Ok(match relation {
        Some(relation) if relation.kind == "m.thread" => Some(relation.target),
        _ => None,
    })
}

struct Relation {
    kind: String,
    target: String,
}

impl Relation {
    fn of(event: &Event) -> Option<Relation> {
        let relation = event.pdu.content().get("m.relates_to")?;
        let text = |name| Some(relation.get(name)?.as_str()?.to_owned());
        Some(Relation {
            kind: text("rel_type")?,
            target: text("event_id")?,
        })
    }
}
