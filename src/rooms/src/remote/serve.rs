//! What other servers may read of a room: missing events, history, states, auth chains, single events.
//!
//! A server is told what its users could see; of other events only the form in which a redaction would leave them, so that
//! it can go on checking what builds on them.

use std::{
    cell::OnceCell,
    collections::{HashMap, HashSet},
    sync::Arc,
};

use myelin_data::rooms::{EventStatus, RoomMembers};
use myelin_rules::{
    Membership, Pdu,
    visibility::{HistoryVisibility, Side, can_see_event},
};
use myelin_state::Root;
use myelin_store::{Scan, StoreError, View};
use myelin_types::{EventNum, Millis, RoomNum, StateKeyNum};
use ruma::{EventId, OwnedEventId, OwnedServerName, RoomId, ServerName, UserId};
use thiserror::Error;

use super::MissingEvents;
use crate::{
    Completeness, Event, Failure, RoomHandle, Rooms,
    membership::MEMBER,
    read::{Direction, EventAt, RoomView, nearest},
};

/// Most events of one answer.
const MOST_EVENTS: usize = 100;
/// How many generations back a walk goes at most, and how many events of one it looks at: rejected ones fill no answer.
const MOST_GENERATIONS: usize = 1_000;
const MOST_OF_A_GENERATION: usize = 500;
/// How many memberships are looked up at once.
const KEYS_A_READ: usize = 256;

/// Why another server is told nothing.
#[derive(Clone, Debug, Error)]
pub enum ServeError {
    /// The server does not know the room, or has no user in it (404 `M_NOT_FOUND`).
    #[error("the room is not known")]
    RoomNotFound,
    /// The event is not known, or is not for the server that asks (404 `M_NOT_FOUND`).
    #[error("the event is not known")]
    EventNotFound,
    /// The server that asks has no user in the room, or is denied by its ACL (403 `M_FORBIDDEN`).
    #[error("the server is not in the room")]
    NotInRoom,
    /// The server does not know all members of the room yet (403 `M_FORBIDDEN`).
    #[error("the state of the room is not known yet")]
    Incomplete,
    /// A fault of the server.
    #[error(transparent)]
    Failure(#[from] Failure),
}

impl From<StoreError> for ServeError {
    fn from(error: StoreError) -> Self {
        Self::Failure(error.into())
    }
}

/// A state before an event.
#[derive(Clone, Debug)]
pub struct StateBefore {
    /// `pdus`, by ids `pdu_ids`.
    pub state: Vec<Arc<Event>>,
    /// `auth_chain`, by ids `auth_chain_ids`.
    pub auth_chain: Vec<Arc<Event>>,
}

impl Rooms {
    /// Events before some (`POST /_matrix/federation/v1/get_missing_events/{roomId}`), the oldest first.
    pub async fn serve_missing_events(
        &self,
        origin: OwnedServerName,
        room: &RoomId,
        request: MissingEvents,
    ) -> Result<Vec<Pdu>, ServeError> {
        self.serve(origin, room, move |room, origin| {
            let most = usize::try_from(request.limit).unwrap_or(MOST_EVENTS);
            let stop: HashSet<&str> = request.earliest.iter().map(|id| id.as_str()).collect();
            let latest = room.by_ids(&texts(&request.latest))?;
            let start = latest.iter().flat_map(|event| event.pdu.prev_events());
            let walk = Walk {
                stop,
                min_depth: request.min_depth,
                most: most.min(MOST_EVENTS),
            };
            let mut events = room.walk_back(start.map(str::to_owned).collect(), &walk)?;
            events.reverse();
            room.shown(origin, &events)
        })
        .await
    }

