//! What other servers may read of a room: missing events, history, states, auth chains, single events.
//!
//! A server is told what its users could see; of other events only the form in which a redaction would leave them, so that
//! it can go on checking what builds on them.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
};

use myelin_data::rooms::EventStatus;
use myelin_rules::{
    Membership, Pdu,
    visibility::{HistoryVisibility, Side, can_see_event},
};
use myelin_state::Root;
use myelin_store::{StoreError, View};
use myelin_types::{EventNum, Millis, RoomNum};
use ruma::{EventId, OwnedEventId, OwnedServerName, RoomId, ServerName, UserId};
use thiserror::Error;

use super::MissingEvents;
use crate::{
    Event, Failure, RoomHandle, Rooms,
    membership::MEMBER,
    read::{Direction, EventAt, RoomView, nearest},
};

/// Most events of one answer.
const MOST_EVENTS: usize = 100;

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
            nearest(&room.view, at, direction, sees)?.ok_or(ServeError::EventNotFound)
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
}

impl<'a> Served<'a> {
    fn open(rooms: &'a Rooms, store: &'a View, room: RoomNum) -> Result<Self, StoreError> {
        Ok(Self {
            rooms,
            store,
            view: RoomView::open(rooms, store, room)?,
        })
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

    /// Events by id and those before them, breadth-first.
    fn walk_back(&self, from: Vec<String>, walk: &Walk<'_>) -> Result<Vec<Arc<Event>>, StoreError> {
        let mut seen: HashSet<String> = HashSet::new();
        let mut left: VecDeque<String> = from.into();
        let mut events = Vec::new();
        while let Some(id) = left.pop_front() {
            if events.len() >= walk.most {
                break;
            }
            if walk.stop.contains(id.as_str()) || !seen.insert(id.clone()) {
                continue;
            }
            let Some(event) = self.by_ids(&[id])?.pop() else {
                continue;
            };
            let judged = matches!(
                event.header.status,
                EventStatus::Accepted | EventStatus::SoftFailed
            );
            if !judged || event.pdu.depth() < walk.min_depth {
                continue;
            }
            left.extend(event.pdu.prev_events().map(str::to_owned));
            events.push(event);
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
        let mut membership = Membership::Leave;
        // The others do not depend on memberships.
        if matches!(
            visibility,
            HistoryVisibility::Invited | HistoryVisibility::Joined
        ) {
            for (_, num) in self.view.member_entries(state)? {
                let member = self.view.event(num)?;
                let user = member
                    .pdu
                    .state_key()
                    .and_then(|user| UserId::parse(user).ok());
                if member.pdu.event_type() != MEMBER
                    || user.is_none_or(|user| user.server_name() != origin)
                {
                    continue;
                }
                match Membership::of(&member.pdu) {
                    Membership::Join => {
                        membership = Membership::Join;
                        break;
                    }
                    Membership::Invite => membership = Membership::Invite,
                    _ => {}
                }
            }
        }
        Ok(Side {
            visibility,
            membership,
        })
    }
}
