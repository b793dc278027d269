//! Users of ours who wait outside a room that this server is not in, and how that ends: they knock, they decline or take
//! back, they are told that nobody waits for them any more.

use std::sync::Arc;

use myelin_data::{
    Shown,
    rooms::{Membership as Stored, Place, StrippedStates, UserRoom},
};
use myelin_rules::{EventBuilder, EventRef, Pdu, sign};
use myelin_store::{StoreError, View};
use myelin_types::UserNum;
use ruma::{OwnedEventId, OwnedServerName, OwnedUserId, RoomId, ServerName, UserId};
use serde_json::{Value, value::RawValue};

use super::{Fetch, Outcome, check, invited::shown_with};
use crate::{
    AppendError, Event, Failure, LeaveError, RoomHandle, Rooms,
    membership::{MEMBER, content},
    pipeline::RoomGuard,
};

impl Rooms {
    /// Stores a knock that another server has taken, with what it told of the room. `via` is that server.
    pub async fn knocked(
        &self,
        fetch: Arc<dyn Fetch>,
        knock: Pdu,
        told: Vec<Box<RawValue>>,
        via: OwnedServerName,
    ) -> Result<OwnedEventId, Failure> {
        let rooms = self.clone();
        self.run(async move {
            let room_id = room_of(&knock)?;
            let told = rooms
                .check_told(&*fetch, knock.version(), &room_id, told)
                .await?;
            if let Some(flaw) = &told.flaw {
                tracing::debug!(flaw, server = %via, "a server tells something of a room that does not hold");
            }
            let shown = shown_with(told, &knock, [via])?;
            let event_id = OwnedEventId::try_from(knock.event_id())
                .map_err(|_| StoreError::Missing("event_ids"))?;
            rooms.set_outside(&room_id, knock, Some(shown)).await?;
            Ok(event_id)
        })
        .await
    }

    /// Stores a leave that another server has taken.
    pub async fn departed(&self, leave: Pdu) -> Result<(), Failure> {
        let rooms = self.clone();
        self.run(async move {
            let room_id = room_of(&leave)?;
            rooms.set_outside(&room_id, leave, None).await
        })
        .await
    }

    /// Lets a user out of an invitation or a knock though no server of the room could be told: nobody can keep somebody
    /// waiting. The others go on seeing him where he was.
    pub async fn depart_alone(
        &self,
        room_id: &RoomId,
        user: &UserId,
        reason: Option<String>,
    ) -> Result<(), LeaveError> {
        let (rooms, room_id, user) = (self.clone(), room_id.to_owned(), user.to_owned());
        self.run(async move {
            let handle = rooms.find_now(&room_id).await.map_err(Failure::from)?;
            let handle = handle.ok_or(LeaveError::RoomNotFound)?;
            let mut guard = rooms.lock(&handle).await?;
            guard.settle().await?;
            guard.depart_alone(&user, reason.as_deref()).await?;
            guard.commit().durable().await?;
            Ok(())
        })
        .await
    }

    /// Makes an event the membership of its user in a room that this server is not in. If it is by now, the room's history
    /// says what he is.
    async fn set_outside(
        &self,
        room_id: &RoomId,
        pdu: Pdu,
        shown: Option<Shown>,
    ) -> Result<(), Failure> {
        let handle = self.meet(room_id, pdu.version()).await?;
        if handle.version != pdu.version() {
            return Err(damaged(&handle));
        }
        let mut guard = self.lock(&handle).await?;
        guard.settle().await?;
        if self.is_resident_now(&handle).await? {
            return Ok(());
        }
        match guard.set_outside(pdu, shown).await {
            Ok(()) => {}
            Err(AppendError::Failure(failure)) => return Err(failure),
            Err(_) => return Err(damaged(&handle)),
        }
        guard.commit().durable().await?;
        Ok(())
    }

    /// Whether an event of a room that this server is not in matters all the same, if it is what it says. Only one thing
    /// does: that somebody who invited a user of ours takes it back, or that the server at which he knocked turns him away.
    /// What else happens in such a room cannot be judged, and is dropped.
    pub(super) async fn matters_outside(
        &self,
        handle: &RoomHandle,
        pdu: &Pdu,
    ) -> Result<bool, Failure> {
        let Some(target) = self.turned_away(pdu) else {
            return Ok(false);
        };
        let guard = self.lock(handle).await?;
        guard.settle().await?;
        guard.may_turn_away(&target, pdu).await
    }

    /// The user of ours whose waiting an event would end.
    fn turned_away(&self, pdu: &Pdu) -> Option<OwnedUserId> {
        let membership = pdu.content().get("membership").and_then(Value::as_str);
        let ends = matches!(membership, Some("leave" | "ban"));
        let target = pdu
            .state_key()
            .filter(|_| ends && pdu.event_type() == MEMBER)?;
        let target = UserId::parse(target).ok()?;
        self.is_local(&target).then_some(target)
    }

