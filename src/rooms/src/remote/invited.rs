//! Invitations of our users by users of other servers. Spec: server-server API, "Inviting to a room".
//!
//! 1. The invitation is what it says: of this room and with this id, by a user of the server that sends it, to a user of
//!    ours, signed by that server.
//! 2. What it tells of the room holds: from version 12 on all of it must; before that, what does not hold is not shown.
//! 3. It is signed by this server as well.
//! 4. If the server is in the room, the invitation comes through the room's own history, and nothing else is done.
//!    Otherwise it is stored, and the user is shown it.

use std::sync::Arc;

use myelin_data::{
    RawJson, Shown,
    rooms::{Membership as Stored, Place, UserRooms},
};
use myelin_rules::{Pdu, RoomVersion};
use myelin_store::{Scan, StoreError, View};
use ruma::{OwnedEventId, OwnedRoomId, OwnedServerName, OwnedUserId, ServerName, UserId};
use serde_json::{Value, value::RawValue};
use thiserror::Error;

use super::{Fetch, check, handshake::DENIED, told::Told};
use crate::{AppendError, Failure, RoomHandle, Rooms, membership::MEMBER, read::stripped_pdu};

/// In how many rooms that this server is not in a user may wait. Whoever has so many invitations open gets no further
/// ones, so that strangers cannot fill the disk with them.
const MOST_WAITING: usize = 1_000;
/// How many servers of a room are remembered with an invitation.
const MOST_VIA: usize = 5;

/// An invitation as another server sends it.
#[derive(Clone, Debug)]
pub struct ReceiveInvite {
    /// The room, from the path.
    pub room_id: OwnedRoomId,
    /// The event's id, from the path.
    pub event_id: OwnedEventId,
    /// The room's version, as the other server says.
    pub version: RoomVersion,
    /// The event.
    pub event: Box<RawValue>,
    /// `invite_room_state`: what it tells of the room.
    pub told: Vec<Box<RawValue>>,
    /// Servers that are in the room.
    pub via: Vec<OwnedServerName>,
    /// The server that sends it.
    pub origin: OwnedServerName,
}

/// Why an invitation was refused.
#[derive(Clone, Debug, Error)]
pub enum ReceiveInviteError {
    /// It is no such invitation, is not signed, or what it tells of the room does not hold (400 `M_INVALID_PARAM`).
    #[error("not a valid invitation: {0}")]
    Malformed(String),
    /// The room's ACL denies the server, or the user has too many open invitations (403 `M_FORBIDDEN`).
    #[error("{0}")]
    Forbidden(&'static str),
    /// A fault of the server.
    #[error(transparent)]
    Failure(#[from] Failure),
}

impl From<AppendError> for ReceiveInviteError {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::Failure(failure) => Self::Failure(failure),
            refused => Self::Malformed(refused.to_string()),
        }
    }
}

fn malformed<T>(text: &str) -> Result<T, ReceiveInviteError> {
    Err(ReceiveInviteError::Malformed(text.to_owned()))
}

impl Rooms {
    /// Whom an invitation is for, before anything else of it is looked at; none if it is no invitation.
    pub fn invited_user(version: RoomVersion, event: &RawValue) -> Option<OwnedUserId> {
        let pdu = check::parse_alone(version, event).ok()?;
        let user = pdu.state_key().filter(|_| pdu.event_type() == MEMBER)?;
        UserId::parse(user).ok()
    }

    /// Takes an invitation of one of our users (`PUT /_matrix/federation/v2/invite/{roomId}/{eventId}`). Answers it with our
    /// signature. It completes even if nobody waits. Sent again, it is answered in the same way and changes nothing.
    pub async fn receive_invite(
        &self,
        fetch: Arc<dyn Fetch>,
        request: ReceiveInvite,
    ) -> Result<Pdu, ReceiveInviteError> {
        let rooms = self.clone();
        self.run(async move { rooms.take_invite(&*fetch, request).await })
            .await
    }

    async fn take_invite(
        &self,
        fetch: &dyn Fetch,
        request: ReceiveInvite,
    ) -> Result<Pdu, ReceiveInviteError> {
        let ReceiveInvite {
            room_id,
            event_id,
            version,
            event,
            told,
            via,
            origin,
        } = request;
        let resident = self.resident_room(&room_id).await?;
        if let Some(handle) = &resident {
            if handle.version != version {
                return malformed("the room has another version");
            }
            if self.is_denied(handle, &origin).await? {
                return Err(ReceiveInviteError::Forbidden(DENIED));
            }
        }
        // 1.
        let pdu = check::parse_in(version, room_id.as_str(), &event)
            .map_err(|error| ReceiveInviteError::Malformed(error.to_string()))?;
        if pdu.event_id() != event_id {
            return malformed("it has another id");
        }
        let target = self.check_invite(&pdu, &origin)?;
        let pdu = match self.verify_whole(fetch, pdu).await? {
            Ok(pdu) => pdu,
            Err(text) => return malformed(&text),
        };
        // By its own rules an invitation by e-mail address needs no signature of its sender's server. This one is answered
        // with ours, so whoever sends it must stand for it.
        if !self.is_signed_by(fetch, &pdu, &origin).await? {
            return malformed("it is not signed by the server that sends it");
        }
        // 2.
        let told = self.check_told(fetch, version, &room_id, told).await?;
        check_room(version, &told)?;
        // 3.
        let pdu = pdu.countersigned(&self.0.signer);
        // 4.
        if resident.is_none() {
            let via = [origin].into_iter().chain(via);
            let shown = shown_with(told, &pdu, via)?;
            self.store_invite(&room_id, &pdu, &target, shown).await?;
        }
        Ok(pdu)
    }

