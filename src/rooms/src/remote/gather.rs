//! What is missing for events to be judged: fetched from the server that sent them and others that are in the room, within
//! a budget.
//!
//! Predecessors are asked for breadth-first, until all are known or the server gives no more. Where some remain missing
//! behind events that were fetched so, the state before the missing ones is asked for instead, and they themselves. Not
//! where an event lacks predecessors that was pushed to us: whoever pushes an event can give what it builds on, and
//! else could have us take any state for that of the room. Events that others name as their auth events, and those of
//! such states, are fetched one by one.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use futures_util::{StreamExt, stream};
use myelin_data::rooms::{EventStatus, Heads};
use myelin_rules::Pdu;
use myelin_state::Root;
use myelin_store::View;
use ruma::{EventId, OwnedEventId, OwnedServerName, ServerName};
use serde_json::value::RawValue;

use super::{Fetch, FetchError, MissingEvents, StateIds, check, order};
use crate::{Event, Failure, RoomHandle, Rooms};

/// How many times servers are asked for predecessors of what one of them sent.
const MOST_ROUNDS: usize = 50;
/// How many predecessors are asked for at once. Servers in use give no more than this; one that gives fewer has come to
/// the end of what it gives. To go on with one that gives a few at a time has a price: each event that is fetched so is
/// resolved with what stands beside it.
const EVENTS_A_ROUND: u32 = 20;
/// Most predecessors that are fetched for one transaction.
const MOST_PREDECESSORS: usize = 1_000;
/// Most predecessors that stay missing and for which a state is fetched.
const MOST_STATES: usize = 10;
/// The same for an answer of many events from the past of a busy room.
const MOST_STATES_OF_HISTORY: usize = 20;
/// Most events that are fetched one by one.
const MOST_SINGLE: usize = 500;
/// How many of them at once.
const SINGLE_AT_ONCE: usize = 8;
/// When more events of a state are unknown, the whole state is fetched.
const MOST_OF_STATE: usize = 50;
/// How many servers are asked besides the one that sent the events.
const OTHER_SERVERS: usize = 3;

/// Everything that is needed to judge some events, as far as it could be had. Every event in it was verified.
#[derive(Default)]
pub(super) struct Gathered {
    /// The events, their predecessors that were fetched, and what is part of states or auth chains only; each after those
    /// that it refers to.
    pub(super) events: Vec<Pdu>,
    /// The ids of those that are part of states or auth chains only.
    pub(super) outliers: HashSet<String>,
    /// For predecessors that stay missing: the ids of the state before them.
    pub(super) states: HashMap<String, Vec<String>>,
    /// Something could not be fetched now and perhaps can another time.
    pub(super) incomplete: bool,
}

