//! Joining a room of other servers: what one of them answered to our join is checked, and becomes the room as it is here.
//!
//! 1. Every event is read and its signatures and hash are verified; what fails is left out.
//! 2. The create event is proven to be that of this room and version.
//! 3. Every event is authorised by its own auth events, each after those; what is refused is no part of the state.
//! 4. The join is authorised by its auth events and by the state.
//! 5. All is stored: of many events most in batches of their own, as outliers that mean nothing yet; then, in one batch,
//!    the rest, the state, and the join as the first event of a new segment of the timeline.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use myelin_data::rooms::EventStatus;
use myelin_rules::{
    Pdu, RoomVersion,
    auth::{self, AuthEvent, AuthEvents, auth_types},
    resolve::Key,
};
use myelin_state::Root;
use myelin_store::{StoreError, View};
use myelin_types::EventNum;
use ruma::{OwnedEventId, OwnedRoomId, OwnedServerName, RoomId};
use serde_json::{Value, value::RawValue};
use thiserror::Error;

use super::{Fetch, check, check::CheckError, order};
use crate::{
    AppendError, Completeness, Failure, RoomHandle, Rooms,
    membership::{MEMBER, event_id},
    pipeline::RoomGuard,
};

/// How many events are stored in one batch.
const EVENTS_A_BATCH: usize = 2_000;

/// What a server answered to a join of ours.
#[derive(Debug)]
pub struct JoinAnswer {
    /// The room.
    pub room_id: OwnedRoomId,
    /// Its version, as the server said.
    pub version: RoomVersion,
    /// The server.
    pub server: OwnedServerName,
    /// The join, as we sent it.
    pub join: Pdu,
    /// `event`: the join with the server's signature.
    pub event: Option<Box<RawValue>>,
    /// `state`: the room's state before the join.
    pub state: Vec<Box<RawValue>>,
    /// `auth_chain` of the state and the join.
    pub auth_chain: Vec<Box<RawValue>>,
    /// `members_omitted`: whether most memberships are missing in the state.
    pub members_omitted: bool,
    /// `servers_in_room`.
    pub servers: Vec<OwnedServerName>,
}

/// Why a room was not entered. Nothing of it can be seen then.
#[derive(Clone, Debug, Error)]
pub enum EnterError {
    /// What the server answered does not hold together.
    #[error("the answer cannot be believed: {0}")]
    Untrusted(String),
    /// The room does not let the user in, though the server did.
    #[error("the room refuses the join: {0}")]
    Refused(String),
    /// A fault of the server.
    #[error(transparent)]
    Failure(#[from] Failure),
}

impl From<AppendError> for EnterError {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::Failure(failure) => Self::Failure(failure),
            refused => Self::Untrusted(refused.to_string()),
        }
    }
}

pub(super) fn untrusted<T>(reason: &str) -> Result<T, EnterError> {
    Err(EnterError::Untrusted(reason.to_owned()))
}

/// An answer after its checks.
struct Checked {
    /// All events, each after its auth events, with what became of them.
    events: Vec<(Pdu, EventStatus)>,
    /// The state before the join.
    state: BTreeMap<Key, String>,
}

impl Rooms {
    /// Makes what a server answered to a join the room as it is here. It completes even if nobody waits.
    pub async fn enter(
        &self,
        fetch: Arc<dyn Fetch>,
        answer: JoinAnswer,
    ) -> Result<OwnedEventId, EnterError> {
        let rooms = self.clone();
        self.run(async move { rooms.take_answer(&*fetch, answer).await })
            .await
    }

