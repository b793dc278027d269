//! Rooms to which users of other servers are invited as they are made.

use std::collections::BTreeMap;

use myelin_rooms::{CreateRoom, CreateRoomError, Failure, Invite};
use ruma::{OwnedRoomId, OwnedServerName};
use tokio::task::JoinSet;
use tracing::Instrument;

use super::InviteError;
use crate::{Federation, chain};

impl Federation {
    /// Makes a room (`POST /createRoom`) and invites users of other servers to it. When it returns they are invited, or could
    /// not be: the room is there in any case, and shows who is. It completes even if nobody waits.
    pub async fn create_room(&self, request: CreateRoom) -> Result<OwnedRoomId, CreateRoomError> {
        let invited = request.invite.iter();
        let elsewhere: Vec<_> = invited
            .filter(|invitee| !self.rooms().is_local(&invitee.user_id))
            .cloned()
            .collect();
        if elsewhere.is_empty() {
            return self.rooms().create_room(request).await;
        }
        if !self.is_enabled() {
            let user = elsewhere[0].user_id.clone();
            return Err(CreateRoomError::RemoteInvitee(user));
        }
        let federation = self.clone();
        let work = async move {
            let (creator, is_direct) = (request.creator.clone(), request.is_direct);
            let room_id = federation.rooms().create_room(request).await?;
            let mut by_server: BTreeMap<OwnedServerName, Vec<Invite>> = BTreeMap::new();
            for invitee in elsewhere {
                let server = invitee.user_id.server_name().to_owned();
                let invites = by_server.entry(server).or_default();
                if invites
                    .iter()
                    .all(|invite| invite.target != invitee.user_id)
                {
                    invites.push(Invite {
                        room_id: room_id.clone(),
                        sender: creator.clone(),
                        target: invitee.user_id,
                        profile: invitee.profile,
                        reason: None,
                        is_direct,
                    });
                }
            }
            // A server that does not answer keeps nobody waiting but its own users.
            let mut servers = JoinSet::new();
            for (_, invites) in by_server {
                servers.spawn(federation.clone().invite_all(invites).in_current_span());
            }
            servers.join_all().await;
            Ok(room_id)
        };
        match self.0.tasks.spawn(work.in_current_span()).await {
            Ok(result) => result,
            Err(_) => Err(Failure::CutShort.into()),
        }
    }

    /// Invites users of one server, as long as it answers.
    async fn invite_all(self, invites: Vec<Invite>) {
        for invite in invites {
            let (room, target) = (invite.room_id.clone(), invite.target.clone());
            if let Err(error) = self.invite(invite).await {
                tracing::debug!(%room, user_id = %target, error = chain(&error), "invite a user to a new room");
                if matches!(error, InviteError::NoAnswer(_)) {
                    return;
                }
            }
        }
    }
}
