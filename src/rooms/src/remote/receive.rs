//! Events that other servers send: the checks on receipt of a PDU, from the inbox into the room.

use std::collections::{BTreeMap, HashMap, HashSet};

use myelin_data::rooms::EventStatus;
use myelin_rules::{Pdu, limits};
use myelin_store::{StoreError, View};
use ruma::{RoomId, ServerName};
use tokio_util::sync::CancellationToken;

use super::{
    Fetch,
    check::CheckError,
    gather::{Gathered, is_rejected, is_settled},
    inbox::Waiting,
    judge::{Incoming, Progress, Unjudged},
};
use crate::{Failure, RoomHandle, Rooms, pipeline::RoomGuard};

/// What became of an event that was taken into the inbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is part of the room.
    Accepted,
    /// It is stored, but kept out of the room's current history: the current state does not allow it.
    SoftFailed,
    /// It is stored as one that the room's rules refuse.
    Rejected,
    /// It stays in the inbox and is tried again, because something that it builds on cannot be had now.
    Postponed(String),
    /// It is not stored.
    Dropped(String),
}

impl Outcome {
    /// Its name, as metrics have it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::SoftFailed => "soft_failed",
            Self::Rejected => "rejected",
            Self::Postponed(_) => "postponed",
            Self::Dropped(_) => "dropped",
        }
    }
}

impl Rooms {
    /// Takes events of the inbox into their room, in one batch with what becomes of their rows. Answers whether it did: not
    /// if it was stopped while it waited for other servers.
    pub(super) async fn take_in_waiting(
        &self,
        handle: &RoomHandle,
        fetch: &dyn Fetch,
        origin: &ServerName,
        stop: &CancellationToken,
        waiting: &mut Waiting,
    ) -> Result<bool, Failure> {
        // 1., the format, was checked before they were taken into the inbox.
        let mut seqs: Vec<u64> = Vec::new();
        let mut pdus: Vec<Pdu> = Vec::new();
        for (seq, row) in &waiting.rows {
            match Pdu::from_stored(handle.version, &row.event_id, &row.json) {
                Ok(pdu) => {
                    seqs.push(*seq);
                    pdus.push(pdu);
                }
                Err(error) => {
                    let dropped = Outcome::Dropped(error.to_string());
                    waiting.outcomes.insert(*seq, dropped);
                }
            }
        }
        let fetching = async {
            // 2. and 3. Signatures and hashes.
            let mut good = Vec::with_capacity(pdus.len());
            for (seq, verified) in seqs.iter().zip(self.verify(fetch, pdus).await?) {
                let outcome = match verified {
                    Ok(pdu) => {
                        good.push((*seq, pdu));
                        continue;
                    }
                    Err(error @ CheckError::KeyNotKnown(_)) => {
                        Outcome::Postponed(error.to_string())
                    }
                    Err(error) => Outcome::Dropped(error.to_string()),
                };
                waiting.outcomes.insert(*seq, outcome);
            }
            let pushed: Vec<Pdu> = good.iter().map(|(_, pdu)| pdu.clone()).collect();
            let gathered = if pushed.is_empty() {
                Gathered::default()
            } else {
                let mut gathered = self.gather(handle, fetch, origin, pushed).await?;
                gathered.events = self
                    .ask_policy(handle, gathered.events, &gathered.outliers)
                    .await?;
                gathered
            };
            Ok::<_, Failure>((good, gathered))
        };
        let Some(fetched) = stop.run_until_cancelled(fetching).await else {
            return Ok(false);
        };
        let (good, gathered) = fetched?;
        // 4. to 7. Authorisation, and the recommendation of a policy server.
        let pushed = good
            .iter()
            .map(|(seq, pdu)| (*seq, pdu.event_id().to_owned()));
        self.take_in(handle, gathered, pushed.collect(), waiting)
            .await?;
        Ok(true)
    }