    /// Ends an invitation or a knock, if the event does that and may. Others are dropped.
    pub(super) async fn turn_away(
        &self,
        fetch: &dyn Fetch,
        handle: &RoomHandle,
        pdu: Pdu,
    ) -> Result<Outcome, Failure> {
        let dropped = |text: &str| Ok(Outcome::Dropped(text.to_owned()));
        let Some(target) = self.turned_away(&pdu) else {
            return dropped("this server is not in the room any more");
        };
        let pdu = match self.verify_whole(fetch, pdu).await? {
            Ok(pdu) => pdu,
            Err(text) => return dropped(&text),
        };
        let mut guard = self.lock(handle).await?;
        guard.settle().await?;
        if !guard.may_turn_away(&target, &pdu).await? {
            return dropped("this server is not in the room any more");
        }
        match guard.set_outside(pdu, None).await {
            Ok(()) => {}
            Err(AppendError::Failure(failure)) => return Err(failure),
            Err(refused) => return dropped(&refused.to_string()),
        }
        guard.commit().durable().await?;
        Ok(Outcome::Accepted)
    }

    /// Whether a server has signed an event, whoever else has to.
    pub(super) async fn is_signed_by(
        &self,
        fetch: &dyn Fetch,
        pdu: &Pdu,
        server: &ServerName,
    ) -> Result<bool, Failure> {
        let wanted = check::keys_of(pdu, server);
        let keys = fetch.keys(&wanted).await;
        let (pdu, server) = (pdu.clone(), server.to_owned());
        let verify = move || sign::verify_signer(&pdu, server.as_str(), &keys).is_ok();
        tokio::task::spawn_blocking(verify)
            .await
            .map_err(|_| Failure::CutShort)
    }
}

/// The room of an event of ours.
fn room_of(pdu: &Pdu) -> Result<ruma::OwnedRoomId, Failure> {
    ruma::OwnedRoomId::try_from(pdu.room_id()).map_err(|_| StoreError::Missing("rooms").into())
}

fn damaged(handle: &RoomHandle) -> Failure {
    Failure::Damaged {
        room: handle.num,
        what: "a membership that was built here is none",
    }
}

impl RoomGuard {
    /// Whether this server is not in the room as far as a user is concerned: it has nothing of the room, or what it has
    /// ends with a stay of the past. Then another server has to be asked to change his membership.
    pub(crate) async fn is_outside(&self, user: &UserId) -> Result<bool, Failure> {
        let Some(head) = &self.state().head else {
            return Ok(true);
        };
        let joined = head.joined;
        if self.rooms.is_resident_now(self.handle()).await? {
            return Ok(false);
        }
        // Somebody's join may be on its way to the disk.
        self.settle().await?;
        if self.rooms.is_resident_now(self.handle()).await? {
            return Ok(false);
        }
        // Where nobody at all is joined, nobody else can be asked, unless somebody let it be known that he came back.
        let relation = self.relation(user).await?;
        let invited = relation.is_some_and(|(_, row)| row.place == Place::NOWHERE);
        Ok(joined > 0 || invited)
    }

    /// Ends an invitation or a knock that only this server still knows of. Nothing, if there is none. The guard must be
    /// settled.
    pub(crate) async fn depart_alone(
        &mut self,
        user: &UserId,
        reason: Option<&str>,
    ) -> Result<(), LeaveError> {
        let Some((_, member)) = self.waits(user).await? else {
            return Err(LeaveError::NotInRoom);
        };
        let version = self.handle().version;
        let builder = EventBuilder {
            room_id: Some(self.handle().room.room_id.clone()),
            sender: user.to_string(),
            event_type: MEMBER.to_owned(),
            state_key: Some(user.to_string()),
            content: content(Stored::Leave, None, reason),
            redacts: None,
            prev_events: vec![EventRef::from(&member.pdu)],
            auth_events: vec![EventRef::from(&member.pdu)],
            depth: member
                .pdu
                .depth()
                .saturating_add(1)
                .min(version.rules().max_depth),
            origin_server_ts: self.rooms.0.clock.now(),
        };
        let leave = builder
            .sign(version, &self.rooms.0.signer)
            .map_err(AppendError::from)?;
        self.set_outside(leave, None).await?;
        Ok(())
    }

    /// The invitation or the knock of a user who waits outside the room, with his relation to it. The guard must be settled.
    pub(crate) async fn waits(
        &self,
        user: &UserId,
    ) -> Result<Option<((UserNum, UserRoom), Arc<Event>)>, Failure> {
        let relation = self.relation(user).await?;
        let relation =
            relation.filter(|(_, row)| matches!(row.membership, Stored::Invite | Stored::Knock));
        let Some(relation) = relation else {
            return Ok(None);
        };
        let (rooms, room, num) = (self.rooms.clone(), self.num(), relation.1.event);
        let read = move |view: &View| rooms.event(view, room, num);
        let member = self.rooms.0.store.read(read).await?;
        Ok(member.map(|member| (relation, member)))
    }

    /// Whether an event that ends the waiting of a user may do so: it is by the user who invited him, or of the server that
    /// took his knock. Whether others have the power cannot be told from outside.
    async fn may_turn_away(&self, user: &UserId, pdu: &Pdu) -> Result<bool, Failure> {
        let Some(((num, row), member)) = self.waits(user).await? else {
            return Ok(false);
        };
        if self.rooms.is_resident_now(self.handle()).await? {
            return Ok(false);
        }
        if row.membership == Stored::Invite {
            return Ok(member.pdu.sender() == pdu.sender());
        }
        let room = self.num();
        let read = move |view: &View| view.get::<StrippedStates>(&(num, room));
        let via = match self.rooms.0.store.read(read).await? {
            Some(Shown::Raw { via, .. }) => via,
            _ => Vec::new(),
        };
        let sender = UserId::parse(pdu.sender()).ok();
        Ok(sender.is_some_and(|user| {
            via.iter()
                .any(|server| user.server_name() == server.as_str())
        }))
    }
}
