//! Receipts of other servers' users. Spec: server-server API, "Receipts".
//!
//! Those of a transaction are written in one batch, whatever rooms they are of. A receipt does not wait for the events of
//! its transaction, and yet is often for one of them: then it is kept until that event has been judged. Until then it is
//! shown if the user has none yet: after a join most receipts are for events of before.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use myelin_data::{
    inbox::{AwaitedReceipt, AwaitedReceipts},
    rooms::{Place, Receipt, ReceiptKind, Receipts},
};
use myelin_store::{Batch, CommitError, Scan, StoreError, View};
use myelin_types::{Millis, Pos, RoomNum, UserNum};
use parking_lot::Mutex;
use ruma::{EventId, OwnedEventId, OwnedRoomId, OwnedServerName, OwnedUserId, ServerName};

use crate::{
    Failure, Rooms, Thread,
    receipts::{Work, write},
};

/// How many receipts may wait for their events in a room; further ones are ignored, and the next of their users counts.
const MOST_AWAITED: usize = 500;
/// How long they wait at most.
const LONGEST_WAIT: std::time::Duration = std::time::Duration::from_hours(24);
/// How often it is tried to write receipts that others write at the same time.
const ATTEMPTS: usize = 4;

/// A receipt of another server's user, for everybody to see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteReceipt {
    /// The room.
    pub room_id: OwnedRoomId,
    /// The user who has read.
    pub user_id: OwnedUserId,
    /// Which events it speaks of.
    pub thread: Thread,
    /// The event up to which he has read.
    pub event_id: OwnedEventId,
    /// When, as his server says.
    pub at: Option<Millis>,
}

/// The rooms in which receipts may wait for their events, so that others need not be looked at. A room that is in it
/// without reason costs a scan when an event comes.
#[derive(Debug, Default)]
pub(crate) struct Awaiting(Mutex<Option<BTreeSet<RoomNum>>>);

/// Where an event stands for a receipt.
enum Target {
    /// It is not known yet, or not judged.
    Awaited,
    /// It is here.
    At(Place),
    /// A receipt cannot be for it.
    Unfit,
}

/// What some receipts come to.
#[derive(Default)]
struct Plan {
    work: Vec<Work>,
    awaited: Vec<((RoomNum, UserNum, String), AwaitedReceipt)>,
    /// Rows of receipts that waited and do so no longer.
    over: Vec<(RoomNum, UserNum, String)>,
    /// Whether others still wait.
    left: bool,
}

impl Plan {
    fn is_empty(&self) -> bool {
        self.work.is_empty() && self.awaited.is_empty() && self.over.is_empty()
    }

    fn batch(&self) -> Batch {
        let mut batch = Batch::new();
        for work in &self.work {
            write(&mut batch, work);
        }
        for (key, row) in &self.awaited {
            batch.put::<AwaitedReceipts>(key, row);
        }
        for key in &self.over {
            batch.delete::<AwaitedReceipts>(key);
        }
        batch
    }

    fn set(&mut self, room: RoomNum, user: UserNum, thread: String, change: Change) {
        let Change { before, after } = change;
        self.work.push(Work {
            room,
            user,
            receipts: vec![(ReceiptKind::Read, thread, before, after)],
        });
    }
}

/// A receipt that changes: the row before and after.
struct Change {
    before: Option<Receipt>,
    after: Receipt,
}

/// What a receipt changes; none if it would move backwards.
fn change(
    view: &View,
    (room, user, thread): &(RoomNum, UserNum, String),
    event_id: &EventId,
    place: Place,
    at: Millis,
) -> Result<Option<Change>, StoreError> {
    let key = (*room, *user, ReceiptKind::Read, thread.clone());
    let before = view.get::<Receipts>(&key)?;
    if before.as_ref().is_some_and(|before| before.place >= place) {
        return Ok(None);
    }
    let after = Receipt {
        pos: Pos::AT_COMMIT,
        event_id: event_id.to_string(),
        place,
        at,
    };
    Ok(Some(Change { before, after }))
}

