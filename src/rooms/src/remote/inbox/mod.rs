//! The inbox: events of other servers between the answer to their transaction and their place in the room.
//!
//! What a transaction brings is looked at as far as that needs nobody else (is it an event of a room that this server is
//! in, is its server let in), written down in one batch, and acknowledged. From then on it is ours: it stands in the
//! inbox, across restarts, until the batch that stores it, or the decision that it cannot be part of its room. Each
//! room's events are worked on by one worker, in the order in which they came; no room waits for another.
//!
//! The inbox is bounded for each room, each server and in all. What would make it too full is not acknowledged, and its
//! server sends it again.

mod index;
mod work;

use std::{collections::BTreeMap, sync::Arc};

use myelin_data::inbox::{Inbox as Rows, InboxRow};
use myelin_rules::Pdu;
use myelin_store::{Batch, Scan, StoreError, View};
use myelin_types::Millis;
use parking_lot::Mutex;
use ruma::{OwnedEventId, OwnedRoomId, OwnedServerName, ServerName};
use serde::Deserialize;
use serde_json::value::RawValue;
use thiserror::Error;
use tokio::sync::OnceCell;

pub use index::{InboxLimits, Load};
pub(super) use work::Waiting;
pub use work::{InboxWork, Judged};

use self::index::{Entry, Full, Index, Reserved};
use super::{
    check,
    gather::{is_rejected, is_settled},
};
use crate::{Event, Failure, RoomHandle, Rooms};

/// The inbox as it is in memory; read from the store when it is first needed.
#[derive(Debug)]
pub(crate) struct Inbox {
    index: OnceCell<Mutex<Index>>,
    limits: InboxLimits,
}

impl Inbox {
    pub(crate) fn new(limits: InboxLimits) -> Self {
        Self {
            index: OnceCell::new(),
            limits,
        }
    }
}

/// What is answered for one event of a transaction.
#[derive(Clone, Debug)]
pub struct Delivered {
    /// Its id; none if it could not be read so far (such events are left out of the answer to a transaction).
    pub event_id: Option<OwnedEventId>,
    /// Whether it was taken. What becomes of it in its room shows later.
    pub result: Result<(), NotTaken>,
}

/// Why an event was not taken. It need not be sent again.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NotTaken {
    /// It is no event of its room's version (dropped).
    #[error("the event is malformed: {0}")]
    Malformed(String),
    /// The server does not know its room, or has no user in it (dropped).
    #[error("the room is not known")]
    RoomNotFound,
    /// The room's ACL denies the origin.
    #[error("the origin is denied by the room's access control list")]
    Denied,
}

/// Why none of the events of a transaction was taken. All of them are to be sent again.
#[derive(Clone, Debug, Error)]
pub enum DeliverError {
    /// Too many events of the origin, or of a room, or in all, wait to be judged.
    #[error("too much waits in the inbox")]
    Full,
    /// A fault of the server.
    #[error(transparent)]
    Failure(#[from] Failure),
}

impl From<StoreError> for DeliverError {
    fn from(error: StoreError) -> Self {
        Self::Failure(error.into())
    }
}

/// What is looked at before the room's version is known. From version 12 on create events name no room; they only ever
/// come with a join.
#[derive(Deserialize)]
struct Placed {
    room_id: OwnedRoomId,
}

/// What the server that sends an event may do in its room, as far as is known before the event is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// This server is in the room, and takes what it is sent.
    Inside,
    /// The room's ACL keeps the other server out.
    Denied,
    /// This server is not in the room, where hardly anything concerns it.
    Outside,
}

impl Rooms {
    /// Takes the PDUs of a transaction into the inbox (`PUT /_matrix/federation/v1/send/{txnId}`). One answer for each, in
    /// their order; what was taken is durable. Completes even if nobody waits.
    pub async fn deliver(
        &self,
        origin: &ServerName,
        pdus: Vec<Box<RawValue>>,
    ) -> Result<Vec<Delivered>, DeliverError> {
        let (rooms, origin) = (self.clone(), origin.to_owned());
        self.run(async move { rooms.take_delivery(origin, pdus).await })
            .await
    }

