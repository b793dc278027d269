//! Leaving rooms, and declining invitations and taking back knocks where another server has to take that.

use std::str::FromStr;

use myelin_rooms::{Failure, LeaveError, remote::Wanted};
use myelin_rules::RoomVersion;
use ruma::{RoomId, ServerName, UserId};
use tracing::Instrument;

use super::handshake::is_unrecognised;
use crate::{Federation, chain};

/// Most servers that are asked to take a leave. The user gets out in any case, so few are enough.
const MOST_CANDIDATES: usize = 3;

impl Federation {
    /// Leaves a room, declines an invitation or takes a knock back (`POST /rooms/{roomId}/leave`). Where no server can be
    /// told, the user gets out all the same. It completes even if nobody waits.
    pub async fn leave(
        &self,
        room_id: &RoomId,
        user: &UserId,
        reason: Option<String>,
    ) -> Result<(), LeaveError> {
        match self.rooms().leave(room_id, user, reason.clone()).await {
            Err(LeaveError::NotResident) => {}
            answer => return answer,
        }
        let (federation, room_id, user) = (self.clone(), room_id.to_owned(), user.to_owned());
        let work = async move { federation.leave_by_any(&room_id, &user, reason).await };
        match self.0.tasks.spawn(work.in_current_span()).await {
            Ok(result) => result,
            Err(_) => Err(Failure::CutShort.into()),
        }
    }

    /// Declines every invitation and takes back every knock in rooms that this server is not in, as deactivation of the
    /// account demands. Other servers are told in the background.
    pub async fn decline_all(&self, user: &UserId) -> Result<(), Failure> {
        let waiting = self.rooms().waiting(user).await?;
        if waiting.is_empty() {
            return Ok(());
        }
        let (federation, user) = (self.clone(), user.to_owned());
        let work = async move {
            for room in waiting {
                if let Err(error) = federation.leave_by_any(&room, &user, None).await {
                    tracing::warn!(%room, %user, error = chain(&error), "user cannot leave the room");
                }
            }
        };
        self.0.tasks.spawn(work.in_current_span());
        Ok(())
    }

    async fn leave_by_any(
        &self,
        room_id: &RoomId,
        user: &UserId,
        reason: Option<String>,
    ) -> Result<(), LeaveError> {
        let candidates = self.candidates(room_id, user, Vec::new()).await?;
        for server in candidates.iter().take(MOST_CANDIDATES) {
            match self
                .leave_through(server, room_id, user, reason.as_deref())
                .await
            {
                Ok(()) => return Ok(()),
                Err(Unhelpful::Failure(failure)) => return Err(failure.into()),
                Err(Unhelpful::Error(error)) => {
                    tracing::debug!(%server, room = %room_id, error, "leave through a server");
                }
            }
        }
        self.rooms().depart_alone(room_id, user, reason).await
    }

    async fn leave_through(
        &self,
        server: &ServerName,
        room_id: &RoomId,
        user: &UserId,
        reason: Option<&str>,
    ) -> Result<(), Unhelpful> {
        let draft = self
            .ask_for_draft(server, "make_leave", room_id, user, &[])
            .await
            .map_err(|error| Unhelpful::Error(chain(&error)))?;
        let version = RoomVersion::from_str(&draft.room_version)
            .map_err(|_| Unhelpful::Error("the version of the room is not known".to_owned()))?;
        let known = self.rooms().known_version(room_id).await;
        if known.map_err(Unhelpful::Failure)? != Some(version) {
            let text = "the room has another version".to_owned();
            return Err(Unhelpful::Error(text));
        }
        let (room, leaving) = (room_id.to_owned(), user.to_owned());
        let wanted = Wanted::leave(room, leaving, reason, version, server.to_owned());
        let leave = self
            .rooms()
            .fill_in(&draft.event, &wanted)
            .map_err(|error| Unhelpful::Error(chain(&error)))?;
        let sent = match self.hand_in(server, "v2", "send_leave", &leave).await {
            Err(error) if is_unrecognised(&error) => {
                self.hand_in(server, "v1", "send_leave", &leave).await
            }
            sent => sent,
        };
        sent.map_err(|error| Unhelpful::Error(chain(&error)))?;
        self.rooms()
            .departed(leave)
            .await
            .map_err(Unhelpful::Failure)
    }
}

/// Why a server did not take a leave.
enum Unhelpful {
    Error(String),
    Failure(Failure),
}
