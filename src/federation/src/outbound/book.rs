//! What is to be sent to each server, in memory: a machine without time, store or network of its own.
//!
//! A destination is *up to date* as long as everything that concerned it stands in its queue; then the position of the
//! log's reader says how far it is, and nothing is stored for it. When a transaction fails, or when the queue is full, it
//! *catches up*: what it has missed is read from the rooms' timelines, from its own cursor on. Only of those that catch up
//! or wait for long there is a row ([`Destinations`](myelin_data::federation::Destinations)).

mod destination;

use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    time::Duration,
};

use myelin_data::federation::Destination as Row;
use myelin_types::{EventNum, Millis, Pos, RoomNum};
use ruma::{OwnedServerName, ServerName};

use super::{
    backoff,
    catch_up::CatchUp,
    durable::{Durable, ListNews},
    ephemeral::{Edu, EphemeralKey, Ephemerals},
};
use super::{durable::MESSAGES_AT_ONCE, lists::MOST_OF_A_LIST};
use crate::{MAX_EDUS, MAX_PDUS};

/// How many device lists go with a transaction.
pub(super) const LISTS_AT_ONCE: usize = 5;
/// How many events wait for a destination in memory. When there are more, it catches up from the timelines.
const MOST_QUEUED: usize = 4 * MAX_PDUS;
/// How many EDUs that do not last go with a transaction: the others are messages and device lists.
const MOST_EPHEMERAL: usize = MAX_EDUS - MESSAGES_AT_ONCE - LISTS_AT_ONCE * MOST_OF_A_LIST;
/// A destination that takes longer than this for a transaction is served in the slow lane.
const SLOW: Duration = Duration::from_secs(5);
/// Where a destination has not had an event after this time, it gets a row, so that the reader's cursor can pass it.
const LAG: Duration = Duration::from_secs(30);

/// A destination, as this process numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Id(u32);

/// An event in the order in which everything is sent: the position of its batch, and which of that batch it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct At {
    pub(super) pos: Pos,
    pub(super) index: u32,
}

/// An event to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Item {
    pub(super) at: At,
    pub(super) room: RoomNum,
    pub(super) event: EventNum,
}

/// Servers that fail or are slow have a lane of their own, so that they never take the places of the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    Quick,
    Slow,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing is to be done.
    Idle,
    /// It stands in a lane.
    Ready,
    /// A transaction is under way.
    Sending,
    /// Its last transaction failed; the next one is due then.
    Waiting(Millis),
}

struct Destination {
    name: OwnedServerName,
    phase: Phase,
    /// What concerns it and was not delivered; of one that catches up, empty.
    queue: VecDeque<Item>,
    /// Of one that catches up: the newest position that it may have missed.
    missed: Option<Pos>,
    /// Everything up to here has been delivered, by catching up.
    cursor: Pos,
    /// Where the catching up goes on.
    walk: Option<Box<CatchUp>>,
    ephemerals: Ephemerals,
    durable: Durable,
    /// Everything that users of ours had read up to here it has been told.
    told: Pos,
    /// Up to where that is so once the transaction at hand is delivered; none if it has no receipts.
    telling: Option<Pos>,
    /// Receipts that were set after this position it may have missed.
    unread: Option<Pos>,
    failures: u32,
    /// How often the transaction at hand was refused as such.
    refusals: u32,
    slow: bool,
    /// Since when something waits in the queue.
    since: Millis,
    /// Its row, as it was last written.
    stored: Option<Row>,
}

/// A piece of work: one transaction to one destination.
pub(super) struct Job {
    pub(super) id: Id,
    pub(super) name: OwnedServerName,
    /// Whether messages from the outbox go with it.
    pub(super) messages: bool,
    pub(super) lists: Vec<ListNews>,
    pub(super) events: Events,
    pub(super) edus: Vec<Edu>,
}

/// Where the events of a transaction come from.
pub(super) enum Events {
    /// From the queue.
    Queued(Sent),
    /// From the timelines, after this position.
    Missed(Pos, Option<Box<CatchUp>>),
}

/// The events of a transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sent {
    pub(super) items: Vec<Item>,
    /// With them everything up to here has been sent.
    pub(super) through: Pos,
}

impl Sent {
    /// Events of which `next` is the following one.
    pub(super) fn before(items: Vec<Item>, next: Option<&Item>) -> Self {
        let last = items.last().map_or(Pos::ZERO, |item| item.at.pos);
        // A batch of which a part is left is sent again as a whole if need be.
        let through = match next {
            Some(next) if next.at.pos == last => Pos(last.0.saturating_sub(1)),
            _ => last,
        };
        Self { items, through }
    }
}

