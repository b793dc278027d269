//! Sending message and state events.

use myelin_data::rooms::{Aliases, SentBy};
use myelin_rules::Membership;
use myelin_store::StoreError;
use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId, UserId};
use serde_json::Value;
use thiserror::Error;

use crate::{
    AppendError, CanonicalAliasError, Failure, InviteError, JoinError, JsonObject, Redact,
    RedactError, Rooms, TransactionId,
    aliases::{CANONICAL_ALIAS, listed_aliases, parse_alias},
    error::{failures_append, lock_errors},
    membership::{MEMBER, event_id},
    pipeline::{Draft, RoomGuard},
    transaction::Begun,
};

/// A message event to send.
#[derive(Clone, Debug)]
pub struct SendMessage {
    /// To which room.
    pub room_id: OwnedRoomId,
    /// By whom.
    pub sender: OwnedUserId,
    /// Its type.
    pub event_type: String,
    /// Its content.
    pub content: JsonObject,
    /// The request, if it may be repeated.
    pub transaction: Option<TransactionId>,
}

/// A state event to send.
#[derive(Clone, Debug)]
pub struct SendState {
    /// To which room.
    pub room_id: OwnedRoomId,
    /// By whom.
    pub sender: OwnedUserId,
    /// Its type.
    pub event_type: String,
    /// Its state key.
    pub state_key: String,
    /// Its content.
    pub content: JsonObject,
}

/// Why an event was not sent.
#[derive(Clone, Debug, Error)]
pub enum SendError {
    /// The server does not know the room.
    #[error("the room is not known")]
    RoomNotFound,
    /// It is a canonical alias that the room cannot have.
    #[error(transparent)]
    CanonicalAlias(#[from] CanonicalAliasError),
    /// The content has a shape that its type does not allow (`M_BAD_JSON`).
    #[error("{0}")]
    BadContent(String),
    /// The event that a redaction names is not known (`M_NOT_FOUND`).
    #[error("the event to redact is not known")]
    RedactsUnknown,
    /// A membership event for a user of another server, which this server cannot reach.
    #[error("{0} is a user of another server, which cannot be reached")]
    RemoteTarget(OwnedUserId),
    /// The event could not be appended.
    #[error(transparent)]
    Append(#[from] AppendError),
}

lock_errors!(SendError);
failures_append!(SendError);

impl From<StoreError> for SendError {
    fn from(error: StoreError) -> Self {
        Failure::from(error).into()
    }
}

impl From<JoinError> for SendError {
    fn from(error: JoinError) -> Self {
        match error {
            JoinError::RoomNotFound => SendError::RoomNotFound,
            // To join through other servers is what `join` is for.
            JoinError::NotResident | JoinError::UnableToAuthorise | JoinError::UnableToGrant => {
                SendError::Append(AppendError::Forbidden(error.to_string()))
            }
            JoinError::Append(error) => SendError::Append(error),
        }
    }
}

impl From<InviteError> for SendError {
    fn from(error: InviteError) -> Self {
        match error {
            InviteError::RoomNotFound => SendError::RoomNotFound,
            InviteError::RemoteTarget(user) => SendError::RemoteTarget(user),
            InviteError::Append(error) => SendError::Append(error),
        }
    }
}

impl From<RedactError> for SendError {
    fn from(error: RedactError) -> Self {
        match error {
            RedactError::RoomNotFound => SendError::RoomNotFound,
            RedactError::EventNotFound => SendError::RedactsUnknown,
            RedactError::NotAllowed => {
                SendError::Append(AppendError::Forbidden(RedactError::NotAllowed.to_string()))
            }
            RedactError::Append(error) => SendError::Append(error),
        }
    }
}

impl Rooms {
    /// Sends a message event (`PUT /rooms/{roomId}/send/{eventType}/{txnId}`). A redaction goes the way of
    /// [`Rooms::redact`].
    pub async fn send_message(&self, request: SendMessage) -> Result<OwnedEventId, SendError> {
        check_message(&request)?;
        if request.event_type == "m.room.redaction" {
            return self.send_redaction(request).await;
        }
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
                Some(transaction) => match rooms.begin_transaction(sender, transaction).await? {
                    Begun::Before(event_id) => return Ok(event_id),
                    Begun::Now(guard) => Some(guard),
                },
            };
            let mut guard = rooms.lock_known(&request.room_id).await?;
            let event = guard
                .append(Draft {
                    sender: request.sender,
                    event_type: request.event_type,
                    state_key: None,
                    content: request.content,
                    redacts: None,
                    sent_by,
                })
                .await?;
            if let Some(transaction) = &transaction {
                let now = rooms.0.clock.now();
                transaction.record(
                    guard.batch(),
                    now,
                    event.room,
                    event.num,
                    &event.header.event_id,
                );
            }
            guard.commit().durable().await?;
            drop(transaction);
            Ok(event_id(&event)?)
        })
        .await
    }

    async fn send_redaction(&self, request: SendMessage) -> Result<OwnedEventId, SendError> {
        let redacts = request.content.get("redacts").and_then(Value::as_str);
        let event_id = redacts
            .and_then(|redacts| OwnedEventId::try_from(redacts).ok())
            .ok_or_else(|| {
                SendError::BadContent("`redacts` is missing or no event id".to_owned())
            })?;
        let redaction = Redact {
            room_id: request.room_id,
            sender: request.sender,
            event_id,
            content: request.content,
            transaction: request.transaction,
        };
        Ok(self.redact(redaction).await?)
    }

    /// Sends a state event (`PUT /rooms/{roomId}/state/{eventType}/{stateKey}`). Membership events go the same ways as the
    /// operations on membership. State that is already so is not sent again: the id of the event that says so is answered.
    pub async fn send_state(&self, request: SendState) -> Result<OwnedEventId, SendError> {
        let rooms = self.clone();
        self.run(async move {
            let guard = rooms.lock_known(&request.room_id).await?;
            if request.event_type == MEMBER {
                return guard.send_member_state(request).await;
            }
            if request.event_type == CANONICAL_ALIAS && request.state_key.is_empty() {
                guard.check_aliases(&request.content).await?;
            }
            let sent = guard
                .send_state(
                    &request.sender,
                    &request.event_type,
                    &request.state_key,
                    request.content,
                )
                .await?;
            Ok(sent.durable().await?)
        })
        .await
    }
}

