//! Receipts: how far each user has read.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use myelin_data::{
    Present,
    rooms::{Receipt, ReceiptKind, Receipts, ReceiptsByPos},
    topic::Changed,
};
use myelin_store::{Batch, StoreError, View};
use myelin_types::{Millis, Pos, RoomNum, UserNum};
use ruma::{EventId, OwnedEventId, RoomId, UserId};
use thiserror::Error;

use crate::{Failure, RoomHandle, Rooms, error::lock_errors, event::Event};

/// How many locks there are for setting receipts; users share them by number.
const LOCKS: usize = 64;

/// Locks for setting receipts: what a user's devices set at the same time comes one after the other, since each looks at
/// the receipts that are there first.
pub(crate) struct ReceiptLocks([tokio::sync::Mutex<()>; LOCKS]);

impl Default for ReceiptLocks {
    fn default() -> Self {
        Self(std::array::from_fn(|_| tokio::sync::Mutex::default()))
    }
}

impl ReceiptLocks {
    fn of(&self, user: &UserId) -> &tokio::sync::Mutex<()> {
        let mut hasher = DefaultHasher::new();
        user.hash(&mut hasher);
        &self.0[hasher.finish() as usize % LOCKS]
    }
}

/// Which events a receipt speaks of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Thread {
    /// All of the room; what clients without threads send.
    #[default]
    Unthreaded,
    /// Those in no thread (`main`).
    Main,
    /// Those of the thread with this root.
    Root(OwnedEventId),
}

/// A receipt to set.
#[derive(Clone, Debug)]
pub struct NewReceipt {
    /// For everybody or for the user alone.
    pub kind: ReceiptKind,
    /// Which events it speaks of.
    pub thread: Thread,
    /// The event up to which the user has read.
    pub event_id: OwnedEventId,
}

/// Why a receipt was not set.
#[derive(Clone, Debug, Error)]
pub enum ReceiptError {
    /// The server does not know the room.
    #[error("the room is not known")]
    RoomNotFound,
    /// The user is not in the room (`M_FORBIDDEN`).
    #[error("the user is not in the room")]
    NotInRoom,
    /// The thread's root is no event id, or the event is not in that thread (`M_INVALID_PARAM`).
    #[error("the event is not in that thread")]
    NotInThread,
    /// A fault of the server.
    #[error(transparent)]
    Failure(#[from] Failure),
}

lock_errors!(ReceiptError);

impl From<StoreError> for ReceiptError {
    fn from(error: StoreError) -> Self {
        Failure::from(error).into()
    }
}

/// The receipts that stay to be written after a look at the store.
#[derive(Clone, Debug)]
pub(crate) struct Work {
    pub(crate) room: RoomNum,
    pub(crate) user: UserNum,
    pub(crate) receipts: Vec<(ReceiptKind, String, Option<Receipt>, Receipt)>,
}

impl Thread {
    /// As the key of a receipt.
    pub(crate) fn key(&self) -> String {
        match self {
            Thread::Unthreaded => String::new(),
            Thread::Main => "main".to_owned(),
            Thread::Root(root) => root.to_string(),
        }
    }
}

impl Rooms {
    /// Sets receipts of a user in a room, all in one batch (`POST /rooms/{roomId}/receipt/...`, `/read_markers`). Those that
    /// would move backwards are left out, as are those for events that the server does not have.
    pub async fn set_receipts(
        &self,
        room_id: &RoomId,
        user: &UserId,
        receipts: Vec<NewReceipt>,
    ) -> Result<(), ReceiptError> {
        let (rooms, room_id, user) = (self.clone(), room_id.to_owned(), user.to_owned());
        self.run(async move {
            let lock = rooms.0.receipt_locks.of(&user).lock().await;
            let now = rooms.0.clock.now();
            let (reader, user) = (rooms.clone(), user.clone());
            let read = move |view: &View| reader.plan(view, &room_id, &user, &receipts, now);
            let work = rooms.0.store.read(read).await?;
            if !work.receipts.is_empty() {
                let mut batch = Batch::new();
                write(&mut batch, &work);
                let committed = rooms.0.store.commit(batch).await;
                committed.map_err(Failure::from)?;
            }
            drop(lock);
            Ok(())
        })
        .await
    }