/// What became of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It was taken.
    Delivered,
    /// It is to be sent again, with everything else, after a while.
    Failed,
    /// The other server does not take it, and would not take it another time.
    Refused,
}

/// How often a transaction that is refused is tried before it is passed over.
const MOST_REFUSALS: u32 = 3;

/// How many destinations are in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Census {
    pub(super) idle: usize,
    pub(super) sending: usize,
    pub(super) catching_up: usize,
    pub(super) waiting: usize,
    pub(super) queued_events: usize,
    pub(super) queued_edus: usize,
    /// The earliest position up to which a destination has everything, of those for which something waits.
    pub(super) behind: Option<Pos>,
}

/// The destinations.
pub(super) struct Book {
    by_name: HashMap<OwnedServerName, Id>,
    list: Vec<Destination>,
    quick: VecDeque<Id>,
    slow: VecDeque<Id>,
    /// Those that wait, by when they are due.
    due: BTreeSet<(Millis, Id)>,
    /// Up to where the log was read into the queues.
    dispatched: Pos,
    /// Up to where receipts were made into EDUs.
    receipts: Pos,
    /// Those without a row for which something waits in the queue.
    pending: HashSet<Id>,
    /// Those whose row may not be as it should.
    unwritten: HashSet<Id>,
}

impl Book {
    /// How many bytes a destination takes for which nothing waits, without its name.
    #[cfg(test)]
    pub(super) const SIZE_OF_ONE: usize = size_of::<Destination>();

    /// Whether a destination may have missed receipts.
    #[cfg(test)]
    pub(super) fn has_unread(&self, name: &ServerName) -> bool {
        let id = self.by_name.get(name);
        id.is_some_and(|id| self.list[id.0 as usize].unread.is_some())
    }

    /// A book in which everybody is up to date at `dispatched`, but for those with a row.
    pub(super) fn new(dispatched: Pos, rows: Vec<(OwnedServerName, Row)>, now: Millis) -> Self {
        let mut book = Self {
            by_name: HashMap::new(),
            list: Vec::new(),
            quick: VecDeque::new(),
            slow: VecDeque::new(),
            due: BTreeSet::new(),
            dispatched,
            receipts: dispatched,
            pending: HashSet::new(),
            unwritten: HashSet::new(),
        };
        for (name, row) in rows {
            let id = book.id(&name);
            let destination = book.at(id);
            destination.cursor = row.cursor;
            destination.missed = Some(dispatched);
            destination.unread = Some(row.cursor);
            destination.failures = row.failures;
            destination.stored = Some(row);
            if row.failures > 0 && row.next_attempt > now {
                destination.phase = Phase::Waiting(row.next_attempt);
                book.due.insert((row.next_attempt, id));
            } else {
                book.make_ready(id);
            }
        }
        book
    }

    /// The number of a destination.
    pub(super) fn id(&mut self, name: &ServerName) -> Id {
        if let Some(id) = self.by_name.get(name) {
            return *id;
        }
        let id = Id(u32::try_from(self.list.len()).unwrap_or(u32::MAX));
        self.list.push(Destination {
            name: name.to_owned(),
            phase: Phase::Idle,
            queue: VecDeque::new(),
            missed: None,
            cursor: Pos::ZERO,
            walk: None,
            ephemerals: Ephemerals::default(),
            durable: Durable::default(),
            told: self.receipts,
            telling: None,
            unread: None,
            failures: 0,
            refusals: 0,
            slow: false,
            since: Millis(0),
            stored: None,
        });
        self.by_name.insert(name.to_owned(), id);
        id
    }

    fn at(&mut self, id: Id) -> &mut Destination {
        &mut self.list[id.0 as usize]
    }

    /// Up to where the log was read.
    pub(super) fn dispatched(&self) -> Pos {
        self.dispatched
    }

    /// Notes that the log was read up to a position.
    pub(super) fn advance(&mut self, pos: Pos) {
        self.dispatched = self.dispatched.max(pos);
    }

    /// Queues an event for a destination. Events come in their order.
    pub(super) fn push(&mut self, id: Id, item: Item, now: Millis) {
        let destination = self.at(id);
        if item.at.pos <= destination.cursor {
            // It was caught up with before the log was read so far.
            return;
        }
        if let Some(missed) = &mut destination.missed {
            *missed = (*missed).max(item.at.pos);
            return;
        }
        if destination.queue.len() >= MOST_QUEUED {
            destination.fall_behind();
            destination.missed = Some(item.at.pos);
            self.unwritten.insert(id);
            self.pending.remove(&id);
            return;
        }
        destination.begins_to_lag(now);
        destination.queue.push_back(item);
        if destination.stored.is_none() {
            self.pending.insert(id);
        }
        self.make_ready(id);
    }