/// What a receipt for an event changes that is not here: the user has read something, which clients are told, and any event
/// that is here comes after it. Receipts in threads wait instead: anybody could make up any number of threads.
fn unplaced(
    view: &View,
    (room, user, thread): &(RoomNum, UserNum, String),
    event_id: &EventId,
    at: Millis,
) -> Result<Option<Change>, StoreError> {
    if !["", "main"].contains(&thread.as_str()) {
        return Ok(None);
    }
    let key = (*room, *user, ReceiptKind::Read, thread.clone());
    let before = view.get::<Receipts>(&key)?;
    let after = Receipt {
        pos: Pos::AT_COMMIT,
        event_id: event_id.to_string(),
        place: Place::START,
        at,
    };
    let is_news = before
        .as_ref()
        .is_none_or(|before| before.place == Place::START && before.event_id != after.event_id);
    Ok(is_news.then_some(Change { before, after }))
}

impl Rooms {
    /// Sets receipts of users of another server, as far as these are in the rooms and the server is let into them.
    /// Completes even if nobody waits.
    pub async fn receive_receipts(
        &self,
        origin: &ServerName,
        receipts: Vec<RemoteReceipt>,
    ) -> Result<(), Failure> {
        let (rooms, origin) = (self.clone(), origin.to_owned());
        self.run(async move { rooms.take_receipts(origin, receipts).await })
            .await
    }

    async fn take_receipts(
        &self,
        origin: OwnedServerName,
        receipts: Vec<RemoteReceipt>,
    ) -> Result<(), Failure> {
        let mut open = HashMap::new();
        for room in receipts.iter().map(|receipt| &receipt.room_id) {
            if !open.contains_key(room)
                && let Some(handle) = self.resident_room(room).await?
            {
                let denied = self.is_denied(&handle, &origin).await?;
                open.insert(room.clone(), (!denied).then_some(handle.num));
            }
        }
        // Of several for the same user and thread the last counts.
        let mut latest = BTreeMap::new();
        for receipt in receipts {
            let room = open.get(&receipt.room_id).copied().flatten();
            if let Some(room) = room
                && receipt.user_id.server_name() == origin
            {
                self.number_missing(&receipt.room_id, &receipt.user_id)
                    .await?;
                let key = (room, receipt.user_id.clone(), receipt.thread.key());
                latest.insert(key, receipt);
            }
        }
        let rooms = self.clone();
        let now = self.0.clock.now();
        let plan = self
            .write_receipts(move |view| rooms.plan_receipts(view, &latest, now))
            .await?;
        let awaiting: BTreeSet<RoomNum> = plan.awaited.iter().map(|(key, _)| key.0).collect();
        if awaiting.is_empty() {
            return Ok(());
        }
        for room in awaiting {
            if !self.is_awaiting(room).await?
                && let Some(rooms) = &mut *self.0.awaiting.0.lock()
            {
                rooms.insert(room);
            }
            // The event may have come between the look and the note that it is waited for.
            self.apply_awaited_receipts(room).await?;
        }
        Ok(())
    }

    fn plan_receipts(
        &self,
        view: &View,
        receipts: &BTreeMap<(RoomNum, OwnedUserId, String), RemoteReceipt>,
        now: Millis,
    ) -> Result<Plan, StoreError> {
        let mut plan = Plan::default();
        let mut free: HashMap<RoomNum, usize> = HashMap::new();
        for ((room, user_id, thread), receipt) in receipts {
            let Some(user) = self.present_user(view, *room, user_id)? else {
                continue;
            };
            // A server's clock may be ahead; what has been read has been read by now.
            let at = receipt.at.map_or(now, |at| at.min(now));
            match self.target(view, *room, &receipt.event_id, &receipt.thread)? {
                Target::Unfit => {}
                Target::At(place) => {
                    let key = (*room, user, thread.clone());
                    let change = change(view, &key, &receipt.event_id, place, at)?;
                    if let Some(change) = change {
                        plan.set(*room, user, thread.clone(), change);
                    }
                }
                Target::Awaited => {
                    let free = match free.entry(*room) {
                        std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
                        std::collections::hash_map::Entry::Vacant(entry) => {
                            let scan = Scan::prefix(room).limit(MOST_AWAITED);
                            let count = view.keys::<AwaitedReceipts>(scan).count();
                            entry.insert(MOST_AWAITED - count)
                        }
                    };
                    if *free == 0 {
                        continue;
                    }
                    *free -= 1;
                    let key = (*room, user, thread.clone());
                    if let Some(change) = unplaced(view, &key, &receipt.event_id, at)? {
                        plan.set(*room, user, thread.clone(), change);
                    }
                    let row = AwaitedReceipt {
                        event_id: receipt.event_id.to_string(),
                        at,
                        received: now,
                    };
                    plan.awaited.push(((*room, user, thread.clone()), row));
                }
            }
        }
        Ok(plan)
    }

