//! Filling gaps of rooms.

use std::{collections::HashMap, sync::Arc};

use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use myelin_rooms::{
    RoomHandle,
    read::ReadError,
    remote::{BackfillError, Fetch},
};
use myelin_types::{Clock, RoomNum};
use parking_lot::Mutex;
use ruma::{OwnedServerName, RoomId};
use tokio::time::{Instant, timeout_at};

use super::back_off::BackOff;
use crate::{Federation, chain};

/// How many servers are asked one after the other for the same.
pub(super) const MOST_SERVERS: usize = 5;
/// How many gaps of all rooms are being filled at once. Who wants more of them is answered without waiting, and comes
/// again.
const AT_ONCE: usize = 32;

/// What came of asking for history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Filled {
    /// There is more of it now.
    Some,
    /// It is not there yet.
    Later,
    /// Nobody gives any, for now.
    Nothing,
}

/// A gap: the room and the segment in front of which something is missing.
type Point = (RoomNum, u32);
type Flight = Shared<BoxFuture<'static, Filled>>;

/// What is being fetched, and what could not be.
pub(crate) struct Fills {
    flights: Mutex<HashMap<Point, Flight>>,
    /// Gaps that nobody could fill.
    points: BackOff<Point>,
    /// Servers that could not help with a room.
    pub(super) servers: BackOff<(RoomNum, OwnedServerName)>,
    /// Events that nobody gave.
    pub(super) events: BackOff<(RoomNum, String)>,
}

impl Fills {
    pub(crate) fn new(clock: &Arc<dyn Clock>) -> Self {
        Self {
            flights: Mutex::default(),
            points: BackOff::new(Arc::clone(clock)),
            servers: BackOff::new(Arc::clone(clock)),
            events: BackOff::new(Arc::clone(clock)),
        }
    }
}

/// Takes a request off those that are under way, however it ends.
struct Landing {
    federation: Federation,
    point: Point,
}

impl Drop for Landing {
    fn drop(&mut self) {
        let mut flights = self.federation.0.fills.flights.lock();
        flights.remove(&self.point);
    }
}

impl Federation {
    /// Has a gap filled, a piece of it, and does not wait for that.
    pub(super) async fn begin_filling(
        &self,
        room_id: &RoomId,
        segment: u32,
    ) -> Result<(), ReadError> {
        if let Some(handle) = self.room(room_id).await? {
            // Where nothing can be had now, whoever comes to the gap tries again.
            let _ = self.filling(&handle, segment);
        }
        Ok(())
    }

    /// Has a gap filled, a piece of it, and waits for that until a deadline.
    pub(super) async fn filled(
        &self,
        room_id: &RoomId,
        segment: u32,
        deadline: Instant,
    ) -> Result<Filled, ReadError> {
        let Some(handle) = self.room(room_id).await? else {
            return Ok(Filled::Nothing);
        };
        let flight = match self.filling(&handle, segment) {
            Ok(flight) => flight,
            Err(filled) => return Ok(filled),
        };
        Ok(timeout_at(deadline, flight).await.unwrap_or(Filled::Later))
    }

    pub(super) async fn room(&self, room_id: &RoomId) -> Result<Option<RoomHandle>, ReadError> {
        let (rooms, room_id) = (self.0.rooms.clone(), room_id.to_owned());
        let found = self
            .0
            .rooms
            .store()
            .read(move |view| rooms.find(view, &room_id))
            .await?;
        Ok(found)
    }

    /// The request for a piece of a gap that is under way, or a new one.
    fn filling(&self, handle: &RoomHandle, segment: u32) -> Result<Flight, Filled> {
        let fills = &self.0.fills;
        let point = (handle.num, segment);
        if !self.0.enabled || fills.points.rests(&point) {
            return Err(Filled::Nothing);
        }
        let mut flights = fills.flights.lock();
        if let Some(flight) = flights.get(&point) {
            return Ok(flight.clone());
        }
        if flights.len() >= AT_ONCE {
            return Err(Filled::Later);
        }
        let (federation, handle) = (self.clone(), handle.clone());
        // It goes on if nobody waits any more: the next page needs it.
        let task = self.0.tasks.spawn(async move {
            let landing = Landing { federation, point };
            let filled = landing.federation.fill(handle, segment).await;
            let points = &landing.federation.0.fills.points;
            match filled {
                Filled::Some => points.succeeded(&point),
                Filled::Later | Filled::Nothing => points.failed(&point),
            }
            filled
        });
        let flight = async move { task.await.unwrap_or(Filled::Nothing) };
        let flight = flight.boxed().shared();
        flights.insert(point, flight.clone());
        Ok(flight)
    }

    /// Asks servers of the room, one after the other, until one has something.
    async fn fill(&self, handle: RoomHandle, segment: u32) -> Filled {
        let rooms = &self.0.rooms;
        let servers = match rooms.history_servers(&handle, Some(segment)).await {
            Ok(servers) => servers,
            Err(error) => {
                tracing::error!(room = %handle.room_id(), error = chain(&error), "the servers of a room cannot be read");
                return Filled::Nothing;
            }
        };
        for server in self.not_resting(&handle, servers) {
            let key = (handle.num, server.clone());
            let fetch: Arc<dyn Fetch> = Arc::new(self.clone());
            match rooms
                .backfill(fetch, server.clone(), handle.clone(), segment)
                .await
            {
                Ok(done) if done.placed > 0 || done.closed => {
                    self.0.fills.servers.succeeded(&key);
                    return Filled::Some;
                }
                Ok(_) => self.0.fills.servers.failed(&key),
                Err(BackfillError::Fetch(error)) => {
                    tracing::debug!(%server, room = %handle.room_id(), %error, "fetch history");
                    self.0.fills.servers.failed(&key);
                }
                Err(BackfillError::Failure(failure)) => {
                    tracing::error!(room = %handle.room_id(), error = chain(&failure), "history was not taken in");
                    return Filled::Nothing;
                }
            }
        }
        Filled::Nothing
    }

    /// The first of some servers, without those that could not help with a room lately.
    pub(super) fn not_resting(
        &self,
        handle: &RoomHandle,
        servers: Vec<OwnedServerName>,
    ) -> impl Iterator<Item = OwnedServerName> + use<> {
        let fills = &self.0.fills;
        let ready = servers
            .into_iter()
            .filter(|server| !fills.servers.rests(&(handle.num, server.clone())));
        ready.take(MOST_SERVERS).collect::<Vec<_>>().into_iter()
    }
}
