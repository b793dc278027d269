//! Invitations of users of other servers by ours. Spec: server-server API, "Inviting to a room".
//!
//! The event is built and signed here, signed by the other server as well, and then becomes part of the room. The room is
//! not locked while the other server is waited for; what happened in the room meanwhile stands beside the invitation.

use std::sync::Arc;

use myelin_data::rooms::EventStatus;
use myelin_rules::Pdu;
use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId, UserId};
use serde_json::value::RawValue;
use thiserror::Error;

use super::{Fetch, check, handshake::AcceptMembershipError};
use crate::{
    Failure, InviteError, JsonObject, Rooms,
    membership::{MEMBER, event_id},
    pipeline::Draft,
};

/// An invitation that is to be signed by the server of its target.
#[derive(Clone, Debug)]
pub struct DrawnInvite {
    /// The event.
    pub event: Pdu,
    /// `invite_room_state`: what is told of the room.
    pub told: Vec<Pdu>,
}

/// An invitation as a membership event of the room says it.
#[derive(Clone, Debug)]
pub struct InviteDraft {
    /// To which room.
    pub room_id: OwnedRoomId,
    /// By whom.
    pub sender: OwnedUserId,
    /// Who is invited.
    pub target: OwnedUserId,
    /// The content of the event.
    pub content: JsonObject,
}

/// Why an invitation did not become part of its room though the other server answered it.
#[derive(Clone, Debug, Error)]
pub enum CompleteInviteError {
    /// What was answered is not the invitation, or not signed.
    #[error("the answer is of no use: {0}")]
    Answer(String),
    /// The rules of the room do not allow it any more.
    #[error("the rules of the room refuse it: {0}")]
    Forbidden(String),
    /// A fault of the server.
    #[error(transparent)]
    Failure(#[from] Failure),
}

impl From<AcceptMembershipError> for CompleteInviteError {
    fn from(error: AcceptMembershipError) -> Self {
        match error {
            AcceptMembershipError::Failure(failure) => Self::Failure(failure),
            refused => Self::Forbidden(refused.to_string()),
        }
    }
}

impl Rooms {
    /// Builds and signs an invitation that the room's rules allow. It becomes part of the room with
    /// [`Rooms::complete_invite`].
    pub async fn draw_up_invite(&self, request: InviteDraft) -> Result<DrawnInvite, InviteError> {
        let rooms = self.clone();
        self.run(async move {
            let guard = rooms.lock_known(&request.room_id).await?;
            let target = request.target.as_str();
            let draft = Draft::state(&request.sender, MEMBER, target, request.content);
            let mut event = guard.draw_up(draft).await?;
            let mut told = guard.told_outside();
            // Who invites him, and how he presents himself.
            told.extend(
                guard
                    .member(&request.sender)
                    .await?
                    .map(|event| event.pdu.clone()),
            );
            let handle = guard.handle().clone();
            drop(guard);
            event = rooms.with_policy(&handle, event).await?;
            Ok(DrawnInvite { event, told })
        })
        .await
    }

    /// Takes an invitation into its room, once the server of its target has signed it. `answer` is what that server gave
    /// back. It completes even if nobody waits.
    pub async fn complete_invite(
        &self,
        fetch: Arc<dyn Fetch>,
        invite: Pdu,
        answer: Box<RawValue>,
    ) -> Result<OwnedEventId, CompleteInviteError> {
        let rooms = self.clone();
        self.run(async move { rooms.take_signed(&*fetch, invite, &answer).await })
            .await
    }

    async fn take_signed(
        &self,
        fetch: &dyn Fetch,
        invite: Pdu,
        answer: &RawValue,
    ) -> Result<OwnedEventId, CompleteInviteError> {
        let of_no_use = |text: &str| Err(CompleteInviteError::Answer(text.to_owned()));
        let signed = check::parse_in(invite.version(), invite.room_id(), answer)
            .map_err(|error| CompleteInviteError::Answer(error.to_string()))?;
        // Equal reference hashes are equal events: the content counts through its own hash.
        if signed.event_id() != invite.event_id()
            || signed.reference_hash() != invite.reference_hash()
        {
            return of_no_use("it gives back another event");
        }
        let target = invite.state_key().and_then(|user| UserId::parse(user).ok());
        let Some(target) = target else {
            return of_no_use("it invites nobody");
        };
        let signed = match self.verify_whole(fetch, signed).await? {
            Ok(signed) => signed,
            Err(text) => return of_no_use(&text),
        };
        if !self
            .is_signed_by(fetch, &signed, target.server_name())
            .await?
        {
            return of_no_use("it is not signed by the server of the invited user");
        }
        let room = <&ruma::RoomId>::try_from(invite.room_id()).ok();
        let handle = match room {
            Some(room) => self.find_now(room).await.map_err(Failure::from)?,
            None => None,
        };
        let Some(handle) = handle else {
            return of_no_use("its room is not known");
        };
        // The other server may have given back nothing but its own signature beside ours.
        let signed = self.ask_policy_of(&handle, signed).await?;
        let (event, _) = self.admit_member(&handle, signed).await?;
        if event.header.status != EventStatus::Accepted {
            let text = "it was refused before".to_owned();
            return Err(CompleteInviteError::Forbidden(text));
        }
        Ok(event_id(&event)?)
    }

    /// The content of an invitation that redeems one by e-mail address or the like: `signed` is what the identity server
    /// says of whom it is. None if the room has no such invitation.
    pub async fn redeeming(
        &self,
        room_id: &ruma::RoomId,
        signed: JsonObject,
    ) -> Result<Option<JsonObject>, Failure> {
        let Some(token) = signed.get("token").and_then(serde_json::Value::as_str) else {
            return Ok(None);
        };
        let Some(handle) = self.find_now(room_id).await? else {
            return Ok(None);
        };
        let guard = self.lock(&handle).await?;
        let invite = guard
            .state_event("m.room.third_party_invite", token)
            .await?;
        let Some(invite) = invite else {
            return Ok(None);
        };
        let mut third_party = JsonObject::new();
        if let Some(name) = invite.pdu.content().get("display_name") {
            third_party.insert("display_name".to_owned(), name.clone());
        }
        third_party.insert("signed".to_owned(), signed.into());
        let mut content = JsonObject::new();
        content.insert("membership".to_owned(), "invite".into());
        content.insert("third_party_invite".to_owned(), third_party.into());
        Ok(Some(content))
    }
}