    async fn take_delivery(
        &self,
        origin: OwnedServerName,
        pdus: Vec<Box<RawValue>>,
    ) -> Result<Vec<Delivered>, DeliverError> {
        let placed: Vec<Option<OwnedRoomId>> = pdus
            .iter()
            .map(|pdu| serde_json::from_str::<Placed>(pdu.get()).ok())
            .map(|placed| placed.map(|placed| placed.room_id))
            .collect();
        let handles = self.addressed(&origin, placed.iter().flatten()).await?;
        let read = move || {
            let read = placed.iter().zip(&pdus).map(|(room, pdu)| {
                let Some(room) = room else {
                    let text = "it names no room".to_owned();
                    return Err(NotTaken::Malformed(text));
                };
                let Some((handle, standing)) = handles.get(room) else {
                    return Err(NotTaken::RoomNotFound);
                };
                let pdu = check::parse(handle, pdu)
                    .map_err(|error| NotTaken::Malformed(error.to_string()))?;
                Ok((handle.clone(), pdu, *standing))
            });
            read.collect::<Vec<_>>()
        };
        // A full transaction is 3 MiB of JSON.
        let read = tokio::task::spawn_blocking(read).await;
        let read = read.map_err(|_| Failure::CutShort)?;
        let mut answers: Vec<Delivered> = Vec::with_capacity(read.len());
        let mut taken: Vec<(RoomHandle, Pdu)> = Vec::new();
        for event in read {
            let (event_id, result) = match event {
                Err(reason) => (None, Err(reason)),
                Ok((handle, pdu, standing)) => {
                    let id = OwnedEventId::try_from(pdu.event_id()).ok();
                    let matters = match standing {
                        Standing::Inside | Standing::Denied => true,
                        Standing::Outside => self.matters_outside(&handle, &pdu).await?,
                    };
                    if standing == Standing::Denied {
                        (id, Err(NotTaken::Denied))
                    } else if matters {
                        taken.push((handle, pdu));
                        (id, Ok(()))
                    } else {
                        (None, Err(NotTaken::RoomNotFound))
                    }
                }
            };
            answers.push(Delivered { event_id, result });
        }
        let new = self.unsettled(taken).await?;
        self.write_down(&origin, new).await?;
        Ok(answers)
    }

