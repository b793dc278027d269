//! Redaction: removing what an event says.

use std::sync::Arc;

use myelin_data::rooms::SentBy;
use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId, UserId};
use thiserror::Error;

use crate::{
    AppendError, Failure, JsonObject, Rooms, TransactionId,
    error::{failures_append, lock_errors},
    event::Event,
    membership::event_id,
    pipeline::{Draft, RoomGuard},
    transaction::Begun,
};

/// A redaction to send.
#[derive(Clone, Debug)]
pub struct Redact {
    /// In which room.
    pub room_id: OwnedRoomId,
    /// By whom.
    pub sender: OwnedUserId,
    /// Which event is redacted.
    pub event_id: OwnedEventId,
    /// What else the redaction event contains; `reason` mostly. `redacts` in it is overwritten.
    pub content: JsonObject,
    /// The request, if it may be repeated.
    pub transaction: Option<TransactionId>,
}

/// Why an event was not redacted.
#[derive(Clone, Debug, Error)]
pub enum RedactError {
    /// The server does not know the room.
    #[error("the room is not known")]
    RoomNotFound,
    /// The room has no such event that is known here, and the sender may redact only his own (`M_NOT_FOUND`).
    #[error("the event is not known")]
    EventNotFound,
    /// The event is another user's and the sender has too little power, or it cannot be redacted (`M_FORBIDDEN`).
    #[error("the sender may not redact this event")]
    NotAllowed,
    /// The redaction could not be appended.
    #[error(transparent)]
    Append(#[from] AppendError),
}

lock_errors!(RedactError);
failures_append!(RedactError);

impl Rooms {
    /// Redacts an event (`PUT /rooms/{roomId}/redact/{eventId}/{txnId}`): the stored event is pruned in the batch that
    /// appends the redaction. One that is not known here is redacted when it comes.
    pub async fn redact(&self, request: Redact) -> Result<OwnedEventId, RedactError> {
        let rooms = self.clone();
        self.run(async move {
            let sender = rooms
                .0
                .interner
                .user(&request.sender)
                .await
                .map_err(Failure::from)?;
            let sent_by = request.transaction.as_ref().map(SentBy::from);
            let transaction = match request.transaction {
                None => None,
                Some(transaction) => {
                    let begun = rooms.begin_transaction(sender, transaction).await;
                    match begun.map_err(Failure::from)? {
                        Begun::Before(event_id) => return Ok(event_id),
                        Begun::Now(guard) => Some(guard),
                    }
                }
            };
            let mut guard = rooms.lock_known(&request.room_id).await?;
            let mut target = guard.stored_event(&request.event_id).await?;
            if target.is_none() {
                // It may be on its way to the disk.
                guard.settle().await?;
                target = guard.stored_event(&request.event_id).await?;
            }
            match &target {
                Some(target) if !guard.may_redact(&request.sender, target) => {
                    return Err(RedactError::NotAllowed);
                }
                // Other servers may have it, and it may come here yet. Whose it is nobody can tell.
                None if !guard.may_redact_others(&request.sender) => {
                    return Err(RedactError::EventNotFound);
                }
                _ => {}
            }
            let mut content = request.content;
            content.remove("redacts");
            let redaction = guard
                .append(Draft {
                    sender: request.sender,
                    event_type: "m.room.redaction".to_owned(),
                    state_key: None,
                    content,
                    redacts: Some(request.event_id.to_string()),
                    sent_by,
                })
                .await?;
            match target {
                // An event that was redacted before stays the work of the first who did it.
                Some(target) if target.header.redacted_by.is_none() => {
                    let mut pruned = Event::clone(&target);
                    pruned.header.redacted_by = Some(redaction.num);
                    pruned.pdu = target.pdu.redacted();
                    guard.prune(pruned);
                }
                Some(_) => {}
                None => drop(guard.await_target(&redaction, &[]).await?),
            }
            if let Some(transaction) = &transaction {
                let now = rooms.0.clock.now();
                transaction.record(
                    guard.batch(),
                    now,
                    redaction.room,
                    redaction.num,
                    &redaction.header.event_id,
                );
            }
            guard.commit().durable().await?;
            drop(transaction);
            Ok(event_id(&redaction)?)
        })
        .await
    }
}

impl RoomGuard {
    /// A durable event of the room.
    async fn stored_event(&self, event_id: &OwnedEventId) -> Result<Option<Arc<Event>>, Failure> {
        let (rooms, room, event_id) = (self.rooms.clone(), self.num(), event_id.clone());
        let event = self
            .rooms
            .0
            .store
            .read(move |view| match rooms.event_num(view, room, &event_id)? {
                Some(num) => rooms.event(view, room, num),
                None => Ok(None),
            })
            .await?;
        Ok(event)
    }

    /// Whether a user of this server may redact an event: his own, or with the power to redact that of others. The
    /// room's create event, without which there is no room, and the server ACL, whose loss would open the room to
    /// everybody, stay.
    fn may_redact(&self, sender: &UserId, target: &Event) -> bool {
        if matches!(
            target.pdu.event_type(),
            "m.room.create" | "m.room.server_acl"
        ) && target.pdu.state_key().is_some()
        {
            return false;
        }
        target.pdu.sender() == sender.as_str() || self.may_redact_others(sender)
    }

    /// Whether a user has the power to redact what others sent.
    fn may_redact_others(&self, sender: &UserId) -> bool {
        self.state()
            .levels()
            .is_some_and(|levels| levels.user(sender.as_str()) >= levels.redact())
    }
}
