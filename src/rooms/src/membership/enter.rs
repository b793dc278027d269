//! Getting into a room: invitations, joining, knocking.

use myelin_data::rooms::{Membership as Stored, RoomMembers};
use myelin_rules::{Membership, auth::JoinRule};
use myelin_store::{Scan, StoreError};
use ruma::{OwnedEventId, OwnedUserId, RoomId, UserId};
use serde_json::Value;

use super::{Enter, Invite, InviteError, JoinError, KnockError, entering};
use crate::{
    Failure, JsonObject, Rooms, error::LockError, head::membership_of, pipeline::RoomGuard,
    remote::InviteDraft,
};

/// How many members are looked at when one is sought who may let somebody in.
const MOST_CANDIDATES: usize = 5_000;

impl Rooms {
    /// Invites a local user (`POST /rooms/{roomId}/invite`).
    pub async fn invite(&self, request: Invite) -> Result<OwnedEventId, InviteError> {
        self.invite_with(request.into()).await
    }

    /// The same with another content of the membership event.
    pub async fn invite_with(&self, draft: InviteDraft) -> Result<OwnedEventId, InviteError> {
        let rooms = self.clone();
        self.run(async move {
            let guard = rooms.lock_known(&draft.room_id).await?;
            guard
                .invite(&draft.sender, &draft.target, draft.content)
                .await
        })
        .await
    }

    /// Joins a room (`POST /rooms/{roomId}/join`), if that can be done without other servers. Joining twice is one join: the
    /// first event's id is answered.
    pub async fn join(&self, request: Enter) -> Result<OwnedEventId, JoinError> {
        let rooms = self.clone();
        self.run(async move {
            let guard = rooms.lock_known(&request.room_id).await?;
            if let Some(member) = guard.member(&request.user).await?
                && Membership::of(&member.pdu) == Membership::Join
            {
                return Ok(guard.already(&member)?.durable().await?);
            }
            // Who is banned is not known either while members are missing.
            if guard.is_partial() || guard.is_outside(&request.user).await? {
                return Err(JoinError::NotResident);
            }
            let content = entering(&request, Stored::Join);
            guard.join(&request.user, content).await
        })
        .await
    }

    /// Knocks on a room (`POST /knock/{roomIdOrAlias}`), if that can be done without other servers.
    pub async fn knock(&self, request: Enter) -> Result<OwnedEventId, KnockError> {
        let rooms = self.clone();
        self.run(async move {
            let guard = rooms.lock_known(&request.room_id).await?;
            if guard.is_outside(&request.user).await? {
                return Err(KnockError::NotResident);
            }
            let content = entering(&request, Stored::Knock);
            let sent = guard
                .send_member(&request.user, &request.user, content)
                .await?;
            Ok(sent.durable().await?)
        })
        .await
    }

    /// The guard of a room, if this server knows its history. A room that it knows only from outside, because somebody was
    /// invited to it, is none.
    pub(crate) async fn lock_known(&self, room_id: &RoomId) -> Result<RoomGuard, LockError> {
        let Some(handle) = self.find_now(room_id).await? else {
            return Err(LockError::RoomNotFound);
        };
        let guard = self.lock(&handle).await?;
        if guard.state().head.is_none() {
            return Err(LockError::RoomNotFound);
        }
        Ok(guard)
    }
}

impl RoomGuard {
    /// Invites a local user with this content, and waits until that is durable.
    pub(crate) async fn invite(
        self,
        sender: &UserId,
        target: &UserId,
        content: JsonObject,
    ) -> Result<OwnedEventId, InviteError> {
        if !self.rooms.is_local(target) {
            return Err(InviteError::RemoteTarget(target.to_owned()));
        }
        let sent = self.send_member(sender, target, content).await?;
        Ok(sent.durable().await?)
    }

    /// Joins a local user with this content, and waits until that is durable. Where members of other rooms may join,
    /// somebody who vouches for that is found.
    pub(crate) async fn join(
        self,
        user: &UserId,
        mut content: JsonObject,
    ) -> Result<OwnedEventId, JoinError> {
        content.remove("join_authorised_via_users_server");
        if let Some(authoriser) = self.authoriser(user).await? {
            content.insert(
                "join_authorised_via_users_server".to_owned(),
                authoriser.as_str().into(),
            );
        }
        let sent = self.send_member(user, user, content).await?;
        Ok(sent.durable().await?)
    }