    /// Queues a device list of which a destination is to hear, as [`Book::push`] does an event.
    pub(super) fn push_list(&mut self, id: Id, news: ListNews, now: Millis) {
        let destination = self.at(id);
        if news.to <= destination.cursor {
            return;
        }
        if let Some(missed) = &mut destination.missed {
            *missed = (*missed).max(news.to);
            if news.entered.is_some() {
                destination.durable.add_list(news);
            }
            return;
        }
        destination.begins_to_lag(now);
        let is_full = destination.durable.is_full();
        destination.durable.add_list(news);
        if is_full {
            destination.fall_behind();
            self.unwritten.insert(id);
            self.pending.remove(&id);
        } else if destination.stored.is_none() {
            self.pending.insert(id);
        }
        self.make_ready(id);
    }

    /// Notes that there may be messages to devices in the outbox of a destination.
    pub(super) fn messages(&mut self, id: Id) {
        self.at(id).durable.add_messages();
        self.make_ready(id);
    }

    /// Notes that the messages under way have left the outbox, before the end of their transaction is told. `more`: there
    /// may be others.
    pub(super) fn messages_arrived(&mut self, id: Id, more: bool) {
        self.at(id).durable.messages_arrived(more);
    }

    /// Notes that receipts were made into EDUs up to a position.
    pub(super) fn told_receipts(&mut self, pos: Pos) {
        self.receipts = self.receipts.max(pos);
    }

    /// Keeps something for a destination that matters only now. One that does not answer does not get it; receipts it is
    /// told when it answers again.
    pub(super) fn ephemeral(&mut self, id: Id, key: EphemeralKey, edu: Edu) {
        let destination = self.at(id);
        if matches!(destination.phase, Phase::Waiting(_)) {
            if key.is_receipt() {
                destination.unread.get_or_insert(destination.told);
            }
            return;
        }
        destination.ephemerals.put(key, edu);
        self.make_ready(id);
    }

    /// Puts a destination into its lane, if something is to be done for it and nothing is being done.
    fn make_ready(&mut self, id: Id) {
        let destination = self.at(id);
        if destination.phase != Phase::Idle || !destination.has_work() {
            return;
        }
        destination.phase = Phase::Ready;
        match destination.lane() {
            Lane::Quick => self.quick.push_back(id),
            Lane::Slow => self.slow.push_back(id),
        }
    }

    /// The next piece of work of a lane. Its end must be told, by [`Book::finish`] or [`Book::caught_up`].
    pub(super) fn take(&mut self, lane: Lane) -> Option<Job> {
        let id = match lane {
            Lane::Quick => self.quick.pop_front(),
            Lane::Slow => self.slow.pop_front(),
        }?;
        let (dispatched, receipts) = (self.dispatched, self.receipts);
        let destination = self.at(id);
        destination.phase = Phase::Sending;
        destination.telling = None;
        let nothing_new = destination.has_everything() && destination.ephemerals.is_empty();
        // What other servers must have, and what does not last, waits for no event: a transaction that failed may have done
        // so for the sake of its events, so that messages to devices go alone after it.
        let apart = destination.failures > 0 && destination.durable.has_messages();
        let messages = (apart || destination.refusals == 0) && destination.durable.take_messages();
        let lists = if apart {
            Vec::new()
        } else {
            destination.durable.take_lists(LISTS_AT_ONCE)
        };
        let (events, edus) = if apart {
            (Events::Queued(Sent::default()), Vec::new())
        } else if destination.missed.is_some() {
            // Who catches up is not to learn what is so now before he knows the events that it speaks of.
            let walk = destination.walk.take();
            (Events::Missed(destination.cursor, walk), Vec::new())
        } else if destination.unread.is_some() && nothing_new {
            // It has every event, and catches up with what was read only.
            (Events::Missed(dispatched, None), Vec::new())
        } else {
            destination.telling = destination.ephemerals.has_receipts().then_some(receipts);
            let items = destination.queue.iter().take(MAX_PDUS);
            let next = destination.queue.get(MAX_PDUS);
            let sent = Sent::before(items.copied().collect(), next);
            (
                Events::Queued(sent),
                destination.ephemerals.take(MOST_EPHEMERAL),
            )
        };
        Some(Job {
            id,
            name: destination.name.clone(),
            messages,
            lists,
            events,
            edus,
        })
    }