/// The servers of one room asked for what some events need.
struct Gatherer<'a> {
    rooms: &'a Rooms,
    handle: &'a RoomHandle,
    fetch: &'a dyn Fetch,
    /// Whom to ask, the first first.
    servers: Vec<OwnedServerName>,
    /// How events of answers are read.
    parse: fn(&RoomHandle, &RawValue) -> Result<Pdu, check::CheckError>,
    /// The events that came by themselves.
    pushed: HashSet<String>,
    events: HashMap<String, Pdu>,
    outliers: HashMap<String, Pdu>,
    states: HashMap<String, Vec<String>>,
    /// What was asked for one by one, with or without success.
    asked: HashSet<String>,
    incomplete: bool,
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
        let mut gatherer = Gatherer::new(self, handle, fetch, origin);
        gatherer.pushed = pdus.iter().map(|pdu| pdu.event_id().to_owned()).collect();
        let ids = pdus.iter().map(|pdu| pdu.event_id().to_owned()).collect();
        let known = self.stored(handle, ids).await?;
        for (pdu, known) in pdus.into_iter().zip(known) {
            // Of two texts of one event the longer one is whole; the other one was redacted on its way.
            let there = gatherer.events.get(pdu.event_id());
            let longer = there.is_none_or(|other| other.json().len() < pdu.json().len());
            if longer && (!is_settled(known.as_ref()) || is_rejected(known.as_ref())) {
                gatherer.events.insert(pdu.event_id().to_owned(), pdu);
            }
        }
        if !gatherer.is_complete().await? {
            gatherer.servers.extend(self.others(handle, origin).await?);
            gatherer.predecessors().await?;
            gatherer.missing_states(MOST_STATES).await?;
            gatherer.auth_events().await?;
        }
        Ok(gatherer.gathered())
    }

    /// Fetches what is missing for `pdus` of the past, which were verified: not what came before them, but the state there.
    /// Nobody but their server is asked: whoever wants the past asks another one next.
    pub(super) async fn gather_history(
        &self,
        handle: &RoomHandle,
        fetch: &dyn Fetch,
        origin: &ServerName,
        pdus: Vec<Pdu>,
    ) -> Result<Gathered, Failure> {
        let mut gatherer = Gatherer::new(self, handle, fetch, origin);
        gatherer.parse = check::parse_history;
        let ids = pdus.iter().map(|pdu| pdu.event_id().to_owned()).collect();
        let known = self.stored(handle, ids).await?;
        for (pdu, known) in pdus.into_iter().zip(known) {
            if !is_settled(known.as_ref()) {
                gatherer.events.insert(pdu.event_id().to_owned(), pdu);
            }
        }
        gatherer.missing_states(MOST_STATES_OF_HISTORY).await?;
        gatherer.auth_events().await?;
        Ok(gatherer.gathered())
    }

    /// Fetches the state before an event of the past, which was verified, and what is missing for both.
    pub(super) async fn gather_point(
        &self,
        handle: &RoomHandle,
        fetch: &dyn Fetch,
        origin: &ServerName,
        pdu: Pdu,
    ) -> Result<Gathered, Failure> {
        let mut gatherer = Gatherer::new(self, handle, fetch, origin);
        gatherer.parse = check::parse_history;
        let id = pdu.event_id().to_owned();
        gatherer.events.insert(id.clone(), pdu);
        if let Some(event) = event_id(&id)
            && let Some(state) = gatherer.state_before(&event).await?
        {
            gatherer.states.insert(id, state);
            gatherer.auth_events().await?;
        }
        Ok(gatherer.gathered())
    }

    /// Some servers of the room besides `origin` and this one.
    async fn others(
        &self,
        handle: &RoomHandle,
        origin: &ServerName,
    ) -> Result<Vec<OwnedServerName>, Failure> {
        let (rooms, room) = (self.clone(), handle.num);
        let read = move |view: &View| rooms.servers_in_room(view, room);
        let mut servers = self.0.store.read(read).await?;
        servers.retain(|server| server != origin && *server != self.0.server_name);
        // Not always the same ones, and not all: somewhere in the room somebody has what is missing.
        let mut start = [0; 4];
        self.0.random.fill(&mut start);
        if !servers.is_empty() {
            let start = u32::from_le_bytes(start) as usize % servers.len();
            servers.rotate_left(start);
        }
        servers.truncate(OTHER_SERVERS);
        Ok(servers)
    }

    /// Durable events of a room by id.
    async fn stored(
        &self,
        handle: &RoomHandle,
        ids: Vec<String>,
    ) -> Result<Vec<Option<Arc<Event>>>, Failure> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
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

/// Whether an event has been judged, so that its successors can be. Not if it is part of an auth chain that was rejected by
/// its own auth events: the state at it is not known.
pub(crate) fn is_settled(event: Option<&Arc<Event>>) -> bool {
    event.is_some_and(|event| match event.header.status {
        EventStatus::Accepted | EventStatus::SoftFailed => true,
        EventStatus::Rejected => event.header.after() != Root::EMPTY,
        EventStatus::Outlier => false,
    })
}

/// Whether an event was rejected. It is judged again when it comes again: the reason may be gone.
pub(super) fn is_rejected(event: Option<&Arc<Event>>) -> bool {
    event.is_some_and(|event| event.header.status == EventStatus::Rejected)
}

impl<'a> Gatherer<'a> {
    fn new(
        rooms: &'a Rooms,
        handle: &'a RoomHandle,
        fetch: &'a dyn Fetch,
        origin: &ServerName,
    ) -> Self {
        Self {
            rooms,
            handle,
            fetch,
            servers: vec![origin.to_owned()],
            parse: check::parse,
            pushed: HashSet::new(),
            events: HashMap::new(),
            outliers: HashMap::new(),
            states: HashMap::new(),
            asked: HashSet::new(),
            incomplete: false,
        }
    }

