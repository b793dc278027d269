//! Events that other servers send: the checks on receipt of a PDU.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use myelin_data::rooms::EventStatus;
use myelin_rules::Pdu;
use myelin_store::{StoreError, View};
use ruma::{OwnedEventId, OwnedRoomId, OwnedServerName, RoomId, ServerName};
use serde::Deserialize;
use serde_json::value::RawValue;
use thiserror::Error;
use tracing::Instrument;

use super::{
    Fetch, check,
    gather::{Gathered, is_settled},
    judge::{Progress, Unjudged},
};
use crate::{Failure, RoomHandle, Rooms};

/// What became of one event of a transaction.
#[derive(Clone, Debug)]
pub struct Received {
    /// Its id; none if it could not be read so far (such events are left out of the answer to a transaction).
    pub event_id: Option<OwnedEventId>,
    /// What became of it.
    pub result: Result<Outcome, ReceiveError>,
}

/// What became of an event that was stored. The same again when it is sent again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is part of the room.
    Accepted,
    /// It is stored, but kept out of the room's current history: the current state does not allow it.
    SoftFailed,
    /// It is stored as one that the room's rules refuse.
    Rejected,
}

/// Why an event was not stored.
#[derive(Clone, Debug, Error)]
pub enum ReceiveError {
    /// It is no event of its room's version (dropped).
    #[error("the event is malformed: {0}")]
    Malformed(String),
    /// The server does not know its room, or has no user in it (dropped).
    #[error("the room is not known")]
    RoomNotFound,
    /// The room's ACL denies the origin.
    #[error("the origin is denied by the room's access control list")]
    Denied,
    /// Its signatures do not verify (dropped).
    #[error("the signatures do not verify: {0}")]
    BadSignature(String),
    /// Events that it builds on could not be had. It may be sent again.
    #[error("events that it builds on cannot be had: {0}")]
    Unconnected(String),
    /// A fault of the server. It may be sent again.
    #[error(transparent)]
    Failure(#[from] Failure),
}

impl Rooms {
    /// Takes in the PDUs of a transaction (`PUT /_matrix/federation/v1/send/{txnId}`), of as many rooms as they are of.
    /// One answer for each, in their order. What was accepted is durable when it returns; it completes even if nobody
    /// waits. Rooms do not wait for each other.
    pub async fn receive(
        &self,
        fetch: Arc<dyn Fetch>,
        origin: OwnedServerName,
        pdus: Vec<Box<RawValue>>,
    ) -> Vec<Received> {
        let mut answers: Vec<Received> = Vec::with_capacity(pdus.len());
        let mut by_room: BTreeMap<OwnedRoomId, Vec<(usize, Box<RawValue>)>> = BTreeMap::new();
        for (index, pdu) in pdus.into_iter().enumerate() {
            answers.push(Received {
                event_id: None,
                result: Err(ReceiveError::Malformed("it names no room".to_owned())),
            });
            if let Ok(Placed { room_id }) = serde_json::from_str(pdu.get()) {
                by_room.entry(room_id).or_default().push((index, pdu));
            }
        }
        let mut running = Vec::with_capacity(by_room.len());
        for (room_id, pdus) in by_room {
            let (rooms, fetch, origin) = (self.clone(), Arc::clone(&fetch), origin.clone());
            let (indexes, pdus): (Vec<usize>, Vec<Box<RawValue>>) = pdus.into_iter().unzip();
            let work = async move { rooms.receive_in(&*fetch, &origin, &room_id, pdus).await };
            let task = self.0.tasks.spawn(work.in_current_span());
            running.push((indexes, task));
        }
        for (indexes, task) in running {
            let received = match task.await {
                Ok(received) => received,
                Err(_) => vec![Received::failed(&Failure::CutShort); indexes.len()],
            };
            for (index, received) in indexes.into_iter().zip(received) {
                answers[index] = received;
            }
        }
        answers
    }

    /// The same for the PDUs of one room.
    async fn receive_in(
        &self,
        fetch: &dyn Fetch,
        origin: &ServerName,
        room_id: &RoomId,
        pdus: Vec<Box<RawValue>>,
    ) -> Vec<Received> {
        let count = pdus.len();
        match self.receive_checked(fetch, origin, room_id, pdus).await {
            Ok(received) => received,
            Err(error) => vec![
                Received {
                    event_id: None,
                    result: Err(error),
                };
                count
            ],
        }
    }