    /// Whether a transaction with this outcome counts as sent: it was taken, or it was refused too often.
    pub(super) fn passes(&self, id: Id, sent: &Sent, outcome: Outcome) -> bool {
        let destination = &self.list[id.0 as usize];
        let refusals = if sent.items.is_empty() {
            u32::from(destination.durable.refusals)
        } else {
            destination.refusals
        };
        match outcome {
            Outcome::Delivered => true,
            Outcome::Refused => refusals + 1 >= MOST_REFUSALS,
            Outcome::Failed => false,
        }
    }

    /// Notes what became of a transaction with events from the queue, or from the timelines; then `walk` says where these
    /// go on.
    pub(super) fn finish(
        &mut self,
        id: Id,
        sent: &Sent,
        walk: Option<Box<CatchUp>>,
        outcome: Outcome,
        at: Attempt<'_>,
    ) {
        let passes = self.passes(id, sent, outcome);
        let destination = self.at(id);
        destination.phase = Phase::Idle;
        destination.slow = at.took > SLOW;
        let had_events = !sent.items.is_empty();
        destination.durable.put_back_messages();
        let telling = destination.telling.take();
        if passes {
            destination.failures = 0;
            // Messages that were taken say nothing of the events that were refused.
            if had_events {
                destination.refusals = 0;
            } else {
                destination.durable.refusals = 0;
            }
            destination.durable.lists_arrived();
            // What is left for the next transaction is not told yet.
            if let Some(pos) = telling
                && !destination.ephemerals.has_receipts()
            {
                destination.told = pos;
            }
            if let Some(last) = sent.items.last() {
                while destination
                    .queue
                    .front()
                    .is_some_and(|front| front.at <= last.at)
                {
                    destination.queue.pop_front();
                }
                // Of a destination that has fallen behind meanwhile this is where it goes on.
                destination.cursor = destination.cursor.max(sent.through);
            }
            destination.walk = walk;
            destination.since = at.now;
        } else {
            if outcome == Outcome::Refused && had_events {
                destination.refusals += 1;
            } else if outcome == Outcome::Refused {
                destination.durable.refusals += 1;
            }
            destination.failures = destination.failures.saturating_add(1);
            destination.fall_behind();
            if telling.is_some() || destination.ephemerals.has_receipts() {
                destination.unread.get_or_insert(destination.told);
            }
            destination.ephemerals.clear();
            let until = at
                .now
                .after(backoff::pause(destination.failures, at.random));
            destination.phase = Phase::Waiting(until);
            self.due.insert((until, id));
            self.pending.remove(&id);
        }
        self.settle(id);
        self.make_ready(id);
    }

    /// Notes that the timelines up to `through` have nothing more for a destination. Answers after which position it may have
    /// missed receipts, if it may: these are to be told now.
    pub(super) fn caught_up(&mut self, id: Id, through: Pos) -> Option<Pos> {
        let destination = self.at(id);
        destination.phase = Phase::Idle;
        destination.durable.put_back_messages();
        destination.durable.put_back_lists();
        destination.walk = None;
        destination.cursor = destination.cursor.max(through);
        if destination.missed.is_some_and(|missed| missed <= through) {
            destination.missed = None;
        }
        let unread = match destination.missed {
            None => destination.unread.take(),
            Some(_) => None,
        };
        self.settle(id);
        self.make_ready(id);
        unread
    }

    /// Notes that receipts after a position are to be told to a destination after all.
    pub(super) fn unread_since(&mut self, id: Id, pos: Pos) {
        let unread = &mut self.at(id).unread;
        *unread = Some(unread.map_or(pos, |earlier| earlier.min(pos)));
    }

    /// Notes that there was nothing to be sent.
    pub(super) fn nothing(&mut self, id: Id) {
        let destination = self.at(id);
        destination.phase = Phase::Idle;
        destination.durable.messages_arrived(false);
        destination.durable.lists_arrived();
        self.settle(id);
        self.make_ready(id);
    }

    /// Notes that nothing was sent, through no fault of the destination.
    pub(super) fn put_back(&mut self, id: Id) {
        let destination = self.at(id);
        destination.phase = Phase::Idle;
        destination.durable.put_back_messages();
        destination.durable.put_back_lists();
        destination.walk = None;
        self.make_ready(id);
    }

    /// Keeps the sets right of those that wait and those whose row is to be written.
    fn settle(&mut self, id: Id) {
        let destination = self.at(id);
        let done = destination.has_everything();
        if destination.stored.is_some() || destination.missed.is_some() {
            self.unwritten.insert(id);
        }
        if done {
            self.pending.remove(&id);
        }
    }

