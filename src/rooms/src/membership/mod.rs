//! Membership: inviting, joining, knocking, leaving, kicking, banning, forgetting, and what follows from a new profile.

//!
//! Every operation builds one membership event under the room's lock. An event that would say what the sender's current
//! one says already is not sent again.

mod enter;
mod leave;
mod moderate;
mod profile;

use std::{str::FromStr, sync::Arc};

use myelin_data::rooms::{Membership, UserRooms};
use myelin_rules::Pdu;
use myelin_store::{Scan, StoreError, View};
use myelin_types::{Pos, RoomNum, UserNum};
use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId, UserId};
use thiserror::Error;

use crate::{
    AppendError, Failure, JsonObject, Rooms,
    error::{failures_append, lock_errors},
    event::Event,
    pipeline::{Draft, Queued, RoomGuard},
    remote::InviteDraft,
};

/// How a user presents himself in a room; absent fields are left out of membership events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Profile {
    /// `displayname`.
    pub displayname: Option<String>,
    /// `avatar_url`.
    pub avatar_url: Option<String>,
}

/// Why somebody was not invited.
#[derive(Clone, Debug, Error)]
pub enum InviteError {
    /// The server does not know the room.
    #[error("the room is not known")]
    RoomNotFound,
    /// The target belongs to another server, which has to sign the invitation.
    #[error("{0} is a user of another server")]
    RemoteTarget(OwnedUserId),
    /// The event could not be appended; `Forbidden` when the sender may not invite or the target is in the room already
    /// or banned.
    #[error(transparent)]
    Append(#[from] AppendError),
}

/// Why somebody did not get in.
#[derive(Clone, Debug, Error)]
pub enum JoinError {
    /// The server does not know the room (`M_NOT_FOUND`).
    #[error("the room is not known")]
    RoomNotFound,
    /// None of this server's users is in the room, while others are: what the server knows of it may be long past. Or it
    /// does not know all members yet, so that it cannot judge.
    #[error("the server is not in the room")]
    NotResident,
    /// Whether the user may join can only be judged by a server that is in one of the rooms whose members may.
    #[error("this server cannot tell whether the user is in a room that lets him in")]
    UnableToAuthorise,
    /// The user could be let in, but nobody here has the power to.
    #[error("no user of this server can let the user in")]
    UnableToGrant,
    /// The event could not be appended; `Forbidden` when the join rules refuse it.
    #[error(transparent)]
    Append(#[from] AppendError),
}

/// Why somebody could not knock.
#[derive(Clone, Debug, Error)]
pub enum KnockError {
    /// The server does not know the room (`M_NOT_FOUND`).
    #[error("the room is not known")]
    RoomNotFound,
    /// None of this server's users is in the room: one that is in it has to take the knock.
    #[error("the server is not in the room")]
    NotResident,
    /// The event could not be appended; `Forbidden` when the join rules refuse it.
    #[error(transparent)]
    Append(#[from] AppendError),
}

/// Why somebody could not leave.
#[derive(Clone, Debug, Error)]
pub enum LeaveError {
    /// The server does not know the room.
    #[error("the room is not known")]
    RoomNotFound,
    /// The user is neither joined, nor invited, nor knocking. (`M_FORBIDDEN`)
    #[error("the user is not in the room")]
    NotInRoom,
    /// The user waits outside a room that this server is not in: one that is has to take the leave.
    #[error("the server is not in the room")]
    NotResident,
    /// The event could not be appended.
    #[error(transparent)]
    Append(#[from] AppendError),
}

/// Why somebody was not kicked, banned or unbanned.
#[derive(Clone, Debug, Error)]
pub enum ModerateError {
    /// The server does not know the room.
    #[error("the room is not known")]
    RoomNotFound,
    /// The target's membership is not one that this ends: kicking somebody who is not in the room, unbanning somebody
    /// who is not banned (`M_FORBIDDEN`).
    #[error("the target is not in the room")]
    TargetNotInRoom,
    /// The event could not be appended; `Forbidden` when the sender is not in the room or has too little power.
    #[error(transparent)]
    Append(#[from] AppendError),
}

/// Why a room was not forgotten.
#[derive(Clone, Debug, Error)]
pub enum ForgetError {
    /// The user has no relation to such a room.
    #[error("the room is not known")]
    RoomNotFound,
    /// The user is still in the room, invited to it or knocking (`M_UNKNOWN`).
    #[error("the user has not left the room")]
    StillInRoom,
    /// A fault of the server.
    #[error(transparent)]
    Failure(#[from] Failure),
}

lock_errors!(
    InviteError,
    JoinError,
    KnockError,
    LeaveError,
    ModerateError,
    ForgetError
);
failures_append!(
    InviteError,
    JoinError,
    KnockError,
    LeaveError,
    ModerateError
);

/// An invitation to be sent.
#[derive(Clone, Debug)]
pub struct Invite {
    /// To which room.
    pub room_id: OwnedRoomId,
    /// By whom.
    pub sender: OwnedUserId,
    /// Who is invited.
    pub target: OwnedUserId,
    /// As the invitation shows the target.
    pub profile: Profile,
    /// Why.
    pub reason: Option<String>,
    /// Whether it is marked as that of a direct chat.
    pub is_direct: bool,
}

/// A user who wants to get into a room, by joining or by knocking.
#[derive(Clone, Debug)]
pub struct Enter {
    /// Which room.
    pub room_id: OwnedRoomId,
    /// Who.
    pub user: OwnedUserId,
    /// As the room will see him.
    pub profile: Profile,
    /// Why.
    pub reason: Option<String>,
    /// Further keys of the membership event's content.
    pub extra: JsonObject,
}

/// An act on somebody else's membership.
#[derive(Clone, Debug)]
pub struct Moderate {
    /// In which room.
    pub room_id: OwnedRoomId,
    /// By whom.
    pub sender: OwnedUserId,
    /// Whose membership.
    pub target: OwnedUserId,
    /// Why.
    pub reason: Option<String>,
}

/// The membership events of a user: their type.
pub(crate) const MEMBER: &str = "m.room.member";

impl Profile {
    /// The fields as they stand in a membership event.
    fn write(&self, content: &mut JsonObject) {
        for (key, value) in [
            ("displayname", &self.displayname),
            ("avatar_url", &self.avatar_url),
        ] {
            match value {
                Some(value) => content.insert(key.to_owned(), value.clone().into()),
                None => content.remove(key),
            };
        }
    }
}

impl From<Invite> for InviteDraft {
    fn from(invite: Invite) -> Self {
        let reason = invite.reason.as_deref();
        let mut content = content(Membership::Invite, Some(&invite.profile), reason);
        if invite.is_direct {
            content.insert("is_direct".to_owned(), true.into());
        }
        Self {
            room_id: invite.room_id,
            sender: invite.sender,
            target: invite.target,
            content,
        }
    }
}

/// The content of a membership event.
pub(crate) fn content(
    membership: Membership,
    profile: Option<&Profile>,
    reason: Option<&str>,
) -> JsonObject {
    let mut content = JsonObject::new();
    content.insert("membership".to_owned(), membership.as_str().into());
    if let Some(profile) = profile {
        profile.write(&mut content);
    }
    if let Some(reason) = reason {
        content.insert("reason".to_owned(), reason.into());
    }
    content
}

/// The content of the membership event of a user who wants to get in.
pub(crate) fn entering(request: &Enter, membership: Membership) -> JsonObject {
    let mut entering = request.extra.clone();
    for key in profile::OF_THE_EVENT {
        entering.remove(key);
    }
    let (profile, reason) = (&request.profile, request.reason.as_deref());
    entering.extend(content(membership, Some(profile), reason));
    entering
}

/// What became of a state event that was to be sent.
pub(crate) struct Sent {
    event_id: OwnedEventId,
    /// The batch that makes it durable; none for a current event that says the same and is durable already.
    batch: Option<Queued>,
}

impl Sent {
    /// The event's id, once it is durable.
    pub(crate) async fn durable(self) -> Result<OwnedEventId, Failure> {
        if let Some(batch) = self.batch {
            batch.durable().await?;
        }
        Ok(self.event_id)
    }
}

impl RoomGuard {
    /// Sends a state event, unless the current one of its type and key says the same in the name of the same sender.
    pub(crate) async fn send_state(
        mut self,
        sender: &UserId,
        event_type: &str,
        state_key: &str,
        content: JsonObject,
    ) -> Result<Sent, AppendError> {
        let current = self.state_event(event_type, state_key).await?;
        if let Some(current) = current.filter(|current| says(&current.pdu, sender, &content)) {
            return Ok(self.already(&current)?);
        }
        let event = self
            .append(Draft::state(sender, event_type, state_key, content))
            .await?;
        Ok(Sent {
            event_id: event_id(&event)?,
            batch: Some(self.commit()),
        })
    }