    async fn take_answer(
        &self,
        fetch: &dyn Fetch,
        answer: JoinAnswer,
    ) -> Result<OwnedEventId, EnterError> {
        let JoinAnswer {
            room_id,
            version,
            server,
            join,
            event,
            state,
            auth_chain,
            members_omitted,
            servers,
        } = answer;
        let join = signed_by_both(join, event)?;
        let states = state.len();
        let raw: Vec<Box<RawValue>> = state.into_iter().chain(auth_chain).collect();
        let id = room_id.clone();
        let parse = move |json: Box<RawValue>| check::parse_in(version, id.as_str(), &json);
        let mut pdus = Vec::with_capacity(raw.len() + 1);
        let mut state_ids = Vec::with_capacity(states);
        for (index, parsed) in check::on_all_cores(raw, parse)
            .await?
            .into_iter()
            .enumerate()
        {
            match parsed {
                Ok(pdu) => {
                    if index < states {
                        state_ids.push(pdu.event_id().to_owned());
                    }
                    pdus.push(pdu);
                }
                Err(reason) => {
                    tracing::debug!(%server, %reason, "event of a joined room left out");
                }
            }
        }
        pdus.push(join);
        let mut verified = self.verify(fetch, pdus).await?;
        let Some(Ok(join)) = verified.pop() else {
            return untrusted("the join lacks a signature that it needs");
        };
        let known = self.known_auth_events(&room_id, &join, &verified).await?;
        let part = members_omitted.then(|| (server.clone(), servers));
        let room = room_id.to_string();
        let (join, checked) = tokio::task::spawn_blocking(move || {
            let mut pdus = HashMap::new();
            for pdu in verified {
                match pdu {
                    Ok(pdu) => {
                        pdus.insert(pdu.event_id().to_owned(), pdu);
                    }
                    Err(reason) => {
                        tracing::debug!(%server, %reason, "event of a joined room left out");
                    }
                }
            }
            let received = (pdus, known);
            let checked = check_all(
                version,
                &room,
                received,
                &state_ids,
                (&join, members_omitted),
            )?;
            Ok::<_, EnterError>((join, checked))
        })
        .await
        .map_err(|_| Failure::CutShort)??;
        self.store_room(&room_id, version, join, checked, part)
            .await
    }

    /// The auth events of a join that the answer lacks, and that are here from an earlier stay: the membership with which the
    /// user left is no part of a state without members. Each with what became of it.
    async fn known_auth_events(
        &self,
        room_id: &RoomId,
        join: &Pdu,
        received: &[Result<Pdu, CheckError>],
    ) -> Result<Vec<(Pdu, EventStatus)>, Failure> {
        let received: HashSet<&str> = received.iter().flatten().map(Pdu::event_id).collect();
        let ids: Vec<String> = join
            .auth_events()
            .filter(|id| !received.contains(id))
            .map(str::to_owned)
            .collect();
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let (rooms, room_id) = (self.clone(), room_id.to_owned());
        let read = move |view: &View| {
            let Some(handle) = rooms.find(view, &room_id)? else {
                return Ok(Vec::new());
            };
            let events = rooms.events_by_id(view, handle.num, &ids)?;
            let known = events.into_iter().flatten();
            Ok::<_, StoreError>(
                known
                    .map(|event| (event.pdu.clone(), event.header.status))
                    .collect(),
            )
        };
        Ok(self.0.store.read(read).await?)
    }

    async fn store_room(
        &self,
        room_id: &OwnedRoomId,
        version: RoomVersion,
        join: Pdu,
        checked: Checked,
        part: Option<(OwnedServerName, Vec<OwnedServerName>)>,
    ) -> Result<OwnedEventId, EnterError> {
        let handle = self.meet(room_id, version).await?;
        if handle.version != version {
            return untrusted("the room is known to have another version");
        }
        let Checked { events, state } = checked;
        let (mut guard, stored) = self.store_events(&handle, events).await?;
        let mut keys: Vec<Key> = Vec::with_capacity(state.len());
        let mut nums: Vec<Option<EventNum>> = Vec::with_capacity(state.len());
        for (key, id) in state {
            // What was refused here before stays so.
            if let Some((num, false)) = stored.get(&id) {
                keys.push(key);
                nums.push(Some(*num));
            }
        }
        let before = guard.change(Root::EMPTY, &keys, &nums).await?;
        let told = part.as_ref();
        let told = told.map(|(server, servers)| (&**server, servers.as_slice()));
        let event = guard.restart(join, before, told).await?;
        let partial = &self.0.partial;
        let earlier = partial.completeness_now(handle.num);
        if part.is_some() {
            partial.set(handle.num, Completeness::Partial);
        } else {
            partial.closing(handle.num);
        }
        let committed = guard.commit().durable().await;
        let now = match &committed {
            Ok(_) if part.is_some() => Completeness::Partial,
            Ok(pos) if earlier == Completeness::Partial => Completeness::Since(*pos),
            _ => earlier,
        };
        partial.closed(handle.num, Some(now));
        committed?;
        Ok(event_id(&event)?)
    }

