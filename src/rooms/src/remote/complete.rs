//! Completing the state of a room that was entered without its members.
//!
//! 1. A server is asked for the state at each predecessor of the join, by ids. Events that are unknown are fetched, checked
//!    and stored as outliers, in bounded batches: whoever begins again finds them there.
//! 2. The state before the join is that at its predecessors, resolved if they are several.
//! 3. What came into the room since the join is judged again, each event after those that it builds on.
//! 4. The present follows from that. All of it is one batch.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use myelin_data::{
    partial::{Incomplete, PartialEvents},
    rooms::EventStatus,
};
use myelin_rules::{Pdu, resolve::Key};
use myelin_state::Root;
use myelin_store::{Scan, StoreError, View};
use myelin_types::EventNum;
use ruma::{EventId, OwnedEventId, OwnedServerName, RoomId, ServerName};
use serde_json::value::RawValue;
use thiserror::Error;

use super::{Fetch, FetchError, check, enter, gather::is_settled, judge::Unjudged, order};
use crate::{AppendError, Completeness, Event, Failure, RoomHandle, Rooms, pipeline::RoomGuard};

/// When more events of a state are unknown, or more than a tenth of it, the whole state is fetched: each event that is fetched
/// alone takes a round trip.
const MOST_SINGLE: usize = 50;
/// Most events of a state and its auth chain.
const MOST_EVENTS: usize = 1_000_000;

/// What a server is to be asked for.
#[derive(Clone, Debug)]
pub struct Completing {
    /// The server that let the user in, which is to be asked first, and the others that were in the room then.
    pub servers: Vec<OwnedServerName>,
}

/// Why a state was not completed.
#[derive(Clone, Debug, Error)]
pub enum CompleteError {
    /// The server did not answer. Another may.
    #[error("fetch the state of a room")]
    Fetch(#[from] FetchError),
    /// What it answered does not hold together. Another's answer may.
    #[error("the answer cannot be believed: {0}")]
    Untrusted(&'static str),
    /// A fault of the server.
    #[error(transparent)]
    Failure(#[from] Failure),
}

impl From<AppendError> for CompleteError {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::Failure(failure) => Self::Failure(failure),
            _ => Self::Untrusted("one of its events cannot be stored"),
        }
    }
}

impl Rooms {
    /// What there is to complete of a room; none if nothing is, or nobody of this server is in it any more: then nobody
    /// would tell, and what is known of the room remains as it is.
    pub async fn completing(&self, room: &RoomId) -> Result<Option<Completing>, Failure> {
        let Some(handle) = self.find_now(room).await? else {
            return Ok(None);
        };
        if !self.0.partial.is_partial(handle.num) {
            return Ok(None);
        }
        let mut guard = self.lock(&handle).await?;
        guard.settle().await?;
        let Some(incomplete) = guard.incomplete().await? else {
            return Ok(None);
        };
        if self.resident_room(room).await?.is_some() {
            let names = incomplete.servers.into_iter();
            let servers = names.filter_map(|name| OwnedServerName::try_from(name).ok());
            return Ok(Some(Completing {
                servers: servers.collect(),
            }));
        }
        guard.abandon_partial(&incomplete).await?;
        self.close(&handle, guard).await?;
        Ok(None)
    }

    /// Commits the batch with which a room is not partial any more.
    async fn close(&self, handle: &RoomHandle, guard: RoomGuard) -> Result<(), Failure> {
        self.0.partial.closing(handle.num);
        let committed = guard.commit().durable().await;
        let now = committed.as_ref().ok().map(|pos| Completeness::Since(*pos));
        self.0.partial.closed(handle.num, now);
        committed.map(drop)
    }

