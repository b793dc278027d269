//! Joining rooms, through other servers where this one cannot let the user in by itself.
//!
//! The candidates are asked one after the other for a draft of the join, and the first that gives one is sent the event.
//! Where that fails, the next is asked. Joins of one room wait for each other: who comes second finds the room entered.
//!
//! A room may be entered without its members, which are fetched afterwards (`complete`). Of most rooms they are there so
//! soon that the join is answered with them.

mod answer;
mod complete;
mod handshake;

use std::{
    collections::HashMap,
    str::FromStr,
    sync::{Arc, Weak},
    time::Duration,
};

use myelin_rooms::{
    AppendError, Enter, Failure, JoinError as LocalError,
    remote::{EnterError, Wanted},
};
use myelin_rules::RoomVersion;
use parking_lot::Mutex;
use ruma::{OwnedEventId, OwnedRoomId, OwnedServerName, RoomId, ServerName, UserId};
use thiserror::Error;
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};
use tracing::Instrument;

pub(crate) use complete::Completion;

pub use answer::{AnswerError, Reader, SendJoinAnswer, read_answer};

use crate::{Federation, RequestError, chain};
use handshake::SendJoinError;

/// Most servers that are asked to let somebody in.
const MOST_CANDIDATES: usize = 12;
/// After so many refusals no further server is asked.
const MOST_REFUSALS: usize = 3;
/// How long the answer to a join waits for the members of the room. Clients that load all members are shown the room when
/// these are known; of a small room that is at once, and of a large one nobody waits for it.
const GRACE: Duration = Duration::from_millis(500);

/// Why somebody did not get into a room.
#[derive(Debug, Error)]
pub enum JoinError {
    /// The room is not known, and no server was named that might know it; or none of those knows it (`M_NOT_FOUND`).
    #[error("no server that was asked knows the room")]
    RoomNotFound,
    /// The room's rules refuse the user, or nobody who was asked could tell that they let him in (`M_FORBIDDEN`).
    #[error("{0}")]
    Forbidden(String),
    /// The room has a version that this server does not support (`M_INCOMPATIBLE_ROOM_VERSION`): this one, if it was told.
    #[error("this server does not support the version of the room")]
    IncompatibleVersion(Option<String>),
    /// The event could not be built or appended here.
    #[error(transparent)]
    Append(AppendError),
    /// No server that was asked gave an answer that is of use (502).
    #[error("none of the servers that were asked could let the user in: {0}")]
    NoAnswer(String),
    /// A fault of the server.
    #[error(transparent)]
    Failure(#[from] Failure),
}

/// The joins under way, by room. As many entries as there are rooms that are being joined, plus leftovers that the next
/// join clears away.
#[derive(Debug, Default)]
pub(crate) struct Joining(Mutex<HashMap<OwnedRoomId, Weak<AsyncMutex<()>>>>);

impl Joining {
    async fn turn(&self, room: &RoomId) -> OwnedMutexGuard<()> {
        let turn = {
            let mut rooms = self.0.lock();
            if let Some(turn) = rooms.get(room).and_then(Weak::upgrade) {
                turn
            } else {
                rooms.retain(|_, turn| turn.strong_count() > 0);
                let turn = Arc::default();
                rooms.insert(room.to_owned(), Arc::downgrade(&turn));
                turn
            }
        };
        turn.lock_owned().await
    }
}

/// Why one server did not let the user in.
enum Denial {
    /// By the rules of the room.
    Refused(String),
    IncompatibleVersion(Option<String>),
    /// It does not know the room.
    NotFound,
    /// It could not be asked, its answer was of no use, or it cannot judge.
    Useless(String),
    Failure(Failure),
}

impl Denial {
    fn of(error: RequestError) -> Self {
        match &error {
            RequestError::Refused {
                status, errcode, ..
            } => match (*status, errcode.as_str()) {
                (400, "M_INCOMPATIBLE_ROOM_VERSION") => Self::IncompatibleVersion(None),
                (403, _) => Self::Refused(error.said("The room does not let this user in.")),
                (404, "M_NOT_FOUND") => Self::NotFound,
                _ => Self::Useless(chain(&error)),
            },
            _ => Self::Useless(chain(&error)),
        }
    }
}

impl Federation {
    /// Joins a room (`POST /rooms/{roomId}/join`). `via` are servers that may know the room, in the order in which they are
    /// to be asked. It completes even if nobody waits.
    pub async fn join(
        &self,
        request: Enter,
        via: Vec<OwnedServerName>,
    ) -> Result<OwnedEventId, JoinError> {
        let federation = self.clone();
        let work = async move {
            let room = request.room_id.clone();
            let event_id = federation.join_by_any(request, via).await?;
            let rooms = federation.rooms();
            let whole = rooms.wait_until_whole(&room, GRACE).await;
            whole.map_err(Failure::from)?;
            Ok(event_id)
        };
        match self.0.tasks.spawn(work.in_current_span()).await {
            Ok(result) => result,
            Err(_) => Err(Failure::CutShort.into()),
        }
    }

