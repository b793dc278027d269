//! Users of other servers who leave a room of this one, decline an invitation to it, or knock: `make_leave`, `send_leave`,
//! `make_knock`, `send_knock`. A handshake has two steps: the other server asks for a template, which it fills in and
//! signs, and hands the event in.

use std::{collections::BTreeMap, sync::Arc};

use myelin_data::rooms::{EventStatus, Membership as Stored};
use myelin_rules::{Pdu, RoomVersion};
use myelin_types::EventNum;
use ruma::{OwnedEventId, OwnedRoomId, OwnedServerName, OwnedUserId, ServerName, UserId};
use serde_json::{Value, value::RawValue};
use thiserror::Error;

use super::{Fetch, check, gather::is_settled, judge::Unjudged};
use crate::{
    AppendError, Event, Failure, JsonObject, RoomHandle, Rooms,
    membership::{MEMBER, content},
    pipeline::{Admission, Draft, RoomGuard, Spot},
};

/// What a user of another server is to become by a handshake. Joins have one of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Out of the room, or of an invitation or a knock.
    Leave,
    /// Somebody who asks to be let in.
    Knock,
}

impl Step {
    fn membership(self) -> Stored {
        match self {
            Step::Leave => Stored::Leave,
            Step::Knock => Stored::Knock,
        }
    }
}

/// A request for the template of a membership event.
#[derive(Clone, Debug)]
pub struct MakeMembership {
    /// Which room.
    pub room_id: OwnedRoomId,
    /// Whose membership.
    pub user: OwnedUserId,
    /// What it is to become.
    pub step: Step,
    /// The server that asks.
    pub origin: OwnedServerName,
    /// The room versions that it supports; none where they do not matter.
    pub versions: Option<Vec<String>>,
}

/// The template of a membership event.
#[derive(Clone, Debug)]
pub struct MembershipTemplate {
    /// `room_version`.
    pub room_version: RoomVersion,
    /// `event`: everything but hashes and signatures.
    pub event: JsonObject,
}

/// Why there is no template.
#[derive(Clone, Debug, Error)]
pub enum MakeMembershipError {
    /// The server does not know the room, or is not in it, or does not know all of its members yet (404 `M_NOT_FOUND`).
    #[error("the room is not known")]
    RoomNotFound,
    /// The server that asks does not support the room's version (400 `M_INCOMPATIBLE_ROOM_VERSION` with `room_version`).
    #[error("the room has version {0}, which the other server does not support")]
    IncompatibleVersion(RoomVersion),
    /// The user is none of the server that asks, or the room's ACL or rules do not allow it (403 `M_FORBIDDEN`).
    #[error("{0}")]
    Forbidden(String),
    /// A fault of the server.
    #[error(transparent)]
    Failure(#[from] Failure),
}

/// A signed membership event.
#[derive(Clone, Debug)]
pub struct AcceptMembership {
    /// The room, from the path.
    pub room_id: OwnedRoomId,
    /// The event's id, from the path.
    pub event_id: OwnedEventId,
    /// What its user is to become, from the path.
    pub step: Step,
    /// The event.
    pub pdu: Box<RawValue>,
    /// The server that sends it.
    pub origin: OwnedServerName,
}

/// Why a membership event was refused.
#[derive(Clone, Debug, Error)]
pub enum AcceptMembershipError {
    /// The server does not know the room, or is not in it, or does not know all of its members yet (404 `M_NOT_FOUND`).
    #[error("the room is not known")]
    RoomNotFound,
    /// It is no such event of this room with this id, or its signatures do not verify (400 `M_INVALID_PARAM`).
    #[error("not a valid event: {0}")]
    Malformed(String),
    /// The room's ACL or rules refuse it (403 `M_FORBIDDEN`).
    #[error("{0}")]
    Forbidden(String),
    /// A fault of the server.
    #[error(transparent)]
    Failure(#[from] Failure),
}

/// Why a server is turned away by a room's ACL.
pub(super) const DENIED: &str = "the server is denied by the room's access control list";

impl Rooms {
    /// The template of a membership event (`GET /_matrix/federation/v1/make_leave/{roomId}/{userId}`, and `make_knock`).
    pub async fn make_membership(
        &self,
        request: MakeMembership,
    ) -> Result<MembershipTemplate, MakeMembershipError> {
        let handle = self.whole_room(&request.room_id).await?;
        let handle = handle.ok_or(MakeMembershipError::RoomNotFound)?;
        let forbidden = |text: &str| Err(MakeMembershipError::Forbidden(text.to_owned()));
        if request.user.server_name() != request.origin {
            return forbidden("the user is none of the server that asks");
        }
        if self.is_denied(&handle, &request.origin).await? {
            return forbidden(DENIED);
        }
        let version = handle.version;
        if let Some(versions) = &request.versions
            && !versions.iter().any(|name| name == version.as_str())
        {
            return Err(MakeMembershipError::IncompatibleVersion(version));
        }
        let guard = self.lock(&handle).await?;
        let content = content(request.step.membership(), None, None);
        let template = guard.template(&request.user, content).await;
        template.map_err(|error| match error {
            AppendError::Failure(failure) => MakeMembershipError::Failure(failure),
            refused => MakeMembershipError::Forbidden(refused.to_string()),
        })
    }