    /// The answer to a request for what is so already. The event that says so may still be on its way to the disk; then
    /// an empty batch is sent after it, whose arrival proves that of the event.
    pub(crate) fn already(self, current: &Arc<Event>) -> Result<Sent, Failure> {
        Ok(Sent {
            event_id: event_id(current)?,
            batch: (current.pos == Pos::AT_COMMIT).then(|| self.commit()),
        })
    }

    /// Sends a membership event.
    pub(crate) async fn send_member(
        self,
        sender: &UserId,
        target: &UserId,
        content: JsonObject,
    ) -> Result<Sent, AppendError> {
        self.send_state(sender, MEMBER, target.as_str(), content)
            .await
    }
}

fn says(event: &Pdu, sender: &UserId, content: &JsonObject) -> bool {
    event.sender() == sender.as_str() && event.content() == content
}

/// The id of an event of ours.
pub(crate) fn event_id(event: &Arc<Event>) -> Result<OwnedEventId, Failure> {
    OwnedEventId::from_str(&event.header.event_id).map_err(|_| Failure::Damaged {
        room: event.room,
        what: "an event's id is none",
    })
}

impl Rooms {
    /// The rooms that a user is joined to.
    pub fn joined_rooms(&self, view: &View, user: &UserId) -> Result<Vec<RoomNum>, StoreError> {
        self.rooms_of(view, user, |membership| membership == Membership::Join)
    }