    /// The local member in whose name a user is let in because of his membership of another room; none if that is not
    /// needed, or if he is not let in, which the rules then say.
    async fn authoriser(&self, user: &UserId) -> Result<Option<OwnedUserId>, JoinError> {
        if !matches!(
            self.state().join_rule(),
            JoinRule::Restricted | JoinRule::KnockRestricted
        ) {
            return Ok(None);
        }
        let member = self.member(user).await?;
        if matches!(
            membership_of(member.as_ref()),
            Membership::Join | Membership::Invite | Membership::Ban
        ) {
            return Ok(None);
        }
        match self.is_member_of_allowed(user).await? {
            None => Err(JoinError::UnableToAuthorise),
            Some(false) => Ok(None),
            Some(true) => match self.inviter().await? {
                Some(user) => Ok(Some(user)),
                None => Err(JoinError::UnableToGrant),
            },
        }
    }

    /// Whether a user is joined to one of the rooms that the join rules allow. Only rooms that this server is in can
    /// be looked at; none if there are such rooms and it is in none of them.
    pub(crate) async fn is_member_of_allowed(
        &self,
        user: &UserId,
    ) -> Result<Option<bool>, Failure> {
        let Some(join_rules) = self.state().kept_event("m.room.join_rules").cloned() else {
            return Ok(Some(false));
        };
        let (rooms, user) = (self.rooms.clone(), user.to_owned());
        let answer = self
            .rooms
            .0
            .store
            .read(move |view| {
                let allow = join_rules.pdu.content().get("allow");
                let (mut named, mut looked_at) = (0, 0);
                for condition in allow.and_then(Value::as_array).into_iter().flatten() {
                    let field = |key| condition.get(key).and_then(Value::as_str);
                    let (Some("m.room_membership"), Some(room_id)) =
                        (field("type"), field("room_id"))
                    else {
                        continue;
                    };
                    let Ok(room_id) = <&RoomId>::try_from(room_id) else {
                        continue;
                    };
                    named += 1;
                    let Some(room) = rooms.0.interner.find_room(view, room_id)? else {
                        continue;
                    };
                    // Of a room that this server has left it knows who was in it once.
                    if !rooms.is_resident(view, room)? {
                        continue;
                    }
                    if rooms.joined_user(view, room, &user)?.is_some() {
                        return Ok(Some(true));
                    }
                    looked_at += 1;
                }
                Ok::<_, StoreError>((named == 0 || looked_at > 0).then_some(false))
            })
            .await?;
        Ok(answer)
    }

    /// A local member who may invite. Those with a level of their own are tried first: they are few, and most likely to
    /// have the power.
    pub(crate) async fn inviter(&self) -> Result<Option<OwnedUserId>, Failure> {
        let Some(levels) = self.state().levels().cloned() else {
            return Ok(None);
        };
        let rooms = self.rooms.clone();
        let may_invite = move |user: &UserId| {
            rooms.is_local(user) && levels.user(user.as_str()) >= levels.invite()
        };
        for user in self.state().users_with_levels() {
            if may_invite(&user)
                && membership_of(self.member(&user).await?.as_ref()) == Membership::Join
            {
                return Ok(Some(user));
            }
        }
        let (rooms, room) = (self.rooms.clone(), self.num());
        let found = self
            .rooms
            .0
            .store
            .read(move |view| {
                let joined = Scan::prefix(&(room, Stored::Join)).limit(MOST_CANDIDATES);
                for row in view.scan::<RoomMembers>(joined) {
                    let ((_, _, num), _) = row?;
                    let user = rooms.0.interner.user_id(view, num)?;
                    if may_invite(&user) {
                        return Ok(Some(user));
                    }
                }
                Ok::<_, StoreError>(None)
            })
            .await?;
        // The view may be older than the room's head: whoever it names must still be there.
        match found {
            Some(user) if membership_of(self.member(&user).await?.as_ref()) == Membership::Join => {
                Ok(Some(user))
            }
            _ => Ok(None),
        }
    }
}