    async fn join_by_any(
        &self,
        request: Enter,
        via: Vec<OwnedServerName>,
    ) -> Result<OwnedEventId, JoinError> {
        match self.join_here(&request).await? {
            Ok(event_id) => return Ok(event_id),
            Err(reason) if !self.is_enabled() => return Err(reason),
            Err(_) => {}
        }
        let _turn = self.0.joining.turn(&request.room_id).await;
        // Somebody may have entered it meanwhile.
        let reason = match self.join_here(&request).await? {
            Ok(event_id) => return Ok(event_id),
            Err(reason) => reason,
        };
        let candidates = self
            .candidates(&request.room_id, &request.user, via)
            .await?;
        let mut refusals = Vec::new();
        let mut incompatible: Option<Option<String>> = None;
        let mut useless = Vec::new();
        for server in candidates {
            let denial = match self.join_through(&server, &request).await {
                Ok(event_id) => return Ok(event_id),
                Err(denial) => denial,
            };
            match denial {
                Denial::Refused(text) => {
                    tracing::debug!(%server, room = %request.room_id, "join refused");
                    refusals.push(text);
                }
                Denial::IncompatibleVersion(version) => {
                    incompatible = Some(incompatible.flatten().or(version));
                }
                Denial::NotFound => {
                    tracing::debug!(%server, room = %request.room_id, "room not known");
                }
                Denial::Useless(error) => {
                    tracing::debug!(%server, room = %request.room_id, error, "join through a server");
                    useless.push(error);
                }
                Denial::Failure(failure) => return Err(failure.into()),
            }
            if refusals.len() >= MOST_REFUSALS {
                break;
            }
        }
        Err(if let Some(text) = refusals.into_iter().next() {
            JoinError::Forbidden(text)
        } else if let Some(version) = incompatible {
            JoinError::IncompatibleVersion(version)
        } else if let Some(error) = useless.into_iter().next_back() {
            JoinError::NoAnswer(error)
        } else {
            reason
        })
    }

    /// Joins a room that this server can let the user into. The inner error says what to answer if no other server can.
    async fn join_here(
        &self,
        request: &Enter,
    ) -> Result<Result<OwnedEventId, JoinError>, JoinError> {
        let reason = match self.rooms().join(request.clone()).await {
            Ok(event_id) => return Ok(Ok(event_id)),
            Err(reason) => reason,
        };
        let text = reason.to_string();
        match reason {
            LocalError::RoomNotFound | LocalError::NotResident => Ok(Err(JoinError::RoomNotFound)),
            LocalError::UnableToAuthorise | LocalError::UnableToGrant => {
                Ok(Err(JoinError::Forbidden(text)))
            }
            LocalError::Append(AppendError::Failure(failure)) => Err(failure.into()),
            LocalError::Append(AppendError::Forbidden(text)) => Err(JoinError::Forbidden(text)),
            LocalError::Append(error) => Err(JoinError::Append(error)),
        }
    }

    /// The servers that are to be asked, in this order: those named, and whoever told the user of the room. Only for who names
    /// no other it is guessed which may help: to be let in by some servers and not by others may be what he wants.
    pub(crate) async fn candidates(
        &self,
        room: &RoomId,
        user: &UserId,
        via: Vec<OwnedServerName>,
    ) -> Result<Vec<OwnedServerName>, Failure> {
        let mut asked = via;
        asked.retain(|server| server != self.server_name());
        if asked.is_empty() {
            asked.extend(self.rooms().likely_servers(room, user).await?);
            // Until version 12 the server that made the room stands in its id.
            asked.extend(room.server_name().map(ServerName::to_owned));
        } else {
            asked.extend(self.rooms().telling_servers(room, user).await?);
        }
        let mut candidates: Vec<OwnedServerName> = Vec::new();
        for server in asked {
            if server != self.server_name() && !candidates.contains(&server) {
                candidates.push(server);
            }
        }
        candidates.truncate(MOST_CANDIDATES);
        Ok(candidates)
    }

    async fn join_through(
        &self,
        server: &ServerName,
        request: &Enter,
    ) -> Result<OwnedEventId, Denial> {
        let (room, user) = (&request.room_id, &request.user);
        let draft = self.ask_for_draft(server, "make_join", room, user, &RoomVersion::ALL);
        let draft = draft.await.map_err(Denial::of)?;
        let Ok(version) = RoomVersion::from_str(&draft.room_version) else {
            return Err(Denial::IncompatibleVersion(Some(draft.room_version)));
        };
        let wanted = Wanted::join(request, version, server.to_owned());
        let join = self
            .rooms()
            .fill_in(&draft.event, &wanted)
            .map_err(|error| Denial::Useless(chain(&error)))?;
        let answer = match self.send_join(server, room, &join).await {
            Ok(answer) => answer,
            Err(SendJoinError::Request(error)) => return Err(Denial::of(error)),
            Err(SendJoinError::Answer(error)) => return Err(Denial::Useless(chain(&error))),
        };
        let fetch = Arc::new(self.clone());
        if self.rooms().is_in(room).await.map_err(Denial::Failure)? {
            // The room is known, only the right to let the user in is not here.
            let event_id = OwnedEventId::try_from(join.event_id());
            let event_id = event_id.map_err(|error| Denial::Useless(error.to_string()))?;
            let taken = self.rooms().take_vouched(fetch, server, join, answer.event);
            return match taken.await {
                Ok(()) => Ok(event_id),
                Err(EnterError::Failure(failure)) => Err(Denial::Failure(failure)),
                Err(EnterError::Refused(text)) => Err(Denial::Refused(text)),
                Err(error) => Err(Denial::Useless(chain(&error))),
            };
        }
        let answer = handshake::join_answer(room, version, server.to_owned(), join, answer);
        let partial = answer.members_omitted;
        match self.rooms().enter(fetch, answer).await {
            Ok(event_id) => {
                if partial {
                    self.complete_room(room.clone());
                }
                Ok(event_id)
            }
            Err(EnterError::Failure(failure)) => Err(Denial::Failure(failure)),
            Err(EnterError::Refused(text)) => Err(Denial::Refused(text)),
            Err(error) => Err(Denial::Useless(chain(&error))),
        }
    }
}