    fn gathered(self) -> Gathered {
        let outliers = self.outliers.keys().cloned().collect();
        let mut all = self.events;
        all.extend(self.outliers);
        Gathered {
            events: order::by_references(all),
            outliers,
            states: self.states,
            incomplete: self.incomplete,
        }
    }

    /// Whether all is known that the events refer to.
    async fn is_complete(&self) -> Result<bool, Failure> {
        Ok(self.missing().await?.is_empty() && self.unknown_auth_events().await?.is_empty())
    }

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

    /// Notes that something could not be had, and perhaps can another time.
    fn failed(&mut self, server: &ServerName, what: &'static str, error: &FetchError) {
        tracing::debug!(%error, %server, room = %self.handle.room_id(), what, "fetch from another server");
        self.incomplete |= error.is_temporary();
    }

    async fn predecessors(&mut self) -> Result<(), Failure> {
        let mut servers = self.servers.clone().into_iter();
        let Some(mut server) = servers.next() else {
            return Ok(());
        };
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
            let answer = self.fetch.missing_events(&server, room, &request).await;
            let before = self.events.len();
            let given = match answer {
                Ok(events) => {
                    let wanted = missing.into_keys().collect();
                    self.add_predecessors(&events, wanted).await?;
                    events.len()
                }
                Err(error) => {
                    self.failed(&server, "missing events", &error);
                    0
                }
            };
            let more = given >= EVENTS_A_ROUND as usize && self.events.len() > before;
            if more {
                continue;
            }
            // It gives no more. If it gave nothing of use, somebody else may.
            if self.events.len() > before {
                return Ok(());
            }
            match servers.next() {
                Some(next) => server = next,
                None => return Ok(()),
            }
        }
        Ok(())
    }

    /// Takes what was answered, as far as it leads back from `wanted`.
    async fn add_predecessors(
        &mut self,
        events: &[Box<RawValue>],
        mut wanted: Vec<String>,
    ) -> Result<(), Failure> {
        let mut answered = self.read(events);
        let ids: Vec<String> = answered.keys().cloned().collect();
        let known = self.rooms.stored(self.handle, ids.clone()).await?;
        for (id, known) in ids.iter().zip(known) {
            if self.events.contains_key(id) || is_settled(known.as_ref()) {
                answered.remove(id);
            }
        }
        let mut connected = Vec::new();
        while let Some(id) = wanted.pop() {
            if let Some(pdu) = answered.remove(&id) {
                wanted.extend(pdu.prev_events().map(str::to_owned));
                connected.push(pdu);
            }
        }
        for pdu in self.verified(connected).await? {
            self.events.insert(pdu.event_id().to_owned(), pdu);
        }
        Ok(())
    }

    /// Those of some events whose signatures verify.
    async fn verified(&mut self, pdus: Vec<Pdu>) -> Result<Vec<Pdu>, Failure> {
        let mut good = Vec::with_capacity(pdus.len());
        for pdu in self.rooms.verify(self.fetch, pdus).await? {
            match pdu {
                Ok(pdu) => good.push(pdu),
                Err(error) => {
                    tracing::debug!(%error, room = %self.handle.room_id(), "fetched event dropped");
                    self.incomplete |= matches!(error, check::CheckError::KeyNotKnown(_));
                }
            }
        }
        Ok(good)
    }

    /// Reads the events of an answer. What cannot be read is left out.
    fn read(&self, events: &[Box<RawValue>]) -> HashMap<String, Pdu> {
        let most = MOST_PREDECESSORS.saturating_sub(self.events.len());
        events
            .iter()
            .take(most)
            .filter_map(|json| (self.parse)(self.handle, json).ok())
            .map(|pdu| (pdu.event_id().to_owned(), pdu))
            .collect()
    }

    /// The states before predecessors that are still missing, and those predecessors themselves.
    async fn missing_states(&mut self, most: usize) -> Result<(), Failure> {
        let missing = self.missing().await?;
        let pulled = |by: &Vec<String>| by.iter().any(|id| !self.pushed.contains(id));
        let wanted: BTreeSet<String> = missing
            .iter()
            .filter(|(_, by)| pulled(by))
            .map(|(id, _)| id.clone())
            .collect();
        for id in wanted.into_iter().take(most) {
            let Some(event) = event_id(&id) else { continue };
            self.fetch_single(HashSet::from([id.clone()])).await?;
            if let Some(state) = self.state_before(&event).await? {
                self.states.insert(id, state);
            }
        }
        Ok(())
    }

    /// The state before an event, from the first server that gives it.
    async fn state_before(&mut self, event: &EventId) -> Result<Option<Vec<String>>, Failure> {
        for server in self.servers.clone() {
            let room = self.handle.room_id();
            match self.fetch.state_ids(&server, room, event).await {
                Ok(ids) => {
                    if let Some(state) = self.state_of(&server, event, ids).await? {
                        return Ok(Some(state));
                    }
                }
                Err(error) => self.failed(&server, "the state before an event", &error),
            }
        }
        Ok(None)
    }

    /// The events of a state that a server named.
    async fn state_of(
        &mut self,
        server: &ServerName,
        event: &EventId,
        ids: StateIds,
    ) -> Result<Option<Vec<String>>, Failure> {
        let state: Vec<String> = ids.state.iter().map(ToString::to_string).collect();
        let mut all = state.clone();
        all.extend(ids.auth_chain.iter().map(ToString::to_string));
        let unknown = self.unknown(all).await?;
        if unknown.len() <= MOST_OF_STATE {
            self.fetch_single(unknown).await?;
            return Ok(Some(state));
        }
        let room = self.handle.room_id();
        match self.fetch.state(server, room, event).await {
            Ok(answer) => {
                let mut pdus = Vec::new();
                for json in answer.state.iter().chain(&answer.auth_chain) {
                    if let Ok(pdu) = (self.parse)(self.handle, json)
                        && unknown.contains(pdu.event_id())
                    {
                        pdus.push(pdu);
                    }
                }
                self.add_outliers(pdus).await?;
                Ok(Some(state))
            }
            Err(error) => {
                self.failed(server, "a whole state", &error);
                Ok(None)
            }
        }
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
        for pdu in self.verified(pdus).await? {
            self.outliers.insert(pdu.event_id().to_owned(), pdu);
        }
        Ok(())
    }

    /// Fetches single events, each from the first server that gives it.
    async fn fetch_single(&mut self, ids: HashSet<String>) -> Result<(), Failure> {
        let mut wanted = Vec::new();
        for id in ids {
            if self.asked.len() < MOST_SINGLE && self.asked.insert(id.clone()) {
                wanted.extend(event_id(&id));
            }
        }
        let mut pdus = Vec::new();
        for server in self.servers.clone() {
            if wanted.is_empty() {
                break;
            }
            let (fetch, asked) = (self.fetch, &server);
            let answers = stream::iter(std::mem::take(&mut wanted)).map(|id| async move {
                let answer = fetch.event(asked, &id).await;
                (id, answer)
            });
            let answers: Vec<_> = answers.buffer_unordered(SINGLE_AT_ONCE).collect().await;
            for (id, answer) in answers {
                match answer {
                    Ok(json) => {
                        let pdu = (self.parse)(self.handle, &json).ok();
                        match pdu.filter(|pdu| pdu.event_id() == id.as_str()) {
                            Some(pdu) => pdus.push(pdu),
                            None => wanted.push(id),
                        }
                    }
                    Err(error) => {
                        self.failed(&server, "an event", &error);
                        wanted.push(id);
                    }
                }
            }
        }
        self.add_outliers(pdus).await
    }

    /// The auth events of everything that are not known.
    async fn unknown_auth_events(&self) -> Result<HashSet<String>, Failure> {
        let all = self.events.values().chain(self.outliers.values());
        let named: HashSet<String> = all
            .flat_map(|event| event.auth_events().map(str::to_owned).collect::<Vec<_>>())
            .collect();
        self.unknown(named.into_iter().collect()).await
    }

    /// Fetches the auth events of everything, and theirs.
    async fn auth_events(&mut self) -> Result<(), Failure> {
        loop {
            let mut unknown = self.unknown_auth_events().await?;
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
