//! Users of other servers who join through this one: `make_join` and `send_join`.

use std::sync::Arc;

use myelin_data::rooms::{EventStatus, Membership as Stored};
use myelin_rules::{Membership, Pdu, RoomVersion, auth::JoinRule};
use ruma::{OwnedEventId, OwnedRoomId, OwnedServerName, OwnedUserId, UserId};
use serde_json::{Value, value::RawValue};
use thiserror::Error;

use super::{
    AcceptMembershipError, Fetch, MembershipTemplate, check, gather::is_settled, handshake::DENIED,
};
use crate::{
    AppendError, Event, Failure, Rooms,
    head::membership_of,
    membership::{MEMBER, content},
    pipeline::RoomGuard,
};

/// A request for the template of a join.
#[derive(Clone, Debug)]
pub struct MakeJoin {
    /// Which room.
    pub room_id: OwnedRoomId,
    /// Who wants to join.
    pub user: OwnedUserId,
    /// The server that asks.
    pub origin: OwnedServerName,
    /// The room versions that it supports; the specification's default is `["1"]`.
    pub versions: Vec<String>,
}

/// Why there is no template.
#[derive(Clone, Debug, Error)]
pub enum MakeJoinError {
    /// The server does not know the room, or is not in it, or does not know all of its members yet (404 `M_NOT_FOUND`).
    #[error("the room is not known")]
    RoomNotFound,
    /// The server that asks does not support the room's version (400 `M_INCOMPATIBLE_ROOM_VERSION` with `room_version`).
    #[error("the room has version {0}, which the joining server does not support")]
    IncompatibleVersion(RoomVersion),
    /// The user is none of the server that asks, or the room's ACL or rules keep him out (403 `M_FORBIDDEN`).
    #[error("{0}")]
    Forbidden(String),
    /// Whether the user may join can only be judged by a server that is in one of the rooms whose members may (400
    /// `M_UNABLE_TO_AUTHORISE_JOIN`).
    #[error("this server cannot tell whether the user is in a room that lets him in")]
    UnableToAuthorise,
    /// The user could be let in, but nobody here has the power to (400 `M_UNABLE_TO_GRANT_JOIN`).
    #[error("no user of this server can let the user in")]
    UnableToGrant,
    /// A fault of the server.
    #[error(transparent)]
    Failure(#[from] Failure),
}

/// A signed join.
#[derive(Clone, Debug)]
pub struct AcceptJoin {
    /// The room, from the path.
    pub room_id: OwnedRoomId,
    /// The event's id, from the path.
    pub event_id: OwnedEventId,
    /// The event.
    pub pdu: Box<RawValue>,
    /// The server that sends it.
    pub origin: OwnedServerName,
    /// Whether memberships may be left out of the answer.
    pub omit_members: bool,
}

/// What the joining server needs.
#[derive(Clone, Debug)]
pub struct AcceptedJoin {
    /// The room's version, which is that of the events.
    pub room_version: RoomVersion,
    /// `event`: the join, with our signature where it needs one.
    pub event: Arc<Event>,
    /// `state`: the room's state before the join.
    pub state: Vec<Arc<Event>>,
    /// `auth_chain` of the state and the join.
    pub auth_chain: Vec<Arc<Event>>,
    /// `members_omitted`: whether most memberships are left out of the state, and what is in the state out of the chain.
    pub members_omitted: bool,
    /// `servers_in_room`: those with joined users before the join.
    pub servers: Vec<OwnedServerName>,
}

/// Why a join was refused.
#[derive(Clone, Debug, Error)]
pub enum AcceptJoinError {
    /// The server does not know the room, or is not in it (404 `M_NOT_FOUND`).
    #[error("the room is not known")]
    RoomNotFound,
    /// It is no join of this room with this id (400 `M_BAD_JSON`).
    #[error("not a valid join: {0}")]
    Malformed(String),
    /// Its signatures do not verify, or it is not the origin's to send, or the room's ACL or rules refuse it (403
    /// `M_FORBIDDEN`).
    #[error("{0}")]
    Forbidden(String),
    /// As in [`MakeJoinError`].
    #[error("this server cannot tell whether the user is in a room that lets him in")]
    UnableToAuthorise,
    /// As in [`MakeJoinError`].
    #[error("no user of this server can let the user in")]
    UnableToGrant,
    /// A fault of the server.
    #[error(transparent)]
    Failure(#[from] Failure),
}

impl Rooms {
    /// The template of a join (`GET /_matrix/federation/v1/make_join/{roomId}/{userId}`).
    pub async fn make_join(&self, request: MakeJoin) -> Result<MembershipTemplate, MakeJoinError> {
        let handle = self.whole_room(&request.room_id).await?;
        let handle = handle.ok_or(MakeJoinError::RoomNotFound)?;
        if request.user.server_name() != request.origin {
            let text = "the user is none of the server that asks".to_owned();
            return Err(MakeJoinError::Forbidden(text));
        }
        if self.is_denied(&handle, &request.origin).await? {
            return Err(MakeJoinError::Forbidden(DENIED.to_owned()));
        }
        let version = handle.version;
        if !request.versions.iter().any(|name| name == version.as_str()) {
            return Err(MakeJoinError::IncompatibleVersion(version));
        }
        let guard = self.lock(&handle).await?;
        let mut content = content(Stored::Join, None, None);
        if let Some(authoriser) = guard.vouching(&request.user).await? {
            let key = "join_authorised_via_users_server".to_owned();
            content.insert(key, authoriser.as_str().into());
        }
        let template = guard.template(&request.user, content).await;
        template.map_err(|error| match error {
            AppendError::Failure(failure) => MakeJoinError::Failure(failure),
            refused => MakeJoinError::Forbidden(refused.to_string()),
        })
    }