    /// Completes the state of a room with the help of a server. It ends early when its caller goes away, and what it has
    /// fetched so far is not fetched again.
    pub async fn complete(
        &self,
        fetch: &dyn Fetch,
        room: &RoomId,
        server: &ServerName,
    ) -> Result<(), CompleteError> {
        let handle = self.find_now(room).await.map_err(Failure::from)?;
        let Some(handle) = handle else { return Ok(()) };
        let Some((incomplete, join, create)) = self.what_is_missing(&handle).await? else {
            return Ok(());
        };
        let completer = Completer {
            rooms: self,
            handle: &handle,
            fetch,
            server,
            create,
        };
        let mut states = Vec::new();
        for prev in join.pdu.prev_events() {
            let prev = OwnedEventId::try_from(prev)
                .map_err(|_| CompleteError::Untrusted("the join follows no event"))?;
            states.push(completer.state_at(&prev).await?);
        }
        let rooms = self.clone();
        self.run(async move { rooms.finish(&handle, incomplete, &join, states).await })
            .await
    }

    /// The join before which the state is missing, and the create event.
    async fn what_is_missing(
        &self,
        handle: &RoomHandle,
    ) -> Result<Option<(Incomplete, Arc<Event>, Pdu)>, Failure> {
        let guard = self.lock(handle).await?;
        guard.settle().await?;
        let Some(incomplete) = guard.incomplete().await? else {
            return Ok(None);
        };
        let create = guard.state().create().cloned();
        drop(guard);
        let (rooms, room, num) = (self.clone(), handle.num, incomplete.join);
        let read = move |view: &View| rooms.event(view, room, num);
        let join = self.0.store.read(read).await?;
        let damaged = |what| Failure::Damaged { room, what };
        Ok(Some((
            incomplete,
            join.ok_or_else(|| damaged("the join of a partial stay is missing"))?,
            create.ok_or_else(|| damaged("the create event is missing"))?,
        )))
    }

    async fn finish(
        &self,
        handle: &RoomHandle,
        incomplete: Incomplete,
        join: &Arc<Event>,
        states: Vec<BTreeMap<Key, EventNum>>,
    ) -> Result<(), CompleteError> {
        let mut guard = self.lock(handle).await?;
        guard.settle().await?;
        if guard.incomplete().await?.as_ref() != Some(&incomplete) {
            // Somebody else was faster, or the room was entered anew.
            return Ok(());
        }
        let mut roots = Vec::with_capacity(states.len());
        for state in states {
            let (keys, nums): (Vec<Key>, Vec<Option<EventNum>>) =
                state.into_iter().map(|(key, num)| (key, Some(num))).unzip();
            roots.push(guard.change(Root::EMPTY, &keys, &nums).await?);
        }
        let before = guard.resolve(&roots).await?;
        let late = guard.judge_all_again(join, before).await?;
        let place = join.header.place.ok_or(CompleteError::Untrusted(
            "the join has no place in the timeline",
        ))?;
        guard.make_whole(place, &incomplete).await?;
        for event in late {
            guard.append_late(&event).await?;
        }
        Ok(self.close(handle, guard).await?)
    }
}

/// One server asked about one room.
struct Completer<'a> {
    rooms: &'a Rooms,
    handle: &'a RoomHandle,
    fetch: &'a dyn Fetch,
    server: &'a ServerName,
    create: Pdu,
}