    async fn receive_checked(
        &self,
        fetch: &dyn Fetch,
        origin: &ServerName,
        room_id: &RoomId,
        pdus: Vec<Box<RawValue>>,
    ) -> Result<Vec<Received>, ReceiveError> {
        let handle = self.resident_room(room_id).await?;
        let handle = handle.ok_or(ReceiveError::RoomNotFound)?;
        // 1. The format.
        let mut parsed: Vec<Result<Pdu, ReceiveError>> = pdus
            .iter()
            .map(|json| check::parse(&handle, json))
            .collect();
        drop(pdus);
        let ids: Vec<Option<OwnedEventId>> = parsed
            .iter()
            .map(|pdu| OwnedEventId::try_from(pdu.as_ref().ok()?.event_id()).ok())
            .collect();
        if self.is_denied(&handle, origin).await? {
            for pdu in parsed.iter_mut().filter(|pdu| pdu.is_ok()) {
                *pdu = Err(ReceiveError::Denied);
            }
        }
        // 2. and 3. Signatures and hashes.
        let whole: Vec<Pdu> = parsed.iter().flatten().cloned().collect();
        let mut verified = self.verify(fetch, whole).await?.into_iter();
        for pdu in parsed.iter_mut().filter(|pdu| pdu.is_ok()) {
            if let Some(verified) = verified.next() {
                *pdu = verified;
            }
        }
        // 4. to 6. Authorisation.
        let good: Vec<Pdu> = parsed.iter().flatten().cloned().collect();
        let wanted: Vec<String> = good.iter().map(|pdu| pdu.event_id().to_owned()).collect();
        let outcomes = if good.is_empty() {
            HashMap::new()
        } else {
            let gathered = self.gather(&handle, fetch, origin, good).await?;
            self.take_in(&handle, gathered, wanted).await?
        };
        let outcome = |pdu: Pdu| {
            let outcome = outcomes.get(pdu.event_id()).cloned();
            outcome.unwrap_or(Err(ReceiveError::Failure(Failure::CutShort)))
        };
        Ok(ids
            .into_iter()
            .zip(parsed)
            .map(|(event_id, pdu)| Received {
                event_id,
                result: pdu.and_then(outcome),
            })
            .collect())
    }

    /// Takes events into their room, in one batch, and says what became of those that are `wanted`.
    async fn take_in(
        &self,
        handle: &RoomHandle,
        gathered: Gathered,
        wanted: Vec<String>,
    ) -> Result<HashMap<String, Result<Outcome, ReceiveError>>, Failure> {
        let mut guard = self.lock(handle).await?;
        guard.settle().await?;
        for pdu in gathered.outliers {
            match guard.admit_outlier(pdu).await {
                Ok(()) => {}
                Err(Unjudged::Unconnected(reason)) => {
                    tracing::debug!(reason, "event left out");
                }
                Err(Unjudged::Failure(failure)) => return Err(failure),
            }
        }
        let mut states = gathered.states;
        let before = guard.gaps().await?;
        let places = guard.places(&gathered.events, &before).await?;
        let mut progress = Progress::new(before.clone());
        let mut unconnected: HashMap<String, &'static str> = HashMap::new();
        for pdu in gathered.events {
            let id = pdu.event_id().to_owned();
            let known = guard.known(vec![id.clone()]).await?.pop().flatten();
            if is_settled(known.as_ref()) {
                continue;
            }
            let state = match states.remove(&id) {
                Some(ids) => Some(guard.state_of(ids).await?),
                None => None,
            };
            let num = known.map(|event| event.num);
            let place = places.get(&id).copied();
            let admitted = guard.judge_and_admit(pdu, num, state, place, &mut progress);
            match admitted.await {
                Ok(()) => {}
                Err(Unjudged::Unconnected(reason)) => {
                    unconnected.insert(id, reason);
                }
                Err(Unjudged::Failure(failure)) => return Err(failure),
            }
        }
        for (segment, missing) in progress.gaps {
            if before.get(&segment) != Some(&missing) {
                guard.set_gap(segment, missing);
            }
        }
        let mut outcomes = HashMap::new();
        for (id, event) in wanted.iter().zip(guard.known(wanted.clone()).await?) {
            let outcome = match event.map(|event| event.header.status) {
                Some(EventStatus::Accepted) => Ok(Outcome::Accepted),
                Some(EventStatus::SoftFailed) => Ok(Outcome::SoftFailed),
                Some(EventStatus::Rejected) => Ok(Outcome::Rejected),
                Some(EventStatus::Outlier) | None => {
                    let reason = unconnected
                        .get(id)
                        .copied()
                        .unwrap_or("it could not be judged");
                    Err(ReceiveError::Unconnected(reason.to_owned()))
                }
            };
            outcomes.insert(id.clone(), outcome);
        }
        if guard.has_admitted() {
            guard.commit().durable().await?;
        }
        Ok(outcomes)
    }

    /// A room that this server is in.
    pub(super) async fn resident_room(
        &self,
        room_id: &RoomId,
    ) -> Result<Option<RoomHandle>, Failure> {
        let (rooms, room_id) = (self.clone(), room_id.to_owned());
        let read = move |view: &View| match rooms.find(view, &room_id)? {
            Some(handle) if rooms.is_resident(view, handle.num)? => Ok(Some(handle)),
            _ => Ok::<_, StoreError>(None),
        };
        Ok(self.0.store.read(read).await?)
    }
}

impl Received {
    fn failed(failure: &Failure) -> Self {
        Self {
            event_id: None,
            result: Err(failure.clone().into()),
        }
    }
}

/// What is looked at before the room's version is known. From version 12 on create events name no room; they only ever
/// come with a join.
#[derive(Deserialize)]
struct Placed {
    room_id: OwnedRoomId,
}