    /// Takes a join into its room (`PUT /_matrix/federation/v2/send_join/{roomId}/{eventId}`). Sent again, it is answered
    /// in the same way.
    pub async fn accept_join(
        &self,
        fetch: Arc<dyn Fetch>,
        request: AcceptJoin,
    ) -> Result<AcceptedJoin, AcceptJoinError> {
        let rooms = self.clone();
        self.run(async move { rooms.accept(&*fetch, request).await })
            .await
    }

    async fn accept(
        &self,
        fetch: &dyn Fetch,
        request: AcceptJoin,
    ) -> Result<AcceptedJoin, AcceptJoinError> {
        let handle = self.whole_room(&request.room_id).await?;
        let handle = handle.ok_or(AcceptJoinError::RoomNotFound)?;
        if self.is_denied(&handle, &request.origin).await? {
            return Err(AcceptJoinError::Forbidden(DENIED.to_owned()));
        }
        let pdu = check::parse(&handle, &request.pdu)
            .map_err(|error| AcceptJoinError::Malformed(error.to_string()))?;
        check_join(&pdu, &request).map_err(|text| AcceptJoinError::Malformed(text.to_owned()))?;
        // Our own signature is needed where one of our users vouches for the user. It does not leave the server before all
        // else was found right.
        let vouched = self.is_vouched(&pdu);
        let pdu = if vouched {
            pdu.countersigned(&self.0.signer)
        } else {
            pdu
        };
        let verified = self.verify_whole(fetch, pdu).await?;
        let pdu = verified.map_err(AcceptJoinError::Malformed)?;
        let pdu = self.ask_policy_of(&handle, pdu).await?;

        let mut guard = self.lock(&handle).await?;
        guard.settle().await?;
        let known = guard.known(vec![pdu.event_id().to_owned()]).await?;
        let event = match known.into_iter().flatten().next() {
            Some(event) if is_settled(Some(&event)) => event,
            known => {
                if vouched && let Some(user) = pdu.state_key() {
                    guard.check_vouching(user).await?;
                }
                let num = known.map(|event| event.num);
                let event = guard.admit_if_allowed(pdu, num).await?;
                guard.commit().durable().await?;
                event
            }
        };
        if event.header.status != EventStatus::Accepted {
            let text = "the room does not let the user in".to_owned();
            return Err(AcceptJoinError::Forbidden(text));
        }
        Ok(self.joined(handle, event, request.omit_members).await?)
    }

