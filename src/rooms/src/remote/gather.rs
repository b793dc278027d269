//! What is missing for events to be judged: fetched from the server that sent them, within a budget.
//!
//! Predecessors are asked for breadth-first, until all are known or the server gives no more. Where some remain missing,
//! the state before the event that needs them is asked for instead. Events that others name as their auth events, and
//! those of such states, are fetched one by one.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use myelin_data::rooms::{EventStatus, Heads};
use myelin_rules::Pdu;
use myelin_store::View;
use ruma::{EventId, OwnedEventId, ServerName};
use serde_json::value::RawValue;

use super::{Fetch, FetchError, MissingEvents, check, order};
use crate::{Event, Failure, RoomHandle, Rooms};

/// How many times a server is asked for predecessors of what it sent.
const MOST_ROUNDS: usize = 20;
/// How many predecessors are asked for at once.
const EVENTS_A_ROUND: u32 = 100;
/// Most predecessors that are fetched for one transaction.
const MOST_PREDECESSORS: usize = 1_000;
/// Most events whose predecessors stay missing, and for which a state is fetched.
const MOST_STATES: usize = 5;
/// Most events that are fetched one by one.
const MOST_SINGLE: usize = 500;
/// When more events of a state are unknown, the whole state is fetched.
const MOST_OF_STATE: usize = 50;

/// Everything that is needed to judge some events, as far as it could be had. Every event in it was verified.
#[derive(Default)]
pub(super) struct Gathered {
    /// The events, and their predecessors that were fetched; each after those that it refers to.
    pub(super) events: Vec<Pdu>,
    /// Events that are part of states or auth chains only; each after its auth events.
    pub(super) outliers: Vec<Pdu>,
    /// For events whose predecessors are missing: the ids of the state before them.
    pub(super) states: HashMap<String, Vec<String>>,
}

/// One server asked about one room.
struct Gatherer<'a> {
    rooms: &'a Rooms,
    handle: &'a RoomHandle,
    fetch: &'a dyn Fetch,
    origin: &'a ServerName,
    events: HashMap<String, Pdu>,
    outliers: HashMap<String, Pdu>,
    states: HashMap<String, Vec<String>>,
    /// What was asked for one by one, with or without success.
    asked: HashSet<String>,
}

impl Rooms {
    /// Fetches what is missing for `pdus`, which were verified.
    pub(super) async fn gather(
        &self,
        handle: &RoomHandle,
        fetch: &dyn Fetch,
        origin: &ServerName,
        pdus: Vec<Pdu>,
    ) -> Result<Gathered, Failure> {
        let mut gatherer = Gatherer {
            rooms: self,
            handle,
            fetch,
            origin,
            events: HashMap::new(),
            outliers: HashMap::new(),
            states: HashMap::new(),
            asked: HashSet::new(),
        };
        let ids = pdus.iter().map(|pdu| pdu.event_id().to_owned()).collect();
        let known = self.stored(handle, ids).await?;
        for (pdu, known) in pdus.into_iter().zip(known) {
            if !is_settled(known.as_ref()) {
                gatherer.events.insert(pdu.event_id().to_owned(), pdu);
            }
        }
        gatherer.predecessors().await?;
        gatherer.missing_states().await?;
        gatherer.auth_events().await?;
        Ok(Gathered {
            events: order::by_references(gatherer.events),
            outliers: order::by_references(gatherer.outliers),
            states: gatherer.states,
        })
    }

    /// Durable events of a room by id.
    async fn stored(
        &self,
        handle: &RoomHandle,
        ids: Vec<String>,
    ) -> Result<Vec<Option<Arc<Event>>>, Failure> {
        let (rooms, room) = (self.clone(), handle.num);
        let read = move |view: &View| rooms.events_by_id(view, room, &ids);
        Ok(self.0.store.read(read).await?)
    }