    /// Events and those before them (`GET /_matrix/federation/v1/backfill/{roomId}`), the newest first.
    pub async fn serve_backfill(
        &self,
        origin: OwnedServerName,
        room: &RoomId,
        from: Vec<OwnedEventId>,
        limit: usize,
    ) -> Result<Vec<Pdu>, ServeError> {
        self.serve(origin, room, move |room, origin| {
            let walk = Walk {
                stop: HashSet::new(),
                min_depth: 0,
                most: limit.min(MOST_EVENTS),
            };
            let events = room.walk_back(texts(&from), &walk)?;
            room.shown(origin, &events)
        })
        .await
    }

    /// The state before an event (`GET /_matrix/federation/v1/state/{roomId}` and `state_ids`).
    pub async fn serve_state(
        &self,
        origin: OwnedServerName,
        room: &RoomId,
        event: OwnedEventId,
    ) -> Result<StateBefore, ServeError> {
        self.serve(origin, room, move |room, _| {
            room.check_whole()?;
            let event = room.judged(&event)?;
            let entries = room.view.state_entries(event.header.before())?;
            let nums: Vec<EventNum> = entries.into_iter().map(|(_, num)| num).collect();
            let state = room.view.events(&nums)?;
            let auth_chain = room.auth_chain(&state)?;
            Ok(StateBefore { state, auth_chain })
        })
        .await
    }

    /// The auth chain of an event (`GET /_matrix/federation/v1/event_auth/{roomId}/{eventId}`).
    pub async fn serve_event_auth(
        &self,
        origin: OwnedServerName,
        room: &RoomId,
        event: OwnedEventId,
    ) -> Result<Vec<Arc<Event>>, ServeError> {
        self.serve(origin, room, move |room, _| {
            let event = room.judged(&event)?;
            Ok(room.auth_chain(&[event])?)
        })
        .await
    }

    /// An event (`GET /_matrix/federation/v1/event/{eventId}`) of whichever room the server is in.
    pub async fn serve_event(
        &self,
        origin: OwnedServerName,
        event_id: OwnedEventId,
    ) -> Result<Pdu, ServeError> {
        let (rooms, view) = (self.clone(), self.0.store.view());
        tokio::task::spawn_blocking(move || {
            // Its room is not named, and an event of another room is no answer: each of those is looked into that the server
            // is in, which is one lookup, mostly answered by a filter in memory.
            for num in rooms.rooms_of_server(&view, &origin)? {
                if rooms.event_num(&view, num, &event_id)?.is_none()
                    || !rooms.is_server_in_room(&view, num, &origin)?
                    || !rooms.is_resident(&view, num)?
                    || rooms.denies(&view, num, &origin)?
                {
                    continue;
                }
                let room = Served::open(&rooms, &view, num)?;
                let event = room.view.event_by_id(&event_id)?;
                let Some(event) = event.filter(|event| is_told(event)) else {
                    continue;
                };
                let shown = room.shown(&origin, &[event])?;
                return shown.into_iter().next().ok_or(ServeError::EventNotFound);
            }
            Err(ServeError::EventNotFound)
        })
        .await
        .map_err(|_| Failure::CutShort)?
    }

    /// The event nearest to a time that the server may see (`GET /_matrix/federation/v1/timestamp_to_event/{roomId}`): the
    /// first at or after it, or going backwards the last at or before it.
    pub async fn serve_timestamp(
        &self,
        origin: OwnedServerName,
        room: &RoomId,
        at: Millis,
        direction: Direction,
    ) -> Result<EventAt, ServeError> {
        self.serve(origin, room, move |room, origin| {
            let mut known = HashMap::new();
            let sees = |event: &Event| room.sees(origin, event, &mut known);
            let found = nearest(&room.view, at, direction, sees)?;
            Ok(found.ok_or(ServeError::EventNotFound)?.1)
        })
        .await
    }

