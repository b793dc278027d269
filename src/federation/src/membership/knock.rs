//! Knocking at rooms, through other servers where this one is not in the room.

use std::{str::FromStr, sync::Arc};

use myelin_rooms::{AppendError, Enter, Failure, KnockError as LocalError, remote::Wanted};
use myelin_rules::RoomVersion;
use ruma::{OwnedEventId, OwnedServerName, ServerName};
use serde::Deserialize;
use serde_json::value::RawValue;
use thiserror::Error;
use tracing::Instrument;

use crate::{Federation, RequestError, chain};

/// Most servers that are asked.
const MOST_CANDIDATES: usize = 5;

/// Why somebody could not knock.
#[derive(Debug, Error)]
pub enum KnockError {
    /// The room is not known, and no server was named that might know it; or none of those knows it (`M_NOT_FOUND`).
    #[error("no server that was asked knows the room")]
    RoomNotFound,
    /// The room's rules do not let the user knock (`M_FORBIDDEN`).
    #[error("{0}")]
    Forbidden(String),
    /// The room has a version that this server does not support (`M_INCOMPATIBLE_ROOM_VERSION`).
    #[error("this server does not support the version of the room")]
    IncompatibleVersion,
    /// The event could not be built or appended here.
    #[error(transparent)]
    Append(AppendError),
    /// No server that was asked gave an answer that is of use (502).
    #[error("none of the servers that were asked took the knock: {0}")]
    NoAnswer(String),
    /// A fault of the server.
    #[error(transparent)]
    Failure(#[from] Failure),
}

/// The answer to `send_knock`.
#[derive(Deserialize)]
struct Taken {
    /// What is told of the room. Some servers give it the name that it had before it was specified.
    #[serde(alias = "knock_state_events", default)]
    knock_room_state: Vec<Box<RawValue>>,
}

impl Federation {
    /// Knocks on a room (`POST /knock/{roomIdOrAlias}`). `via` are servers that may know the room, in the order in which
    /// they are to be asked. It completes even if nobody waits.
    pub async fn knock(
        &self,
        request: Enter,
        via: Vec<OwnedServerName>,
    ) -> Result<OwnedEventId, KnockError> {
        match self.rooms().knock(request.clone()).await {
            Ok(event_id) => return Ok(event_id),
            Err(LocalError::RoomNotFound | LocalError::NotResident) => {}
            Err(LocalError::Append(AppendError::Failure(failure))) => return Err(failure.into()),
            Err(LocalError::Append(AppendError::Forbidden(text))) => {
                return Err(KnockError::Forbidden(text));
            }
            Err(LocalError::Append(error)) => return Err(KnockError::Append(error)),
        }
        let federation = self.clone();
        let work = async move { federation.knock_by_any(&request, via).await };
        match self.0.tasks.spawn(work.in_current_span()).await {
            Ok(result) => result,
            Err(_) => Err(Failure::CutShort.into()),
        }
    }

    async fn knock_by_any(
        &self,
        request: &Enter,
        via: Vec<OwnedServerName>,
    ) -> Result<OwnedEventId, KnockError> {
        let candidates = self
            .candidates(&request.room_id, &request.user, via)
            .await?;
        let mut answer = KnockError::RoomNotFound;
        for server in candidates.iter().take(MOST_CANDIDATES) {
            let error = match self.knock_through(server, request).await {
                Ok(event_id) => return Ok(event_id),
                Err(error) => error,
            };
            tracing::debug!(%server, room = %request.room_id, error = chain(&error), "knock through a server");
            match error {
                // All servers of a room go by the same rules.
                KnockError::Failure(_)
                | KnockError::Forbidden(_)
                | KnockError::IncompatibleVersion
                | KnockError::Append(_) => return Err(error),
                KnockError::RoomNotFound => {}
                KnockError::NoAnswer(_) => answer = error,
            }
        }
        Err(answer)
    }

    async fn knock_through(
        &self,
        server: &ServerName,
        request: &Enter,
    ) -> Result<OwnedEventId, KnockError> {
        let (room_id, user) = (&request.room_id, &request.user);
        let draft = self
            .ask_for_draft(server, "make_knock", room_id, user, &RoomVersion::ALL)
            .await
            .map_err(|error| refused(&error))?;
        let version = RoomVersion::from_str(&draft.room_version)
            .map_err(|_| KnockError::IncompatibleVersion)?;
        let wanted = Wanted::knock(request, version, server.to_owned());
        let knock = self
            .rooms()
            .fill_in(&draft.event, &wanted)
            .map_err(|error| KnockError::NoAnswer(chain(&error)))?;
        let taken = self
            .hand_in(server, "v1", "send_knock", &knock)
            .await
            .map_err(|error| refused(&error))?;
        // The knock is in the room, whatever else the answer says.
        let told = serde_json::from_slice::<Taken>(&taken)
            .map_or_else(|_| Vec::new(), |taken| taken.knock_room_state);
        let fetch = Arc::new(self.clone());
        let stored = self.rooms().knocked(fetch, knock, told, server.to_owned());
        Ok(stored.await?)
    }
}

fn refused(error: &RequestError) -> KnockError {
    match error {
        RequestError::Refused {
            status, errcode, ..
        } => match (*status, errcode.as_str()) {
            (400, "M_INCOMPATIBLE_ROOM_VERSION") => KnockError::IncompatibleVersion,
            (403, _) => KnockError::Forbidden(error.said("The room does not let this user knock.")),
            (404, "M_NOT_FOUND") => KnockError::RoomNotFound,
            _ => KnockError::NoAnswer(chain(error)),
        },
        _ => KnockError::NoAnswer(chain(error)),
    }
}
