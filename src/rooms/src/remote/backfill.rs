//! History before a gap, and single events in it: fetched from another server, checked, and put in front of the gap's
//! segment.
//!
//! A fetched event is judged as part of the past: by its auth events and by the state before it, not by the current
//! state, which is no concern of what happened long ago. The oldest events of an answer name predecessors that are not
//! known: the state before these is asked for, and from there the states follow through the answer.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use myelin_data::rooms::{EventStatus, Gaps, Place, Timeline};
use myelin_rules::Pdu;
use myelin_state::Root;
use myelin_store::{Scan, StoreError, View};
use ruma::{OwnedEventId, OwnedServerName, ServerName, UserId};
use serde_json::value::RawValue;
use thiserror::Error;

use super::{
    Fetch, FetchError, check,
    gather::{Gathered, is_settled},
    judge::{Incoming, Progress, Unjudged},
};
use crate::{
    Event, Failure, RoomHandle, Rooms,
    pipeline::{Admission, RoomGuard, Spot},
    read::RoomView,
};

/// How many events are asked for at once. The room's writers wait while they are taken in.
const EVENTS_A_REQUEST: usize = 100;
/// From how many missing events an answer may begin.
const MOST_POINTS: usize = 20;
/// How many events behind a gap are looked at for the servers that sent them.
const SENDERS_LOOKED_AT: usize = 20;
/// Of how many users with power the servers are asked.
const MOST_POWERFUL: usize = 20;

/// What a request for history brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backfilled {
    /// How many events were put in front of the segment.
    pub placed: usize,
    /// Whether there is no gap any more.
    pub closed: bool,
}

