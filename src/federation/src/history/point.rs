//! Single events that a client names and this server does not know.

use std::sync::Arc;

use myelin_rooms::{
    Completeness, RoomHandle,
    read::{ReadError, Viewer},
    remote::{BackfillError, Fetch},
};
use ruma::{EventId, OwnedEventId, RoomId};
use tokio::time::{Instant, timeout_at};

use super::{Filled, MOST_ROUNDS, WAIT};
use crate::{Federation, chain};

impl Federation {
    /// Tries to have an event that was not found in a room: by filling the newest gap up to it, or else by itself. Answers
    /// whether it is worth looking again.
    pub(super) async fn bring(
        &self,
        viewer: &Viewer,
        room_id: &RoomId,
        event_id: &EventId,
    ) -> Result<bool, ReadError> {
        if !self.0.enabled {
            return Ok(false);
        }
        let Some(handle) = self.room(room_id).await? else {
            return Ok(false);
        };
        // Only who is in the room has this server ask others, and only if something of it is missing.
        let rooms = &self.0.rooms;
        let Some(mut segment) = rooms.wanting(viewer, &handle, event_id).await? else {
            return Ok(false);
        };
        // While members are missing, what is before the join could not be judged, and what is after it comes by itself.
        if rooms.completeness(&rooms.store().view(), handle.num)? == Completeness::Partial {
            return Ok(false);
        }
        let key = (handle.num, event_id.to_string());
        if self.0.fills.events.rests(&key) {
            return Ok(false);
        }
        let deadline = Instant::now() + WAIT;
        for _ in 0..MOST_ROUNDS {
            if self.filled(room_id, segment, deadline).await? != Filled::Some {
                break;
            }
            match rooms.wanting(viewer, &handle, event_id).await? {
                Some(next) => segment = next,
                None => return Ok(true),
            }
        }
        let federation = self.clone();
        let event_id = event_id.to_owned();
        let task = self.0.tasks.spawn(async move {
            let found = federation.fetch_point(&handle, event_id).await;
            let events = &federation.0.fills.events;
            if found {
                events.succeeded(&key);
            } else {
                events.failed(&key);
            }
            found
        });
        Ok(matches!(timeout_at(deadline, task).await, Ok(Ok(true))))
    }

    /// Asks servers of the room for an event, one after the other, until one has it.
    async fn fetch_point(&self, handle: &RoomHandle, event_id: OwnedEventId) -> bool {
        let rooms = &self.0.rooms;
        let servers = match rooms.history_servers(handle, None).await {
            Ok(servers) => servers,
            Err(error) => {
                tracing::error!(room = %handle.room_id(), error = chain(&error), "the servers of a room cannot be read");
                return false;
            }
        };
        for server in self.not_resting(handle, servers) {
            let fetch: Arc<dyn Fetch> = Arc::new(self.clone());
            let fetched =
                rooms.fetch_point(fetch, server.clone(), handle.clone(), event_id.clone());
            match fetched.await {
                Ok(true) => return true,
                Ok(false) => {}
                // That it does not have one event says nothing of the server.
                Err(BackfillError::Fetch(error)) => {
                    tracing::debug!(%server, %event_id, %error, "fetch an event of the past");
                }
                Err(BackfillError::Failure(failure)) => {
                    tracing::error!(%event_id, error = chain(&failure), "an event of the past was not taken in");
                    return false;
                }
            }
        }
        false
    }
}