    async fn extremities(&self, handle: &RoomHandle) -> Result<Vec<OwnedEventId>, Failure> {
        let room = handle.num;
        let read = move |view: &View| view.get::<Heads>(&room);
        let head = self.0.store.read(read).await?;
        let ids = head.into_iter().flat_map(|head| head.extremities);
        Ok(ids
            .filter_map(|(_, id)| OwnedEventId::try_from(id).ok())
            .collect())
    }
}

/// Whether an event has been judged, so that its successors can be.
pub(super) fn is_settled(event: Option<&Arc<Event>>) -> bool {
    event.is_some_and(|event| event.header.status != EventStatus::Outlier)
}

impl Gatherer<'_> {
    /// The ids of predecessors that are missing, each with those who name it.
    async fn missing(&self) -> Result<HashMap<String, Vec<String>>, Failure> {
        let mut named: HashMap<String, Vec<String>> = HashMap::new();
        for event in self.events.values() {
            for prev in event.prev_events() {
                if !self.events.contains_key(prev) {
                    let by = named.entry(prev.to_owned()).or_default();
                    by.push(event.event_id().to_owned());
                }
            }
        }
        let ids: Vec<String> = named.keys().cloned().collect();
        let known = self.rooms.stored(self.handle, ids.clone()).await?;
        for (id, known) in ids.iter().zip(known) {
            if is_settled(known.as_ref()) {
                named.remove(id);
            }
        }
        Ok(named)
    }

    async fn predecessors(&mut self) -> Result<(), Failure> {
        for _ in 0..MOST_ROUNDS {
            let missing = self.missing().await?;
            if missing.is_empty() || self.events.len() >= MOST_PREDECESSORS {
                return Ok(());
            }
            let latest: BTreeSet<&String> = missing.values().flatten().collect();
            let request = MissingEvents {
                earliest: self.rooms.extremities(self.handle).await?,
                latest: latest.into_iter().filter_map(|id| event_id(id)).collect(),
                limit: EVENTS_A_ROUND,
                min_depth: 0,
            };
            let room = self.handle.room_id();
            let answer = self.fetch.missing_events(self.origin, room, &request).await;
            let events = match answer {
                Ok(events) => events,
                Err(error) => {
                    tracing::debug!(%error, server = %self.origin, "fetch missing events");
                    return Ok(());
                }
            };
            let mut answered = self.read(&events);
            let ids: Vec<String> = answered.keys().cloned().collect();
            let known = self.rooms.stored(self.handle, ids.clone()).await?;
            for (id, known) in ids.iter().zip(known) {
                if self.events.contains_key(id) || is_settled(known.as_ref()) {
                    answered.remove(id);
                }
            }
            // Only what leads back from the events that we have is what was asked for.
            let mut wanted: Vec<String> = missing.into_keys().collect();
            let mut connected = Vec::new();
            while let Some(id) = wanted.pop() {
                if let Some(pdu) = answered.remove(&id) {
                    wanted.extend(pdu.prev_events().map(str::to_owned));
                    connected.push(pdu);
                }
            }
            let before = self.events.len();
            for pdu in self
                .rooms
                .verify(self.fetch, connected)
                .await?
                .into_iter()
                .flatten()
            {
                self.events.insert(pdu.event_id().to_owned(), pdu);
            }
            if self.events.len() == before {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Reads the events of an answer. What cannot be read is left out.
    fn read(&self, events: &[Box<RawValue>]) -> HashMap<String, Pdu> {
        let most = MOST_PREDECESSORS.saturating_sub(self.events.len());
        events
            .iter()
            .take(most)
            .filter_map(|json| check::parse(self.handle, json).ok())
            .map(|pdu| (pdu.event_id().to_owned(), pdu))
            .collect()
    }

    /// The states before the events that have predecessors which are still missing.
    async fn missing_states(&mut self) -> Result<(), Failure> {
        let missing = self.missing().await?;
        let without: BTreeSet<String> = missing.into_values().flatten().collect();
        for id in without.into_iter().take(MOST_STATES) {
            let Some(event) = event_id(&id) else { continue };
            match self.state_before(&event).await? {
                Ok(state) => {
                    self.states.insert(id, state);
                }
                Err(error) => {
                    tracing::debug!(%error, server = %self.origin, event_id = id, "fetch the state before an event");
                }
            }
        }
        Ok(())
    }

    async fn state_before(
        &mut self,
        event: &EventId,
    ) -> Result<Result<Vec<String>, FetchError>, Failure> {
        let room = self.handle.room_id();
        let ids = match self.fetch.state_ids(self.origin, room, event).await {
            Ok(ids) => ids,
            Err(error) => return Ok(Err(error)),
        };
        let state: Vec<String> = ids.state.iter().map(ToString::to_string).collect();
        let mut all = state.clone();
        all.extend(ids.auth_chain.iter().map(ToString::to_string));
        let unknown = self.unknown(all).await?;
        if unknown.len() > MOST_OF_STATE {
            match self.fetch.state(self.origin, room, event).await {
                Ok(answer) => {
                    let mut pdus = Vec::new();
                    for json in answer.state.iter().chain(&answer.auth_chain) {
                        if let Ok(pdu) = check::parse(self.handle, json)
                            && unknown.contains(pdu.event_id())
                        {
                            pdus.push(pdu);
                        }
                    }
                    self.add_outliers(pdus).await?;
                }
                Err(error) => return Ok(Err(error)),
            }
        } else {
            self.fetch_single(unknown).await?;
        }
        Ok(Ok(state))
    }

    /// Those of some events that are neither stored nor fetched yet.
    async fn unknown(&self, ids: Vec<String>) -> Result<HashSet<String>, Failure> {
        let known = self.rooms.stored(self.handle, ids.clone()).await?;
        Ok(ids
            .into_iter()
            .zip(known)
            .filter(|(id, known)| {
                known.is_none() && !self.events.contains_key(id) && !self.outliers.contains_key(id)
            })
            .map(|(id, _)| id)
            .collect())
    }

    async fn add_outliers(&mut self, pdus: Vec<Pdu>) -> Result<(), Failure> {
        for pdu in self
            .rooms
            .verify(self.fetch, pdus)
            .await?
            .into_iter()
            .flatten()
        {
            self.outliers.insert(pdu.event_id().to_owned(), pdu);
        }
        Ok(())
    }

    async fn fetch_single(&mut self, ids: HashSet<String>) -> Result<(), Failure> {
        let mut pdus = Vec::new();
        for id in ids {
            if self.asked.len() >= MOST_SINGLE || !self.asked.insert(id.clone()) {
                continue;
            }
            let Some(event) = event_id(&id) else { continue };
            match self.fetch.event(self.origin, &event).await {
                Ok(json) => {
                    let pdu = check::parse(self.handle, &json);
                    pdus.extend(pdu.ok().filter(|pdu| pdu.event_id() == id));
                }
                Err(error) => {
                    tracing::debug!(%error, server = %self.origin, event_id = id, "fetch an event");
                }
            }
        }
        self.add_outliers(pdus).await
    }

    /// The auth events of everything, and theirs.
    async fn auth_events(&mut self) -> Result<(), Failure> {
        loop {
            let all = self.events.values().chain(self.outliers.values());
            let named: HashSet<String> = all
                .flat_map(|event| event.auth_events().map(str::to_owned).collect::<Vec<_>>())
                .collect();
            let mut unknown = self.unknown(named.into_iter().collect()).await?;
            unknown.retain(|id| !self.asked.contains(id));
            if unknown.is_empty() || self.asked.len() >= MOST_SINGLE {
                return Ok(());
            }
            self.fetch_single(unknown).await?;
        }
    }
}

fn event_id(id: &str) -> Option<OwnedEventId> {
    OwnedEventId::try_from(id).ok()
}