    /// Whether a user is joined to a room and an event is part of it: what a fully-read marker must satisfy. `NotInRoom` for
    /// the former, `false` for the latter.
    pub async fn event_in_room(
        &self,
        room_id: &RoomId,
        user: &UserId,
        event_id: &EventId,
    ) -> Result<bool, ReceiptError> {
        let (rooms, room_id, user, event_id) = (
            self.clone(),
            room_id.to_owned(),
            user.to_owned(),
            event_id.to_owned(),
        );
        let read = move |view: &View| {
            let (handle, _) = rooms.reader_of(view, &room_id, &user)?;
            Ok(rooms.event_num(view, handle.num, &event_id)?.is_some())
        };
        self.0.store.read(read).await
    }

    fn reader_of(
        &self,
        view: &View,
        room_id: &RoomId,
        user: &UserId,
    ) -> Result<(RoomHandle, UserNum), ReceiptError> {
        let handle = self
            .find(view, room_id)?
            .ok_or(ReceiptError::RoomNotFound)?;
        let user = self.joined_user(view, handle.num, user)?;
        Ok((handle, user.ok_or(ReceiptError::NotInRoom)?))
    }

    fn plan(
        &self,
        view: &View,
        room_id: &RoomId,
        user: &UserId,
        receipts: &[NewReceipt],
        now: Millis,
    ) -> Result<Work, ReceiptError> {
        let (handle, user) = self.reader_of(view, room_id, user)?;
        let room = handle.num;
        let mut work = Work {
            room,
            user,
            receipts: Vec::new(),
        };
        for receipt in receipts {
            let num = self.event_num(view, room, &receipt.event_id)?;
            let event = match num {
                Some(num) => self.event(view, room, num)?,
                None => None,
            };
            let Some((event, place)) = event.and_then(|event| {
                let place = event.header.place?;
                Some((event, place))
            }) else {
                continue;
            };
            if !self.is_in_thread(view, &event, &receipt.thread)? {
                return Err(ReceiptError::NotInThread);
            }
            let thread = receipt.thread.key();
            let before = view.get::<Receipts>(&(room, user, receipt.kind, thread.clone()))?;
            if before.as_ref().is_some_and(|before| before.place >= place) {
                continue;
            }
            let after = Receipt {
                pos: Pos::AT_COMMIT,
                event_id: receipt.event_id.to_string(),
                place,
                at: now,
            };
            work.receipts.push((receipt.kind, thread, before, after));
        }
        Ok(work)
    }

    /// Whether a receipt for `thread` may name an event: a thread's root and everything that is related to the root in
    /// other ways belong to the main timeline, but the root may be named as the beginning of its thread too.
    pub(crate) fn is_in_thread(
        &self,
        view: &View,
        event: &Arc<Event>,
        thread: &Thread,
    ) -> Result<bool, StoreError> {
        match thread {
            Thread::Unthreaded => Ok(true),
            Thread::Main => Ok(self.thread_of(view, event)?.is_none()),
            Thread::Root(root) => Ok(event.header.event_id == root.as_str()
                || self.thread_of(view, event)?.as_deref() == Some(root.as_str())),
        }
    }
}

/// Writes receipts of a user in a room, which are not none.
pub(crate) fn write(batch: &mut Batch, work: &Work) {
    for (kind, thread, before, after) in &work.receipts {
        let key = (work.room, work.user, *kind, thread.clone());
        let row = |pos| (work.room, pos, work.user, *kind, thread.clone());
        batch.expect::<Receipts>(&key, before.as_ref());
        if let Some(before) = before {
            batch.delete::<ReceiptsByPos>(&row(before.pos));
        }
        batch.put::<Receipts>(&key, after);
        batch.put::<ReceiptsByPos>(&row(Pos::AT_COMMIT), &Present);
    }
    // Everybody in the room hears of a public receipt, and with them the user's other devices. He is the only one to hear
    // of a private one.
    let is_public = |kind: ReceiptKind| kind == ReceiptKind::Read;
    if work.receipts.iter().any(|(kind, ..)| is_public(*kind)) {
        batch.touch(Changed::Receipts(work.room).into());
    } else {
        batch.touch(Changed::PrivateReceipts(work.room).into());
        batch.touch(Changed::OwnReceipts(work.user).into());
    }
}