    /// Whether an event is an invitation of a user of ours by a user of `origin`; whom it invites.
    fn check_invite(
        &self,
        pdu: &Pdu,
        origin: &ServerName,
    ) -> Result<OwnedUserId, ReceiveInviteError> {
        let membership = pdu.content().get("membership").and_then(Value::as_str);
        let sender = UserId::parse(pdu.sender()).ok();
        let target = pdu.state_key().and_then(|user| UserId::parse(user).ok());
        match target.filter(|user| self.is_local(user)) {
            _ if pdu.event_type() != MEMBER => malformed("it is no membership event"),
            _ if membership != Some("invite") => malformed("it is no invitation"),
            _ if sender.is_none_or(|user| user.server_name() != origin) => {
                malformed("its sender is of another server")
            }
            None => malformed("it is for nobody of this server"),
            Some(target) => Ok(target),
        }
    }

    async fn store_invite(
        &self,
        room_id: &ruma::RoomId,
        pdu: &Pdu,
        target: &UserId,
        shown: Shown,
    ) -> Result<(), ReceiveInviteError> {
        if self.waiting(target).await?.len() >= MOST_WAITING {
            let text = "the user has too many open invitations";
            return Err(ReceiveInviteError::Forbidden(text));
        }
        // Who invites can say of a room what he likes; who lets somebody in cannot.
        let known = self.find_now(room_id).await.map_err(Failure::from)?;
        if known.is_some_and(|handle| handle.version != pdu.version()) {
            return malformed("the room is known to have another version");
        }
        let handle = self.meet(room_id, pdu.version()).await?;
        let mut guard = self.lock(&handle).await?;
        guard.settle().await?;
        // Somebody may have joined meanwhile.
        if self.is_resident_now(&handle).await? {
            return Ok(());
        }
        guard.set_outside(pdu.clone(), Some(shown)).await?;
        guard.commit().durable().await?;
        Ok(())
    }

    /// The rooms that this server is not in, and that a user is invited to or knocks at.
    pub async fn waiting(&self, user: &UserId) -> Result<Vec<OwnedRoomId>, Failure> {
        let (rooms, user) = (self.clone(), user.to_owned());
        let read = move |view: &View| {
            let mut waiting = Vec::new();
            let Some(user) = rooms.0.interner.find_user(view, &user)? else {
                return Ok(waiting);
            };
            for row in view.scan::<UserRooms>(Scan::prefix(&user)) {
                let ((_, room), row) = row?;
                let waits = matches!(row.membership, Stored::Invite | Stored::Knock);
                if waits && row.place == Place::NOWHERE {
                    waiting.push(rooms.handle(view, room)?.room_id().to_owned());
                }
            }
            Ok::<_, StoreError>(waiting)
        };
        Ok(self.0.store.read(read).await?)
    }

    /// Whether a user of this server is joined to a room, by the newest view.
    pub(super) async fn is_resident_now(&self, handle: &RoomHandle) -> Result<bool, Failure> {
        let (rooms, room) = (self.clone(), handle.num);
        let read = move |view: &View| rooms.is_resident(view, room);
        Ok(self.0.store.read(read).await?)
    }
}

/// Whether what was told fits the room.
fn check_room(version: RoomVersion, told: &Told) -> Result<(), ReceiveInviteError> {
    let strict = version.rules().room_id_is_create_hash;
    if let Some(flaw) = &told.flaw {
        if strict {
            return malformed(flaw);
        }
        tracing::debug!(
            flaw,
            "an invitation tells something of its room that does not hold"
        );
    }
    if told.has_other_version {
        return malformed("the room's create event names another version");
    }
    if strict && !told.has_create {
        return malformed("the room's create event is missing");
    }
    Ok(())
}

/// What a user is shown of a room outside of which he waits: what was told of it, and his membership.
pub(super) fn shown_with(
    told: Told,
    member: &Pdu,
    via: impl IntoIterator<Item = OwnedServerName>,
) -> Result<Shown, Failure> {
    let mut events = told.shown;
    events.push(stripped_pdu(member)?);
    let mut servers: Vec<String> = Vec::new();
    for server in via.into_iter().map(|server| server.to_string()) {
        if servers.len() < MOST_VIA && !servers.contains(&server) {
            servers.push(server);
        }
    }
    let events = RawJson::of(&events).map_err(|_| StoreError::Missing("stripped_states"))?;
    Ok(Shown::Raw {
        events,
        via: servers,
    })
}