    /// Takes a membership event into its room (`PUT /_matrix/federation/v2/send_leave/{roomId}/{eventId}`, and
    /// `send_knock`). Answers what somebody outside is shown of the room. Sent again, it is answered in the same way.
    pub async fn accept_membership(
        &self,
        fetch: Arc<dyn Fetch>,
        request: AcceptMembership,
    ) -> Result<Vec<Pdu>, AcceptMembershipError> {
        let rooms = self.clone();
        self.run(async move { rooms.take_membership(&*fetch, request).await })
            .await
    }

    async fn take_membership(
        &self,
        fetch: &dyn Fetch,
        request: AcceptMembership,
    ) -> Result<Vec<Pdu>, AcceptMembershipError> {
        let handle = self.whole_room(&request.room_id).await?;
        let handle = handle.ok_or(AcceptMembershipError::RoomNotFound)?;
        if self.is_denied(&handle, &request.origin).await? {
            return Err(AcceptMembershipError::Forbidden(DENIED.to_owned()));
        }
        let malformed = |text: &str| AcceptMembershipError::Malformed(text.to_owned());
        let pdu = check::parse(&handle, &request.pdu)
            .map_err(|error| AcceptMembershipError::Malformed(error.to_string()))?;
        if pdu.event_id() != request.event_id {
            return Err(malformed("it has another id"));
        }
        check_member(&pdu, request.step.membership(), &request.origin).map_err(malformed)?;
        let pdu = self
            .verify_whole(fetch, pdu)
            .await?
            .map_err(AcceptMembershipError::Malformed)?;
        let pdu = self.ask_policy_of(&handle, pdu).await?;
        let (event, told) = self.admit_member(&handle, pdu).await?;
        if event.header.status == EventStatus::Accepted {
            Ok(told)
        } else {
            let text = "the rules of the room refuse it".to_owned();
            Err(AcceptMembershipError::Forbidden(text))
        }
    }

    /// Takes a verified membership event into a room that this server is in, if it is accepted. With it comes what
    /// somebody outside is shown of the room.
    pub(super) async fn admit_member(
        &self,
        handle: &RoomHandle,
        pdu: Pdu,
    ) -> Result<(Arc<Event>, Vec<Pdu>), AcceptMembershipError> {
        let mut guard = self.lock(handle).await?;
        guard.settle().await?;
        let known = guard.known(vec![pdu.event_id().to_owned()]).await?;
        let event = match known.into_iter().flatten().next() {
            Some(event) if is_settled(Some(&event)) => event,
            known => {
                guard
                    .admit_if_allowed(pdu, known.map(|event| event.num))
                    .await?
            }
        };
        let told = guard.told_outside();
        guard.commit().durable().await?;
        Ok((event, told))
    }