    fn target(
        &self,
        view: &View,
        room: RoomNum,
        event_id: &EventId,
        thread: &Thread,
    ) -> Result<Target, StoreError> {
        let num = self.event_num(view, room, event_id)?;
        let event = match num {
            Some(num) => self.event(view, room, num)?,
            None => None,
        };
        let Some(event) = event.filter(|event| super::gather::is_settled(Some(event))) else {
            return Ok(Target::Awaited);
        };
        match event.header.place {
            Some(place) if self.is_in_thread(view, &event, thread)? => Ok(Target::At(place)),
            _ => Ok(Target::Unfit),
        }
    }

    /// Sets receipts that have waited for events which were judged meanwhile.
    pub(super) async fn apply_awaited_receipts(&self, room: RoomNum) -> Result<(), Failure> {
        if !self.is_awaiting(room).await? {
            return Ok(());
        }
        let rooms = self.clone();
        let now = self.0.clock.now();
        let plan = self
            .write_receipts(move |view| rooms.plan_awaited(view, room, now))
            .await?;
        if !plan.left
            && let Some(rooms) = &mut *self.0.awaiting.0.lock()
        {
            rooms.remove(&room);
        }
        Ok(())
    }

    fn plan_awaited(&self, view: &View, room: RoomNum, now: Millis) -> Result<Plan, StoreError> {
        let mut plan = Plan::default();
        for row in view.scan::<AwaitedReceipts>(Scan::prefix(&room).limit(MOST_AWAITED)) {
            let (key, row) = row?;
            let thread = match key.2.as_str() {
                "" => Some(Thread::Unthreaded),
                "main" => Some(Thread::Main),
                root => OwnedEventId::try_from(root).ok().map(Thread::Root),
            };
            let target = match (OwnedEventId::try_from(&*row.event_id), thread) {
                (Ok(event_id), Some(thread)) => {
                    let target = self.target(view, room, &event_id, &thread)?;
                    if let Target::At(place) = target
                        && let Some(change) = change(view, &key, &event_id, place, row.at)?
                    {
                        plan.set(room, key.1, key.2.clone(), change);
                    }
                    target
                }
                _ => Target::Unfit,
            };
            let waits = matches!(target, Target::Awaited);
            if waits && now.since(row.received) < LONGEST_WAIT {
                plan.left = true;
            } else {
                plan.over.push(key);
            }
        }
        Ok(plan)
    }

    /// Plans and writes receipts, and does both again where somebody else has written one of them meanwhile.
    async fn write_receipts(
        &self,
        plan: impl Fn(&View) -> Result<Plan, StoreError> + Clone + Send + Sync + 'static,
    ) -> Result<Plan, Failure> {
        let mut attempt = 1;
        loop {
            let planned = self.0.store.read(plan.clone()).await?;
            if planned.is_empty() {
                return Ok(planned);
            }
            match self.0.store.commit(planned.batch()).await {
                Ok(_) => return Ok(planned),
                Err(CommitError::Expectation { .. }) if attempt < ATTEMPTS => attempt += 1,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Whether receipts may wait in a room.
    async fn is_awaiting(&self, room: RoomNum) -> Result<bool, Failure> {
        if let Some(rooms) = &*self.0.awaiting.0.lock() {
            return Ok(rooms.contains(&room));
        }
        let read = |view: &View| {
            let rooms = view.keys::<AwaitedReceipts>(Scan::all());
            rooms
                .map(|key| Ok(key?.0))
                .collect::<Result<BTreeSet<RoomNum>, StoreError>>()
        };
        let stored = self.0.store.read(read).await?;
        let mut rooms = self.0.awaiting.0.lock();
        Ok(rooms.get_or_insert(stored).contains(&room))
    }
}