    /// Answers a question about a room, off the threads that answer requests, to a server that is in it.
    async fn serve<T: Send + 'static>(
        &self,
        origin: OwnedServerName,
        room: &RoomId,
        answer: impl FnOnce(&Served<'_>, &ServerName) -> Result<T, ServeError> + Send + 'static,
    ) -> Result<T, ServeError> {
        let handle = self.resident_room(room).await?;
        let RoomHandle { num, .. } = handle.clone().ok_or(ServeError::RoomNotFound)?;
        if let Some(handle) = handle
            && self.is_denied(&handle, &origin).await?
        {
            return Err(ServeError::NotInRoom);
        }
        let (rooms, view) = (self.clone(), self.0.store.view());
        tokio::task::spawn_blocking(move || {
            if !rooms.is_server_in_room(&view, num, &origin)? {
                return Err(ServeError::NotInRoom);
            }
            answer(&Served::open(&rooms, &view, num)?, &origin)
        })
        .await
        .map_err(|_| Failure::CutShort)?
    }
}

fn texts(ids: &[OwnedEventId]) -> Vec<String> {
    ids.iter().map(ToString::to_string).collect()
}

/// How far back a walk goes.
struct Walk<'a> {
    /// Events that are not wanted, nor what is before them.
    stop: HashSet<&'a str>,
    min_depth: i64,
    most: usize,
}

/// A room of which another server reads.
struct Served<'a> {
    rooms: &'a Rooms,
    store: &'a View,
    view: RoomView<'a>,
    /// The keys of the memberships of the asking server's users, once they were needed.
    users: OnceCell<Vec<StateKeyNum>>,
}

impl<'a> Served<'a> {
    fn open(rooms: &'a Rooms, store: &'a View, room: RoomNum) -> Result<Self, StoreError> {
        Ok(Self {
            rooms,
            store,
            view: RoomView::open(rooms, store, room)?,
            users: OnceCell::new(),
        })
    }

    /// States are told once they are whole.
    fn check_whole(&self) -> Result<(), ServeError> {
        match self.rooms.completeness(self.store, self.view.num())? {
            Completeness::Partial => Err(ServeError::Incomplete),
            Completeness::Whole | Completeness::Since(_) => Ok(()),
        }
    }

    fn by_ids(&self, ids: &[String]) -> Result<Vec<Arc<Event>>, StoreError> {
        let found = self.rooms.events_by_id(self.store, self.view.num(), ids)?;
        Ok(found.into_iter().flatten().collect())
    }

    fn auth_chain(&self, events: &[Arc<Event>]) -> Result<Vec<Arc<Event>>, StoreError> {
        self.rooms.auth_chain(self.store, self.view.num(), events)
    }

    /// An event that was judged here, so that the state before it is known.
    fn judged(&self, event_id: &EventId) -> Result<Arc<Event>, ServeError> {
        let event = self.view.event_by_id(event_id)?;
        event
            .filter(|event| {
                matches!(
                    event.header.status,
                    EventStatus::Accepted | EventStatus::SoftFailed
                )
            })
            .ok_or(ServeError::EventNotFound)
    }

    /// Events by id and those before them, breadth-first. Rejected ones are not told, but what is before them is.
    fn walk_back(&self, from: Vec<String>, walk: &Walk<'_>) -> Result<Vec<Arc<Event>>, StoreError> {
        let mut seen: HashSet<String> = HashSet::new();
        let mut next = from;
        let mut events = Vec::new();
        for _ in 0..MOST_GENERATIONS {
            next.retain(|id| !walk.stop.contains(id.as_str()) && seen.insert(id.clone()));
            next.truncate(MOST_OF_A_GENERATION);
            if next.is_empty() {
                break;
            }
            for event in self.by_ids(&std::mem::take(&mut next))? {
                let judged = event.header.status != EventStatus::Outlier;
                if !judged || event.pdu.depth() < walk.min_depth {
                    continue;
                }
                next.extend(event.pdu.prev_events().map(str::to_owned));
                if event.header.status == EventStatus::Rejected {
                    continue;
                }
                if events.len() >= walk.most {
                    return Ok(events);
                }
                events.push(event);
            }
        }
        Ok(events)
    }

