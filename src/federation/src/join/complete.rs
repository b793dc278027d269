//! Fetching what is missing of rooms that were entered without their members.
//!
//! One task a room, begun with the join or with the server's start. It asks one server after the other; now and then it
//! waits, longer each time. It ends when the room is whole, or when nobody of this server is in it any more.

use std::{collections::HashSet, time::Duration};

use myelin_rooms::{Failure, remote::CompleteError};
use parking_lot::Mutex;
use ruma::{OwnedRoomId, OwnedServerName, RoomId};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::{Federation, chain};

/// How many rooms are completed at once; further ones wait. Each may hold the state of a large room in memory.
const AT_ONCE: usize = 8;
/// How many servers are asked before the task waits.
const SERVERS_A_ROUND: usize = 10;
/// How long it waits, at first and at most.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_mins(10);

/// The rooms that are being completed.
#[derive(Debug)]
pub(crate) struct Completion {
    /// Those that have a task.
    rooms: Mutex<HashSet<OwnedRoomId>>,
    slots: Semaphore,
    stopping: CancellationToken,
}

impl Default for Completion {
    fn default() -> Self {
        Self {
            rooms: Mutex::default(),
            slots: Semaphore::new(AT_ONCE),
            stopping: CancellationToken::new(),
        }
    }
}

impl Completion {
    /// Ends all tasks. What they have stored so far is there when they begin again.
    pub(crate) fn stop(&self) {
        self.stopping.cancel();
    }
}

impl Federation {
    /// Goes on with completing the rooms that were not complete when the server stopped, in tasks of their own.
    pub fn resume_joins(&self) {
        let federation = self.clone();
        self.0.tasks.spawn(async move {
            match federation.rooms().partial_rooms().await {
                Ok(rooms) => {
                    for room in rooms {
                        federation.complete_room(room);
                    }
                }
                Err(failure) => {
                    tracing::error!(error = chain(&failure), "read which rooms are incomplete");
                }
            }
        });
    }

    /// Completes a room in a task of its own, unless one does already.
    pub(super) fn complete_room(&self, room: OwnedRoomId) {
        if !self.0.completion.rooms.lock().insert(room.clone()) {
            return;
        }
        let federation = self.clone();
        let work = async move {
            let completion = &federation.0.completion;
            tokio::select! {
                () = completion.stopping.cancelled() => {}
                () = federation.complete_at_last(&room) => {}
            }
            completion.rooms.lock().remove(&room);
            // It may have been entered again in the last moment.
            let again = federation.rooms().completing(&room).await;
            if !completion.stopping.is_cancelled() && matches!(again, Ok(Some(_))) {
                federation.complete_room(room);
            }
        };
        self.0.tasks.spawn(work.in_current_span());
    }

    async fn complete_at_last(&self, room: &RoomId) {
        let mut pause = FIRST_PAUSE;
        let mut asked = HashSet::new();
        loop {
            match self.complete_by_some(room, &mut asked).await {
                Ok(true) => return,
                Ok(false) => {}
                Err(failure) => {
                    tracing::error!(%room, error = chain(&failure), "complete the state of a room");
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Asks a few servers, one after the other: those that were not asked before, and when there are none all from the
    /// beginning. Answers whether nothing is left to be done.
    async fn complete_by_some(
        &self,
        room: &RoomId,
        asked: &mut HashSet<OwnedServerName>,
    ) -> Result<bool, Failure> {
        for _ in 0..SERVERS_A_ROUND {
            // Read anew each time: the room may have been left, or entered again.
            let Some(completing) = self.rooms().completing(room).await? else {
                return Ok(true);
            };
            let mut servers = completing.servers.into_iter();
            let Some(server) = servers.find(|server| asked.insert(server.clone())) else {
                asked.clear();
                return Ok(false);
            };
            let slot = self.0.completion.slots.acquire().await;
            let completed = self.rooms().complete(self, room, &server).await;
            drop(slot);
            match completed {
                Ok(()) => tracing::debug!(%room, %server, "state of a room completed"),
                Err(CompleteError::Failure(failure)) => return Err(failure),
                Err(error) => {
                    tracing::debug!(%room, %server, error = chain(&error), "complete the state of a room");
                }
            }
        }
        Ok(false)
    }
}