/// Why no history was fetched.
#[derive(Clone, Debug, Error)]
pub enum BackfillError {
    /// The other server gave no answer that is of use.
    #[error("ask another server for history")]
    Fetch(#[source] FetchError),
    /// A fault of the server.
    #[error(transparent)]
    Failure(#[from] Failure),
}

impl From<FetchError> for BackfillError {
    fn from(error: FetchError) -> Self {
        Self::Fetch(error)
    }
}

impl Rooms {
    /// Asks a server for what happened before a segment of a room's timeline, and puts it there. Completes even if nobody
    /// waits.
    pub async fn backfill(
        &self,
        fetch: Arc<dyn Fetch>,
        server: OwnedServerName,
        handle: RoomHandle,
        segment: u32,
    ) -> Result<Backfilled, BackfillError> {
        let rooms = self.clone();
        self.run(async move {
            let Some(missing) = rooms.gap(&handle, segment).await? else {
                return Ok(Backfilled {
                    placed: 0,
                    closed: true,
                });
            };
            let from: Vec<OwnedEventId> = missing
                .iter()
                .filter_map(|id| OwnedEventId::try_from(id.as_str()).ok())
                .take(MOST_POINTS)
                .collect();
            let room = handle.room_id();
            let answer = fetch
                .backfill(&server, room, &from, EVENTS_A_REQUEST)
                .await?;
            let pdus = connected(&handle, &answer, missing);
            drop(answer);
            let verified = rooms.verify(&*fetch, pdus).await?;
            let verified = verified.into_iter().flatten().collect();
            let gathered = rooms
                .gather_history(&handle, &*fetch, &server, verified)
                .await?;
            Ok(rooms.take_in_history(&handle, segment, gathered).await?)
        })
        .await
    }

    /// Asks a server for one event of the past and for the state before it, and keeps it outside of the timeline: what
    /// lies between is not known. Answers whether it can be read now.
    pub async fn fetch_point(
        &self,
        fetch: Arc<dyn Fetch>,
        server: OwnedServerName,
        handle: RoomHandle,
        event_id: OwnedEventId,
    ) -> Result<bool, BackfillError> {
        let rooms = self.clone();
        self.run(async move {
            let json = fetch.event(&server, &event_id).await?;
            let pdu = check::parse_history(&handle, &json)
                .ok()
                .filter(|pdu| pdu.event_id() == event_id && pdu.prev_events().len() > 0);
            let Some(pdu) = pdu else {
                return Err(FetchError::Malformed("it is not the event".to_owned()).into());
            };
            let verified = rooms.verify(&*fetch, vec![pdu]).await?.pop();
            let Some(Ok(pdu)) = verified else {
                return Err(FetchError::Malformed("it is not signed".to_owned()).into());
            };
            let gathered = rooms.gather_point(&handle, &*fetch, &server, pdu).await?;
            Ok(rooms.take_in_point(&handle, gathered).await?)
        })
        .await
    }

    /// The events that are missing in front of a segment; none if there is no gap.
    async fn gap(&self, handle: &RoomHandle, segment: u32) -> Result<Option<Vec<String>>, Failure> {
        let key = (handle.num, segment);
        let read = move |view: &View| view.get::<Gaps>(&key);
        let gap = self.0.store.read(read).await?;
        Ok(gap.map(|gap| gap.missing))
    }

    async fn take_in_history(
        &self,
        handle: &RoomHandle,
        segment: u32,
        gathered: Gathered,
    ) -> Result<Backfilled, Failure> {
        let mut guard = self.lock(handle).await?;
        guard.settle().await?;
        let before = guard.gaps().await?;
        let places = guard.places(&gathered, &before).await?;
        let mut progress = Progress::new(before.clone());
        let mut states = BTreeMap::new();
        let mut placed = 0;
        for pdu in gathered.events {
            let id = pdu.event_id().to_owned();
            if gathered.outliers.contains(&id) {
                guard.admit_around(pdu, &mut progress).await?;
                continue;
            }
            let known = guard.known(vec![id.clone()]).await?.pop().flatten();
            // What leads back from no gap is none of the room's history, as far as that is known.
            let Some(place) = places.get(&id).copied() else {
                continue;
            };
            if is_settled(known.as_ref()) {
                continue;
            }
            guard
                .add_states_before(&pdu, &gathered.states, gathered.incomplete, &mut states)
                .await?;
            let admitted = match guard.judge_past(&pdu, &states).await {
                Ok(verdict) => {
                    let incoming = Incoming {
                        pdu,
                        known,
                        place: Some(place),
                        // Events of the room lead back to it.
                        is_stranger: false,
                    };
                    guard.admit_judged(incoming, verdict, &mut progress).await
                }
                Err(unjudged) => Err(unjudged),
            };
            match admitted {
                Ok(()) => placed += 1,
                Err(Unjudged::Unconnected(reason)) => {
                    tracing::debug!(event_id = id, reason, "event of the past left out");
                }
                Err(Unjudged::Failure(failure)) => return Err(failure),
            }
        }
        let closed = progress.gaps.get(&segment).is_none_or(Vec::is_empty);
        for (segment, missing) in progress.gaps {
            if before.get(&segment) != Some(&missing) {
                guard.set_gap(segment, missing);
            }
        }
        if guard.has_admitted() {
            guard.commit().durable().await?;
        }
        metrics::counter!("rooms_backfilled_events_total").increment(placed as u64);
        Ok(Backfilled { placed, closed })
    }

    async fn take_in_point(
        &self,
        handle: &RoomHandle,
        gathered: Gathered,
    ) -> Result<bool, Failure> {
        let mut guard = self.lock(handle).await?;
        guard.settle().await?;
        let mut progress = Progress::new(BTreeMap::new());
        let mut readable = false;
        for pdu in gathered.events {
            let id = pdu.event_id().to_owned();
            if gathered.outliers.contains(&id) {
                guard.admit_around(pdu, &mut progress).await?;
                continue;
            }
            let known = guard.known(vec![id.clone()]).await?.pop().flatten();
            if is_settled(known.as_ref()) || known.as_ref().is_some_and(|event| event.is_point()) {
                readable = true;
                continue;
            }
            let Some(state) = gathered.states.get(&id) else {
                continue;
            };
            let state = guard.state_of(state.clone(), gathered.incomplete).await?;
            let Some(state) = state else {
                continue;
            };
            let admitted = guard.admit_point(pdu, known, state, &mut progress);
            match admitted.await {
                Ok(admitted) => readable |= admitted,
                Err(Unjudged::Unconnected(reason)) => {
                    tracing::debug!(event_id = id, reason, "event of the past left out");
                }
                Err(Unjudged::Failure(failure)) => return Err(failure),
            }
        }
        if guard.has_admitted() {
            guard.commit().durable().await?;
        }
        Ok(readable)
    }

    /// The servers that are the likeliest to know what happened before a segment, the best first: those of whoever sent
    /// the events behind the gap, then those of the users with power, then the others of the room that are in it. None if this
    /// server is not in the room: then nobody tells it anything.
    pub async fn history_servers(
        &self,
        handle: &RoomHandle,
        segment: Option<u32>,
    ) -> Result<Vec<OwnedServerName>, Failure> {
        let (rooms, num) = (self.clone(), handle.num);
        let read = move |view: &View| {
            if !rooms.is_resident(view, num)? {
                return Ok(Vec::new());
            }
            let room = RoomView::open(&rooms, view, num)?;
            let mut servers = Servers {
                seen: HashSet::from([rooms.0.server_name.clone()]),
                found: Vec::new(),
            };
            if let Some(segment) = segment {
                let start = Place {
                    segment,
                    index: i64::MIN,
                };
                let scan = Scan::prefix(&num)
                    .from(&(num, start))
                    .limit(SENDERS_LOOKED_AT);
                for row in view.scan::<Timeline>(scan) {
                    let (_, entry) = row?;
                    servers.add(rooms.0.interner.user_id(view, entry.sender)?.server_name());
                }
            }
            let state = room.current()?;
            for event_type in ["m.room.create", "m.room.power_levels"] {
                let Some(event) = room.state_entry(state, event_type, "")? else {
                    continue;
                };
                let event = room.event(event)?;
                servers.add_user(event.pdu.sender());
                let users = event
                    .pdu
                    .content()
                    .get("users")
                    .and_then(|users| users.as_object());
                for (user, _) in users.into_iter().flatten().take(MOST_POWERFUL) {
                    servers.add_user(user);
                }
            }
            let mut others = rooms.server_rows(view, num)?;
            others.retain(|(_, row)| row.joined > 0);
            // Others have left, whoever they were.
            let there: HashSet<&OwnedServerName> = others.iter().map(|(name, _)| name).collect();
            servers.found.retain(|server| there.contains(server));
            // Whoever is there for long knows most.
            others.sort_by_key(|(_, row)| row.stays.first().map(|stay| stay.from));
            for (server, _) in &others {
                servers.add(server);
            }
            Ok::<_, StoreError>(servers.found)
        };
        Ok(self.0.store.read(read).await?)
    }
}

/// Servers, each once.
struct Servers {
    seen: HashSet<OwnedServerName>,
    found: Vec<OwnedServerName>,
}

impl Servers {
    fn add(&mut self, server: &ServerName) {
        if self.seen.insert(server.to_owned()) {
            self.found.push(server.to_owned());
        }
    }

    fn add_user(&mut self, user: &str) {
        if let Ok(user) = <&UserId>::try_from(user) {
            self.add(user.server_name());
        }
    }
}

/// The events of an answer that lead back from those that are missing. What cannot be read is left out.
fn connected(handle: &RoomHandle, answer: &[Box<RawValue>], missing: Vec<String>) -> Vec<Pdu> {
    let mut answered: HashMap<String, Pdu> = answer
        .iter()
        .take(EVENTS_A_REQUEST)
        .filter_map(|json| check::parse_history(handle, json).ok())
        .map(|pdu| (pdu.event_id().to_owned(), pdu))
        .collect();
    let mut wanted = missing;
    let mut connected = Vec::new();
    while let Some(id) = wanted.pop() {
        if let Some(pdu) = answered.remove(&id) {
            wanted.extend(pdu.prev_events().map(str::to_owned));
            connected.push(pdu);
        }
    }
    connected
}

impl RoomGuard {
    /// Takes in an event of a state or an auth chain that came with others.
    async fn admit_around(&mut self, pdu: Pdu, progress: &mut Progress) -> Result<(), Failure> {
        match self.admit_outlier(pdu, progress).await {
            Ok(()) => {}
            Err(Unjudged::Unconnected(reason)) => tracing::debug!(reason, "event left out"),
            Err(Unjudged::Failure(failure)) => return Err(failure),
        }
        Ok(())
    }

    /// Keeps an event with the state before it, outside of the timeline, if the rules accept it. Answers whether they do.
    async fn admit_point(
        &mut self,
        pdu: Pdu,
        known: Option<Arc<Event>>,
        state: Root,
        progress: &mut Progress,
    ) -> Result<bool, Unjudged> {
        let verdict = self.judge_by(&pdu, state, Vec::new()).await?;
        if verdict.status != EventStatus::Accepted {
            return Ok(false);
        }
        // It stays an outlier, so that it gets its place when the history up to it is filled in.
        let event = self
            .admit(Admission {
                pdu,
                status: EventStatus::Outlier,
                num: known.map(|event| event.num),
                before: verdict.before,
                spot: Spot::End,
                outgoing: false,
            })
            .await?;
        self.apply_awaited(&event, progress).await?;
        Ok(true)
    }
}