    /// Events in the form in which a server may have them.
    fn shown(&self, origin: &ServerName, events: &[Arc<Event>]) -> Result<Vec<Pdu>, ServeError> {
        let mut known = HashMap::new();
        events
            .iter()
            .map(|event| {
                Ok(if self.sees(origin, event, &mut known)? {
                    event.pdu.clone()
                } else {
                    event.pdu.redacted()
                })
            })
            .collect()
    }

    /// Whether a server that is in the room now may see an event: what the room's history visibility lets one of its
    /// users see.
    fn sees(
        &self,
        origin: &ServerName,
        event: &Event,
        known: &mut HashMap<Root, Side>,
    ) -> Result<bool, StoreError> {
        if let Ok(sender) = UserId::parse(event.pdu.sender())
            && sender.server_name() == origin
        {
            return Ok(true);
        }
        if event.header.status == EventStatus::Outlier && !event.is_point() {
            // The state around it is not known. As a part of the room's states and auth chains every server in it is told
            // of it anyhow.
            return Ok(event.pdu.state_key().is_some());
        }
        let mut side = |state: Root| {
            if let Some(side) = known.get(&state) {
                return Ok(*side);
            }
            let side = self.side(origin, state)?;
            known.insert(state, side);
            Ok::<_, StoreError>(side)
        };
        let (before, after) = (side(event.header.before())?, side(event.header.after())?);
        Ok(can_see_event(before, after, true))
    }

    fn side(&self, origin: &ServerName, state: Root) -> Result<Side, StoreError> {
        let visibility = match self
            .view
            .state_entry(state, "m.room.history_visibility", "")?
        {
            Some(num) => HistoryVisibility::of(Some(&self.view.event(num)?.pdu)),
            None => HistoryVisibility::default(),
        };
        // The others do not depend on memberships.
        let membership = match visibility {
            HistoryVisibility::Invited | HistoryVisibility::Joined => {
                self.membership(origin, state)?
            }
            HistoryVisibility::WorldReadable | HistoryVisibility::Shared => Membership::Leave,
        };
        Ok(Side {
            visibility,
            membership,
        })
    }

    /// The membership in a state of whichever user of a server sees most by it.
    fn membership(&self, origin: &ServerName, state: Root) -> Result<Membership, StoreError> {
        let keys = if let Some(keys) = self.users.get() {
            keys
        } else {
            let keys = self.user_keys(origin)?;
            self.users.get_or_init(|| keys)
        };
        let mut membership = Membership::Leave;
        for keys in keys.chunks(KEYS_A_READ) {
            let nums = self.view.state_nums(state, keys)?;
            let nums: Vec<EventNum> = nums.into_iter().flatten().collect();
            for member in self.view.events(&nums)? {
                match Membership::of(&member.pdu) {
                    Membership::Join => return Ok(Membership::Join),
                    Membership::Invite => membership = Membership::Invite,
                    _ => {}
                }
            }
        }
        Ok(membership)
    }

    /// The keys of the memberships of all users of a server who are or were in the room, in ascending order.
    fn user_keys(&self, origin: &ServerName) -> Result<Vec<StateKeyNum>, StoreError> {
        let interner = self.rooms.interner();
        let mut keys = Vec::new();
        for key in self
            .store
            .keys::<RoomMembers>(Scan::prefix(&self.view.num()))
        {
            let (_, _, user) = key?;
            let user = interner.user_id(self.store, user)?;
            if user.server_name() == origin {
                keys.extend(interner.find_state_key(self.store, MEMBER, user.as_str())?);
            }
        }
        keys.sort_unstable();
        Ok(keys)
    }
}

/// Whether other servers are told of an event at all. A rejected one is none of the room's.
fn is_told(event: &Event) -> bool {
    event.header.status != EventStatus::Rejected
}