impl Completer<'_> {
    /// The state at a predecessor of the join: that before it, and its own entry.
    async fn state_at(&self, prev: &EventId) -> Result<BTreeMap<Key, EventNum>, CompleteError> {
        let room = self.handle.room_id();
        let ids = self.fetch.state_ids(self.server, room, prev).await?;
        if ids.state.len() + ids.auth_chain.len() > MOST_EVENTS {
            return Err(CompleteError::Untrusted("its state is too large"));
        }
        let state: Vec<String> = ids.state.iter().map(ToString::to_string).collect();
        if !state.iter().any(|id| id == self.create.event_id()) {
            return Err(CompleteError::Untrusted(
                "its state has another create event",
            ));
        }
        let listed: HashSet<&str> = state.iter().map(String::as_str).collect();
        let mut all = state.clone();
        let chain = ids.auth_chain.iter().map(ToString::to_string);
        all.extend(chain.filter(|id| !listed.contains(id.as_str())));
        let has_prev = listed.contains(prev.as_str());
        let count = all.len();
        let unknown = self.unknown(all).await?;
        if unknown.len() > MOST_SINGLE || unknown.len() * 10 > count {
            let answer = self.fetch.state(self.server, room, prev).await?;
            let events = answer.state.into_iter().chain(answer.auth_chain);
            self.store(events.collect(), unknown).await?;
        } else if !unknown.is_empty() {
            let mut events = Vec::with_capacity(unknown.len());
            for id in &unknown {
                let Ok(id) = <&EventId>::try_from(id.as_str()) else {
                    continue;
                };
                match self.fetch.event(self.server, id).await {
                    Ok(event) => events.push(event),
                    // One that cannot be had is left out of the state.
                    Err(error @ FetchError::Refused { .. }) => {
                        tracing::debug!(%error, event_id = %id, "fetch an event of a state");
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            self.store(events, unknown).await?;
        }
        let mut entries = self.entries(state).await?;
        if !has_prev {
            let prev = prev.to_string();
            if !self.unknown(vec![prev.clone()]).await?.is_empty()
                && let Ok(id) = <&EventId>::try_from(prev.as_str())
            {
                let event = self.fetch.event(self.server, id).await?;
                let wanted = HashSet::from([prev.clone()]);
                self.store(vec![event], wanted).await?;
            }
            entries.extend(self.entries(vec![prev]).await?);
        }
        Ok(entries)
    }

    /// Those of some events that are not stored.
    async fn unknown(&self, ids: Vec<String>) -> Result<HashSet<String>, Failure> {
        let room = self.handle.num;
        let read = move |view: &View| {
            let nums = Rooms::event_nums(view, room, &ids)?;
            let missing = ids.iter().zip(nums).filter(|(_, num)| num.is_none());
            Ok::<_, StoreError>(missing.map(|(id, _)| id.clone()).collect())
        };
        Ok(self.rooms.0.store.read(read).await?)
    }

    /// Checks and stores those of some events that are wanted.
    async fn store(
        &self,
        events: Vec<Box<RawValue>>,
        wanted: HashSet<String>,
    ) -> Result<(), Failure> {
        let handle = self.handle.clone();
        let parse = move |json: Box<RawValue>| {
            let pdu = check::parse(&handle, &json).ok()?;
            wanted.contains(pdu.event_id()).then_some(pdu)
        };
        let pdus: Vec<Pdu> = check::on_all_cores(events, parse)
            .await?
            .into_iter()
            .flatten()
            .collect();
        let verified = self.rooms.verify(self.fetch, pdus).await?;
        let pdus: HashMap<String, Pdu> = verified
            .into_iter()
            .flatten()
            .map(|pdu| (pdu.event_id().to_owned(), pdu))
            .collect();
        let known = self.known_auth_events(&pdus).await?;
        let create = self.create.clone();
        let judge = move || enter::judge(pdus, &known, &create).into_events();
        let events = tokio::task::spawn_blocking(judge)
            .await
            .map_err(|_| Failure::CutShort)?;
        let (rooms, handle) = (self.rooms.clone(), self.handle.clone());
        self.rooms
            .run(async move {
                let (guard, _) = rooms.store_events(&handle, events).await?;
                guard.commit().durable().await?;
                Ok::<_, Failure>(())
            })
            .await
    }

    /// The auth events of some events that are not among them but stored, each with whether it was rejected.
    async fn known_auth_events(
        &self,
        pdus: &HashMap<String, Pdu>,
    ) -> Result<HashMap<String, (Pdu, bool)>, Failure> {
        let named: HashSet<&str> = pdus.values().flat_map(Pdu::auth_events).collect();
        let ids: Vec<String> = named
            .into_iter()
            .filter(|id| !pdus.contains_key(*id))
            .map(str::to_owned)
            .collect();
        let (rooms, room) = (self.rooms.clone(), self.handle.num);
        let read = move |view: &View| rooms.events_by_id(view, room, &ids);
        let events = self.rooms.0.store.read(read).await?;
        let known = events.into_iter().flatten().map(|event| {
            let rejected = event.header.status == EventStatus::Rejected;
            (event.header.event_id.clone(), (event.pdu.clone(), rejected))
        });
        Ok(known.collect())
    }

    /// The entries of a state that are stored and were not rejected.
    async fn entries(&self, ids: Vec<String>) -> Result<BTreeMap<Key, EventNum>, Failure> {
        let (rooms, room) = (self.rooms.clone(), self.handle.num);
        let read = move |view: &View| {
            let mut entries = BTreeMap::new();
            for event in rooms.events_by_id(view, room, &ids)?.into_iter().flatten() {
                if event.header.status != EventStatus::Rejected
                    && let Some(state_key) = event.pdu.state_key()
                {
                    let key = (event.pdu.event_type().to_owned(), state_key.to_owned());
                    entries.insert(key, event.num);
                }
            }
            Ok::<_, StoreError>(entries)
        };
        Ok(self.rooms.0.store.read(read).await?)
    }
}

impl RoomGuard {
    /// Judges what came into the room while members were missing again, with `before` as the state before the join. Answers
    /// the events that were refused and are not any more.
    async fn judge_all_again(
        &mut self,
        join: &Arc<Event>,
        before: Root,
    ) -> Result<Vec<Arc<Event>>, CompleteError> {
        self.judge_again(join, EventStatus::Accepted, before)
            .await?;
        let (rooms, room) = (self.rooms.clone(), self.num());
        let read = move |view: &View| {
            let nums = view
                .keys::<PartialEvents>(Scan::prefix(&room))
                .map(|key| key.map(|(_, num)| num))
                .collect::<Result<Vec<EventNum>, StoreError>>()?;
            rooms.events(view, room, &nums)
        };
        let events = self.rooms.0.store.read(read).await;
        let events = events.map_err(Failure::from)?.into_iter().flatten();
        let mut stored: HashMap<String, Arc<Event>> = events
            .filter(|event| event.num != join.num)
            .map(|event| (event.header.event_id.clone(), event))
            .collect();
        let pdus = stored
            .iter()
            .map(|(id, event)| (id.clone(), event.pdu.clone()))
            .collect();
        let mut late = Vec::new();
        for pdu in order::by_references(pdus) {
            let Some(event) = stored.remove(pdu.event_id()) else {
                continue;
            };
            let prev: Vec<String> = pdu.prev_events().map(str::to_owned).collect();
            let known = self.known(prev).await?;
            let settled = known.iter().flatten();
            let settled = settled.filter(|event| is_settled(Some(event)));
            let mut states: Vec<Root> = settled.map(|event| event.header.after()).collect();
            if states.is_empty() {
                // One that was only a part of some state stands nowhere in the room's history.
                continue;
            }
            if states.len() < known.len() {
                // The states at those that are not known were fetched, and are a part of the state that it had.
                states.push(event.header.before());
            }
            let before = self.resolve(&states).await?;
            let verdict = match self.check_auth_events(&pdu).await {
                Ok(Ok(())) => self.check_state(&pdu, before).await?,
                Ok(refused) => refused,
                Err(Unjudged::Unconnected(reason)) => Err(reason.to_owned()),
                Err(Unjudged::Failure(failure)) => return Err(failure.into()),
            };
            let was = event.header.status;
            let status = match verdict {
                // By a policy server, of which states know nothing.
                Ok(()) if was == EventStatus::SoftFailed => was,
                Ok(()) => EventStatus::Accepted,
                Err(reason) => {
                    if was == EventStatus::Accepted {
                        let event_id = pdu.event_id();
                        tracing::info!(event_id, reason, "event rejected when the state was whole");
                    }
                    EventStatus::Rejected
                }
            };
            let judged = self.judge_again(&event, status, before).await?;
            if status == EventStatus::Accepted && was != status {
                late.push(judged);
            }
        }
        Ok(late)
    }
}