    /// Stores checked events, as many as fit into one batch each time, and answers what they are numbered and whether they
    /// were rejected. The last ones are in the batch of the guard.
    pub(super) async fn store_events(
        &self,
        handle: &RoomHandle,
        mut events: Vec<(Pdu, EventStatus)>,
    ) -> Result<(RoomGuard, HashMap<String, (EventNum, bool)>), Failure> {
        let mut stored: HashMap<String, (EventNum, bool)> = HashMap::new();
        loop {
            let mut guard = self.lock(handle).await?;
            guard.settle().await?;
            let rest = events.split_off(EVENTS_A_BATCH.min(events.len()));
            for event in guard.admit_outliers(events).await? {
                let rejected = event.header.status == EventStatus::Rejected;
                stored.insert(event.header.event_id.clone(), (event.num, rejected));
            }
            events = rest;
            if events.is_empty() {
                return Ok((guard, stored));
            }
            guard.commit().durable().await?;
        }
    }
}

/// The join with the signatures that the answer adds: it must be the same event.
pub(super) fn signed_by_both(join: Pdu, event: Option<Box<RawValue>>) -> Result<Pdu, EnterError> {
    let Some(event) = event else {
        return Ok(join);
    };
    let event = check::parse_in(join.version(), join.room_id(), &event)
        .map_err(|error| EnterError::Untrusted(error.to_string()))?;
    if event.event_id() != join.event_id() || event.reference_hash() != join.reference_hash() {
        return untrusted("it gives back another join");
    }
    Ok(event)
}

/// Checks everything that an answer says. What was received was verified; what is known was judged before.
fn check_all(
    version: RoomVersion,
    room: &str,
    (pdus, auth_events): (HashMap<String, Pdu>, Vec<(Pdu, EventStatus)>),
    state_ids: &[String],
    (join, members_omitted): (&Pdu, bool),
) -> Result<Checked, EnterError> {
    let mut state: BTreeMap<Key, String> = BTreeMap::new();
    for id in state_ids {
        let Some(pdu) = pdus.get(id) else { continue };
        let Some(state_key) = pdu.state_key() else {
            return untrusted("its state has an event that is none of a state");
        };
        let key = (pdu.event_type().to_owned(), state_key.to_owned());
        if state
            .insert(key, id.clone())
            .is_some_and(|other| other != *id)
        {
            return untrusted("its state has two events for one entry");
        }
    }
    let create = state
        .get(&create_key())
        .and_then(|id| pdus.get(id))
        .cloned();
    let Some(create) = create else {
        return untrusted("its state has no create event");
    };
    check_create(&create, version, room)?;
    let mut judged = judge(pdus, &HashMap::new(), &create);
    for (pdu, status) in auth_events {
        judged.add(pdu, status);
    }
    let known = |id: &str| {
        judged
            .get(id)
            .filter(|(_, status)| *status != EventStatus::Rejected)
    };
    state.retain(|_, id| known(id).is_some());
    let mut by_itself = Vec::new();
    for id in join.auth_events() {
        let Some((pdu, status)) = judged.get(id) else {
            return untrusted("an auth event of the join is missing");
        };
        by_itself.push((pdu, *status == EventStatus::Rejected));
        // Of members that are left out, those whom the join itself names are known.
        if members_omitted
            && pdu.event_type() == MEMBER
            && let Some(user) = pdu.state_key()
        {
            let key = (MEMBER.to_owned(), user.to_owned());
            state.entry(key).or_insert_with(|| id.to_owned());
        }
    }
    authorise(join, &by_itself, &create).map_err(EnterError::Refused)?;
    let by_state: AuthEvents = auth_types(
        version,
        join.event_type(),
        join.sender(),
        join.state_key(),
        join.content(),
    )
    .into_iter()
    .map(|(event_type, state_key)| (event_type.to_owned(), state_key))
    .chain([create_key()])
    .filter_map(|key| Some(judged.get(state.get(&key)?)?.0.clone()))
    .collect();
    auth::check(join, &by_state).map_err(|error| EnterError::Refused(error.to_string()))?;
    Ok(Checked {
        events: judged.into_events(),
        state,
    })
}