    /// Takes events into their room, and says what became of those that are `pushed`.
    pub(super) async fn take_in(
        &self,
        handle: &RoomHandle,
        gathered: Gathered,
        pushed: Vec<(u64, String)>,
        waiting: &mut Waiting,
    ) -> Result<(), Failure> {
        let mut guard = self.lock(handle).await?;
        guard.settle().await?;
        let before = guard.gaps().await?;
        let places = guard.places(&gathered, &before).await?;
        let mut progress = Progress::new(before.clone());
        let ids: HashSet<&str> = pushed.iter().map(|(_, id)| id.as_str()).collect();
        let strangers = guard.strangers(&gathered.events, &ids).await?;
        let mut unconnected: HashMap<String, String> = HashMap::new();
        let mut states = BTreeMap::new();
        for pdu in gathered.events {
            let id = pdu.event_id().to_owned();
            if gathered.outliers.contains(&id) {
                match guard.admit_outlier(pdu, &mut progress).await {
                    Ok(()) => {}
                    Err(Unjudged::Unconnected(reason)) => {
                        tracing::debug!(event_id = id, reason, "event left out");
                    }
                    Err(Unjudged::Failure(failure)) => return Err(failure),
                }
                continue;
            }
            let known = guard.known(vec![id.clone()]).await?.pop().flatten();
            let again = is_rejected(known.as_ref()) && ids.contains(id.as_str());
            if is_settled(known.as_ref()) && !again {
                continue;
            }
            guard
                .add_states_before(&pdu, &gathered.states, gathered.incomplete, &mut states)
                .await?;
            let incoming = Incoming {
                known,
                place: places.get(&id).copied(),
                is_stranger: strangers.contains(&id),
                pdu,
            };
            let admitted = guard.judge_and_admit(incoming, &states, &mut progress);
            match admitted.await {
                Ok(()) => {}
                Err(Unjudged::Unconnected(reason)) => {
                    unconnected.insert(id, reason.to_owned());
                }
                Err(Unjudged::Failure(failure)) => return Err(failure),
            }
        }
        for (segment, missing) in progress.gaps {
            if before.get(&segment) != Some(&missing) {
                guard.set_gap(segment, missing);
            }
        }
        let wanted: Vec<String> = pushed.iter().map(|(_, id)| id.clone()).collect();
        for ((seq, id), event) in pushed.iter().zip(guard.known(wanted).await?) {
            let outcome = match event.map(|event| event.header.status) {
                Some(EventStatus::Accepted) => Outcome::Accepted,
                Some(EventStatus::SoftFailed) => Outcome::SoftFailed,
                Some(EventStatus::Rejected) => Outcome::Rejected,
                Some(EventStatus::Outlier) | None => match unconnected.get(id) {
                    Some(reason) if gathered.incomplete => Outcome::Postponed(reason.clone()),
                    Some(reason) => Outcome::Dropped(reason.clone()),
                    None => Outcome::Dropped(STRANGER.to_owned()),
                },
            };
            waiting.outcomes.insert(*seq, outcome);
        }
        let (room, now) = (guard.num(), self.0.clock.now());
        waiting.settle(guard.batch(), room, now, &*self.0.random);
        guard.commit().durable().await?;
        if let Err(error) = self.apply_awaited_receipts(room).await {
            tracing::error!(%error, "receipts that waited cannot be written");
        }
        Ok(())
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

const STRANGER: &str = "the room refuses it, and its server is not in the room";

impl RoomGuard {
    /// Those of the events that were pushed which nothing refers to and whose senders' servers have nobody in the room. If
    /// the room refuses such an event it is not stored: else anybody could fill the disk who knows the room's id.
    async fn strangers(
        &self,
        events: &[Pdu],
        pushed: &HashSet<&str>,
    ) -> Result<HashSet<String>, Failure> {
        let referred: HashSet<&str> = events
            .iter()
            .flat_map(|event| event.prev_events().chain(event.auth_events()))
            .collect();
        let candidates: Vec<(String, String)> = events
            .iter()
            .map(|event| (event.event_id(), event.sender()))
            .filter(|(id, _)| pushed.contains(id) && !referred.contains(id))
            .map(|(id, sender)| (id.to_owned(), sender.to_owned()))
            .collect();
        let (rooms, room) = (self.rooms.clone(), self.num());
        let read = move |view: &View| {
            let mut strangers = HashSet::new();
            let mut here: HashMap<&str, bool> = HashMap::new();
            for (id, sender) in &candidates {
                let name = limits::server_name_of(sender).unwrap_or_default();
                let is_here = match here.get(name) {
                    Some(is_here) => *is_here,
                    None => match <&ServerName>::try_from(name) {
                        Ok(server) => rooms.is_server_in_room(view, room, server)?,
                        Err(_) => false,
                    },
                };
                here.insert(name, is_here);
                if !is_here {
                    strangers.insert(id.clone());
                }
            }
            Ok::<_, StoreError>(strangers)
        };
        Ok(self.rooms.0.store.read(read).await?)
    }
}