    /// Verifies an event of which nothing may have been taken away.
    pub(super) async fn verify_whole(
        &self,
        fetch: &dyn Fetch,
        pdu: Pdu,
    ) -> Result<Result<Pdu, String>, Failure> {
        let whole = pdu.json().len();
        Ok(match self.verify(fetch, vec![pdu]).await?.pop() {
            Some(Ok(pdu)) if pdu.json().len() == whole => Ok(pdu),
            Some(Ok(_)) => Err("its content hash is wrong".to_owned()),
            Some(Err(error)) => Err(error.to_string()),
            None => return Err(Failure::CutShort),
        })
    }
}

/// What the specification asks of the event of a handshake, apart from signatures: a membership event of a user of
/// `origin` that gives himself this membership.
pub(super) fn check_member(
    pdu: &Pdu,
    membership: Stored,
    origin: &ServerName,
) -> Result<(), &'static str> {
    let named = pdu.content().get("membership").and_then(Value::as_str);
    let sender = UserId::parse(pdu.sender()).map_err(|_| "its sender is no user")?;
    let checks = [
        (pdu.event_type() == MEMBER, "it is no membership event"),
        (
            named == Some(membership.as_str()),
            "it gives another membership",
        ),
        (
            pdu.state_key() == Some(pdu.sender()),
            "it is for another user",
        ),
        (
            sender.server_name() == origin,
            "its sender is of another server",
        ),
    ];
    match checks.into_iter().find(|(holds, _)| !holds) {
        Some((_, text)) => Err(text),
        None => Ok(()),
    }
}

impl RoomGuard {
    /// The template of a membership event with which a user of another server changes his own membership, if the rules
    /// allow that now.
    pub(super) async fn template(
        &self,
        user: &UserId,
        content: JsonObject,
    ) -> Result<MembershipTemplate, AppendError> {
        let draft = Draft::state(user, MEMBER, user.as_str(), content);
        let pdu = self.draw_up(draft).await?;
        let mut event: JsonObject = serde_json::from_str(pdu.json()).unwrap_or_default();
        // What only the other server can add: it chooses an id where ids are chosen, and hashes and signs.
        for key in ["event_id", "hashes", "signatures"] {
            event.remove(key);
        }
        let here = self.rooms.server_name();
        event.insert("origin".to_owned(), here.as_str().into());
        Ok(MembershipTemplate {
            room_version: self.handle().version,
            event,
        })
    }

    /// Takes in an event, if the rules accept it. The guard must be settled.
    pub(super) async fn admit_if_allowed(
        &mut self,
        pdu: Pdu,
        num: Option<EventNum>,
    ) -> Result<Arc<Event>, AcceptMembershipError> {
        let mut verdict = match self.judge(&pdu, &BTreeMap::new()).await {
            Ok(verdict) => verdict,
            Err(Unjudged::Unconnected(reason)) => {
                return Err(AcceptMembershipError::Malformed(reason.to_owned()));
            }
            Err(Unjudged::Failure(failure)) => return Err(failure.into()),
        };
        if verdict.status != EventStatus::Accepted {
            let reason = verdict.reason.take().unwrap_or_default();
            return Err(AcceptMembershipError::Forbidden(reason));
        }
        let admission = Admission {
            pdu,
            status: EventStatus::Accepted,
            num,
            before: verdict.before,
            spot: Spot::End,
            // Nobody but this server tells the others.
            outgoing: true,
        };
        self.admit(admission).await.map_err(|error| match error {
            AppendError::Failure(failure) => failure.into(),
            refused => AcceptMembershipError::Malformed(refused.to_string()),
        })
    }
}