fn create_key() -> Key {
    ("m.room.create".to_owned(), String::new())
}

/// Whether an event is the create event of this room and version.
fn check_create(create: &Pdu, version: RoomVersion, room: &str) -> Result<(), EnterError> {
    if create.room_id() != room {
        return untrusted("its create event is that of another room");
    }
    auth::check(create, &AuthEvents::default())
        .map_err(|error| EnterError::Untrusted(error.to_string()))?;
    let named = create.content().get("room_version");
    let named = named.map_or(Some("1"), Value::as_str);
    if named != Some(version.as_str()) {
        return untrusted("its create event has another version");
    }
    Ok(())
}

/// Events with what became of them, in an order in which each follows its auth events.
#[derive(Default)]
pub(super) struct Judged {
    events: Vec<(Pdu, EventStatus)>,
    by_id: HashMap<String, usize>,
}

impl Judged {
    fn get(&self, id: &str) -> Option<&(Pdu, EventStatus)> {
        self.by_id.get(id).map(|index| &self.events[*index])
    }

    fn add(&mut self, pdu: Pdu, status: EventStatus) {
        self.by_id
            .insert(pdu.event_id().to_owned(), self.events.len());
        self.events.push((pdu, status));
    }

    pub(super) fn into_events(self) -> Vec<(Pdu, EventStatus)> {
        self.events
    }
}

/// Authorises events by their own auth events, which are among them or `known`, each of these with whether it was rejected.
/// Those whose auth events are missing are left out, and what builds on them.
pub(super) fn judge(
    pdus: HashMap<String, Pdu>,
    known: &HashMap<String, (Pdu, bool)>,
    create: &Pdu,
) -> Judged {
    let mut judged = Judged::default();
    for pdu in order::by_references(pdus) {
        if pdu.event_type() == "m.room.create" {
            // A second one would be that of another room, whatever it says.
            if pdu.event_id() == create.event_id() {
                judged.add(pdu, EventStatus::Outlier);
            }
            continue;
        }
        if pdu.state_key().is_none() {
            continue;
        }
        let auth: Option<Vec<(&Pdu, bool)>> = pdu
            .auth_events()
            .map(|id| match judged.get(id) {
                Some((auth, status)) => Some((auth, *status == EventStatus::Rejected)),
                None => known.get(id).map(|(auth, rejected)| (auth, *rejected)),
            })
            .collect();
        let status = match auth.map(|auth| authorise(&pdu, &auth, create)) {
            None => {
                tracing::debug!(
                    event_id = pdu.event_id(),
                    "event without its auth events left out"
                );
                continue;
            }
            Some(Ok(())) => EventStatus::Outlier,
            Some(Err(reason)) => {
                tracing::info!(event_id = pdu.event_id(), reason, "event rejected");
                EventStatus::Rejected
            }
        };
        judged.add(pdu, status);
    }
    judged
}

/// The authorisation rules by an event's own auth events, each with whether it was rejected.
fn authorise(pdu: &Pdu, auth: &[(&Pdu, bool)], create: &Pdu) -> Result<(), String> {
    let list: Vec<AuthEvent<'_>> = auth
        .iter()
        .map(|(event, rejected)| AuthEvent {
            event,
            rejected: *rejected,
        })
        .collect();
    auth::check_auth_events(pdu, &list).map_err(|error| error.to_string())?;
    let mut state: AuthEvents = auth.iter().map(|(event, _)| (*event).clone()).collect();
    // In version 12 the create event is no auth event, and yet part of what the rules look at.
    if pdu.version().rules().room_id_is_create_hash {
        state.insert(create.clone());
    }
    auth::check(pdu, &state).map_err(|error| error.to_string())
}