    /// The rooms among some that this server knows, each with how the sender stands to it.
    async fn addressed<'a>(
        &self,
        origin: &ServerName,
        rooms: impl Iterator<Item = &'a OwnedRoomId>,
    ) -> Result<BTreeMap<OwnedRoomId, (RoomHandle, Standing)>, Failure> {
        let mut handles = BTreeMap::new();
        for room in rooms {
            if handles.contains_key(room) {
                continue;
            }
            if let Some(handle) = self.resident_room(room).await? {
                let standing = if self.is_denied(&handle, origin).await? {
                    Standing::Denied
                } else {
                    Standing::Inside
                };
                handles.insert(room.clone(), (handle, standing));
            } else if let Some(handle) = self.find_now(room).await? {
                handles.insert(room.clone(), (handle, Standing::Outside));
            }
        }
        Ok(handles)
    }

    /// Those of some events that were not judged yet, or were rejected: a rejection may have lost its reason.
    async fn unsettled(
        &self,
        events: Vec<(RoomHandle, Pdu)>,
    ) -> Result<Vec<(RoomHandle, Pdu)>, Failure> {
        let wanted: Vec<_> = events
            .iter()
            .map(|(handle, pdu)| (handle.num, pdu.event_id().to_owned()))
            .collect();
        let rooms = self.clone();
        let read = move |view: &View| {
            let mut settled = Vec::with_capacity(wanted.len());
            for chunk in wanted.chunk_by(|a, b| a.0 == b.0) {
                let ids: Vec<String> = chunk.iter().map(|(_, id)| id.clone()).collect();
                let known = rooms.events_by_id(view, chunk[0].0, &ids)?;
                settled.extend(known.iter().map(|event| is_done(event.as_ref())));
            }
            Ok::<_, StoreError>(settled)
        };
        let settled = self.0.store.read(read).await?;
        let events = events.into_iter().zip(settled);
        Ok(events
            .filter(|(_, settled)| !settled)
            .map(|(event, _)| event)
            .collect())
    }

    /// Writes events into the inbox, those that do not stand there yet.
    async fn write_down(
        &self,
        origin: &ServerName,
        events: Vec<(RoomHandle, Pdu)>,
    ) -> Result<(), DeliverError> {
        if events.is_empty() {
            return Ok(());
        }
        let index = self.inbox().await?;
        let now = self.0.clock.now();
        let reserved = {
            let mut index = index.lock();
            let wanted: Vec<_> = events
                .iter()
                .map(|(handle, pdu)| {
                    let print = index.print(pdu.event_id(), pdu.json());
                    (handle.num, print, pdu.json().len())
                })
                .collect();
            index
                .reserve(origin, &wanted, now)
                .map_err(|Full| DeliverError::Full)?
        };
        let mut batch = Batch::new();
        let places: Vec<Reserved> = reserved.iter().flatten().copied().collect();
        for ((_, pdu), place) in events.iter().zip(&reserved) {
            if let Some(Reserved { room, seq }) = *place {
                let row = InboxRow {
                    origin: origin.to_string(),
                    event_id: pdu.event_id().to_owned(),
                    received: now,
                    due: now,
                    attempts: 0,
                    json: pdu.json().to_owned(),
                };
                batch.put::<Rows>(&(room, seq), &row);
            }
        }
        if places.is_empty() {
            return Ok(());
        }
        let committed = self.0.store.commit(batch).await;
        let mut index = index.lock();
        for Reserved { room, seq } in places {
            match &committed {
                Ok(_) => index.set_due(room, seq, now, 0),
                Err(_) => index.remove(room, seq),
            }
        }
        report(&index);
        drop(index);
        committed.map_err(Failure::from)?;
        Ok(())
    }

    /// The inbox in memory.
    async fn inbox(&self) -> Result<&Mutex<Index>, Failure> {
        self.0
            .inbox
            .index
            .get_or_try_init(|| self.load_inbox())
            .await
    }

    /// Reads what stood in the inbox when the server stopped.
    async fn load_inbox(&self) -> Result<Mutex<Index>, Failure> {
        let limits = self.0.inbox.limits;
        let read = move |view: &View| {
            let mut index = Index::new(limits);
            for row in view.scan::<Rows>(Scan::all()) {
                let ((room, seq), row) = row?;
                let Ok(origin) = OwnedServerName::try_from(row.origin) else {
                    continue;
                };
                let print = index.print(&row.event_id, &row.json);
                let entry = Entry {
                    origin,
                    print,
                    bytes: row.json.len(),
                    due: Some(row.due),
                    attempts: row.attempts,
                };
                index.restore(room, seq, entry);
            }
            Ok::<_, StoreError>(index)
        };
        let index = self.0.store.read(read).await?;
        report(&index);
        Ok(Mutex::new(index))
    }

    /// Work that is due in some room in which nobody works; none if there is none.
    pub async fn claim_inbox(&self) -> Result<Option<InboxWork>, Failure> {
        let now: Millis = self.0.clock.now();
        let room = self.inbox().await?.lock().claim(now);
        Ok(room.map(|room| InboxWork::new(self.clone(), room)))
    }

    /// How much waits in the inbox.
    pub async fn inbox_load(&self) -> Result<Load, Failure> {
        Ok(self.inbox().await?.lock().total())
    }
}

/// Whether nothing more can become of an event.
fn is_done(event: Option<&Arc<Event>>) -> bool {
    is_settled(event) && !is_rejected(event)
}

/// Shows how full the inbox is.
fn report(index: &Index) {
    metrics::gauge!("federation_inbox_events").set(index.total().events as f64);
    metrics::gauge!("federation_inbox_bytes").set(index.total().bytes as f64);
    metrics::gauge!("federation_inbox_deepest_room_events").set(index.deepest() as f64);
}