    /// A request of this server proved that it is there: it is not waited for any longer.
    pub(super) fn heard(&mut self, name: &ServerName) -> bool {
        let Some(id) = self.by_name.get(name).copied() else {
            return false;
        };
        let destination = self.at(id);
        if destination.failures == 0 {
            return false;
        }
        destination.failures = 0;
        if let Phase::Waiting(until) = destination.phase {
            destination.phase = Phase::Idle;
            self.due.remove(&(until, id));
        }
        self.settle(id);
        self.make_ready(id);
        true
    }

    /// Puts those into their lanes whose time has come. Looks at no others.
    pub(super) fn wake(&mut self, now: Millis) {
        while let Some((at, id)) = self.due.first().copied()
            && at <= now
        {
            self.due.pop_first();
            self.at(id).phase = Phase::Idle;
            self.make_ready(id);
        }
    }

    /// When the next one is due.
    pub(super) fn next_due(&self) -> Option<Millis> {
        self.due.first().map(|(at, _)| *at)
    }

    /// What should be stored now: the reader's cursor, and the rows that differ (none where there is to be none). All of
    /// it belongs into one batch; after that, [`Book::stored`].
    pub(super) fn unstored(&mut self, now: Millis, stopping: bool) -> ToStore {
        let mut cursor = self.dispatched;
        let pending: Vec<Id> = self.pending.iter().copied().collect();
        for id in pending {
            let destination = self.at(id);
            let Some(floor) = destination.floor() else {
                continue;
            };
            if stopping || now.since(destination.since) >= LAG {
                self.unwritten.insert(id);
            } else {
                cursor = cursor.min(floor);
            }
        }
        let mut rows = Vec::new();
        for id in std::mem::take(&mut self.unwritten) {
            let destination = self.at(id);
            let wanted = destination.floor().map(|cursor| Row {
                cursor,
                failures: destination.failures,
                next_attempt: match destination.phase {
                    Phase::Waiting(until) => until,
                    _ => Millis(0),
                },
            });
            if wanted != destination.stored {
                rows.push((id, destination.name.clone(), wanted));
            }
        }
        ToStore { cursor, rows }
    }

    /// Notes that something was stored, or with `Err` that it was not and is to be tried again.
    pub(super) fn stored(&mut self, what: ToStore, done: bool) {
        for (id, _, row) in what.rows {
            if done {
                self.at(id).stored = row;
                if row.is_some() {
                    self.pending.remove(&id);
                } else if !self.at(id).has_everything() {
                    self.pending.insert(id);
                }
            } else {
                self.unwritten.insert(id);
            }
        }
    }

    /// Whether a destination catches up.
    pub(super) fn is_behind(&self, name: &ServerName) -> bool {
        let id = self.by_name.get(name);
        id.is_some_and(|id| self.list[id.0 as usize].missed.is_some())
    }

    /// Whether a destination has everything that happened up to a position.
    pub(super) fn has_passed(&self, name: &ServerName, pos: Pos) -> bool {
        match self.by_name.get(name) {
            None => pos <= self.dispatched,
            Some(id) => match self.list[id.0 as usize].floor() {
                Some(floor) => pos <= floor,
                None => pos <= self.dispatched,
            },
        }
    }

    /// Counts everything. Looks at all destinations.
    pub(super) fn census(&self) -> Census {
        let mut census = Census::default();
        for destination in &self.list {
            let slot = match destination.phase {
                Phase::Waiting(_) => &mut census.waiting,
                _ if destination.missed.is_some() => &mut census.catching_up,
                Phase::Sending | Phase::Ready => &mut census.sending,
                Phase::Idle => &mut census.idle,
            };
            *slot += 1;
            census.queued_events += destination.queue.len();
            census.queued_edus += destination.ephemerals.len();
            if let Some(floor) = destination.floor() {
                let behind = census.behind.unwrap_or(floor);
                census.behind = Some(behind.min(floor));
            }
        }
        census
    }
}

/// What is to be stored.
pub(super) struct ToStore {
    pub(super) cursor: Pos,
    pub(super) rows: Vec<(Id, OwnedServerName, Option<Row>)>,
}

/// When a transaction ended, and chance for what follows.
#[derive(Clone, Copy)]
pub(super) struct Attempt<'a> {
    pub(super) now: Millis,
    /// How long it took.
    pub(super) took: Duration,
    pub(super) random: &'a dyn myelin_types::Random,
}