    /// Whether a user of this server is named as the one who lets the sender in.
    fn is_vouched(&self, pdu: &Pdu) -> bool {
        let user = pdu.content().get("join_authorised_via_users_server");
        let user = user
            .and_then(Value::as_str)
            .and_then(|user| UserId::parse(user).ok());
        pdu.version().rules().restricted && user.is_some_and(|user| self.is_local(&user))
    }
}

/// What the specification asks of the event of `send_join`, apart from signatures.
fn check_join(pdu: &Pdu, request: &AcceptJoin) -> Result<(), &'static str> {
    let membership = pdu.content().get("membership").and_then(Value::as_str);
    let sender = UserId::parse(pdu.sender()).map_err(|_| "its sender is no user")?;
    let checks = [
        (pdu.event_id() == request.event_id, "it has another id"),
        (pdu.event_type() == MEMBER, "it is no membership event"),
        (membership == Some("join"), "it is no join"),
        (
            pdu.state_key() == Some(pdu.sender()),
            "it is for another user",
        ),
        (
            sender.server_name() == request.origin,
            "its sender is of another server",
        ),
    ];
    match checks.into_iter().find(|(holds, _)| !holds) {
        Some((_, text)) => Err(text),
        None => Ok(()),
    }
}

/// Why nobody here vouches for a user.
enum NotVouched {
    /// No room that would let him in can be looked at.
    UnableToAuthorise,
    /// Nobody here may invite.
    UnableToGrant,
    /// He is in none of the rooms that would let him in.
    Forbidden,
    Failure(Failure),
}

impl From<Failure> for NotVouched {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

const NOT_IN_ALLOWED: &str = "the user is in none of the rooms whose members may join";

impl From<NotVouched> for MakeJoinError {
    fn from(reason: NotVouched) -> Self {
        match reason {
            NotVouched::UnableToAuthorise => Self::UnableToAuthorise,
            NotVouched::UnableToGrant => Self::UnableToGrant,
            NotVouched::Forbidden => Self::Forbidden(NOT_IN_ALLOWED.to_owned()),
            NotVouched::Failure(failure) => Self::Failure(failure),
        }
    }
}

impl From<AcceptMembershipError> for AcceptJoinError {
    fn from(error: AcceptMembershipError) -> Self {
        match error {
            AcceptMembershipError::RoomNotFound => Self::RoomNotFound,
            AcceptMembershipError::Malformed(text) => Self::Malformed(text),
            AcceptMembershipError::Forbidden(text) => Self::Forbidden(text),
            AcceptMembershipError::Failure(failure) => Self::Failure(failure),
        }
    }
}

impl From<NotVouched> for AcceptJoinError {
    fn from(reason: NotVouched) -> Self {
        match reason {
            NotVouched::UnableToAuthorise => Self::UnableToAuthorise,
            NotVouched::UnableToGrant => Self::UnableToGrant,
            NotVouched::Forbidden => Self::Forbidden(NOT_IN_ALLOWED.to_owned()),
            NotVouched::Failure(failure) => Self::Failure(failure),
        }
    }
}

impl RoomGuard {
    /// The user of this server who lets a user in; none where that is not needed.
    async fn vouching(&self, user: &UserId) -> Result<Option<OwnedUserId>, NotVouched> {
        let restricted = matches!(
            self.state().join_rule(),
            JoinRule::Restricted | JoinRule::KnockRestricted
        );
        let member = membership_of(self.member(user).await?.as_ref());
        if !restricted || matches!(member, Membership::Join | Membership::Invite) {
            return Ok(None);
        }
        if member == Membership::Ban {
            return Err(NotVouched::Forbidden);
        }
        match self.is_member_of_allowed(user).await? {
            None => Err(NotVouched::UnableToAuthorise),
            Some(false) => Err(NotVouched::Forbidden),
            Some(true) => match self.inviter().await? {
                Some(user) => Ok(Some(user)),
                None => Err(NotVouched::UnableToGrant),
            },
        }
    }

    /// Whether our signature may stand under a user's join.
    async fn check_vouching(&self, user: &str) -> Result<(), NotVouched> {
        let user = UserId::parse(user).map_err(|_| NotVouched::Forbidden)?;
        self.vouching(&user).await.map(drop)
    }
}