/// What the specification asks servers to refuse of `m.room.message` (instant messaging, server behaviour).
fn check_message(request: &SendMessage) -> Result<(), SendError> {
    if request.event_type != "m.room.message" {
        return Ok(());
    }
    for key in ["msgtype", "body"] {
        if !request.content.get(key).is_some_and(Value::is_string) {
            return Err(SendError::BadContent(format!("`{key}` must be a string")));
        }
    }
    Ok(())
}

impl RoomGuard {
    /// A membership event that was sent as state.
    async fn send_member_state(self, request: SendState) -> Result<OwnedEventId, SendError> {
        let membership = request
            .content
            .get("membership")
            .and_then(Value::as_str)
            .and_then(Membership::from_value)
            .ok_or_else(|| {
                SendError::BadContent("`membership` is missing or unknown".to_owned())
            })?;
        let target = UserId::parse(request.state_key.as_str())
            .map_err(|_| SendError::BadContent("the state key is no user id".to_owned()))?;
        match membership {
            Membership::Invite => Ok(self
                .invite(&request.sender, &target, request.content)
                .await?),
            Membership::Join if request.sender == target => {
                Ok(self.join(&target, request.content).await?)
            }
            _ => {
                let sent = self
                    .send_member(&request.sender, &target, request.content)
                    .await?;
                Ok(sent.durable().await?)
            }
        }
    }

    /// Whether the aliases that a new `m.room.canonical_alias` adds are well-formed and point to this room.
    async fn check_aliases(&self, content: &JsonObject) -> Result<(), SendError> {
        let before = self.state().kept_event(CANONICAL_ALIAS);
        let known = match before {
            Some(event) => listed_aliases(event.pdu.content()).unwrap_or_default(),
            None => Vec::new(),
        };
        let mut added = Vec::new();
        for text in listed_aliases(content)? {
            let alias = parse_alias(text)?;
            if !known.contains(&text) {
                added.push(alias);
            }
        }
        let (room, names) = (self.num(), added.clone());
        let rows = self
            .rooms
            .0
            .store
            .read(move |view| {
                let keys: Vec<String> = names.iter().map(ToString::to_string).collect();
                view.multi_get::<Aliases>(&keys)
            })
            .await?;
        for (alias, row) in added.into_iter().zip(rows) {
            if row.is_none_or(|row| row.room != room) {
                return Err(CanonicalAliasError::BadAlias(alias).into());
            }
        }
        Ok(())
    }
}