    /// The rooms to which a user has one of some memberships.
    pub(crate) fn rooms_of(
        &self,
        view: &View,
        user: &UserId,
        wanted: fn(Membership) -> bool,
    ) -> Result<Vec<RoomNum>, StoreError> {
        let Some(user) = self.0.interner.find_user(view, user)? else {
            return Ok(Vec::new());
        };
        let mut rooms = Vec::new();
        for row in view.scan::<UserRooms>(Scan::prefix(&user)) {
            let ((_, room), row) = row?;
            if wanted(row.membership) {
                rooms.push(room);
            }
        }
        Ok(rooms)
    }

    /// A user's membership of a room as of now, if there is or was any.
    pub fn membership(
        &self,
        view: &View,
        room: RoomNum,
        user: &UserId,
    ) -> Result<Option<Membership>, StoreError> {
        let Some(user) = self.0.interner.find_user(view, user)? else {
            return Ok(None);
        };
        let row = view.get::<UserRooms>(&(user, room))?;
        Ok(row.map(|row| row.membership))
    }

    /// The number of a user, if he is joined to a room.
    pub(crate) fn joined_user(
        &self,
        view: &View,
        room: RoomNum,
        user: &UserId,
    ) -> Result<Option<UserNum>, StoreError> {
        let Some(user) = self.0.interner.find_user(view, user)? else {
            return Ok(None);
        };
        let row = view.get::<UserRooms>(&(user, room))?;
        Ok(row
            .filter(|row| row.membership == Membership::Join)
            .map(|_| user))
    }
}
