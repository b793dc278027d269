//! Invitations of users of other servers, and of ours by others.

use std::sync::Arc;

use http::Method;
use myelin_rooms::{
    Invite, InviteError as LocalError, JsonObject,
    remote::{
        CompleteInviteError, DrawnInvite, InviteDraft, ReceiveInvite,
        ReceiveInviteError as Unacceptable,
    },
};
use myelin_rules::{Pdu, RoomVersion};
use myelin_store::{StoreError, View};
use ruma::{OwnedEventId, OwnedUserId, ServerName, UserId};
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};
use thiserror::Error;
use tracing::Instrument;

use super::handshake::TIMEOUT;
use crate::{Federation, RequestError, chain, client::Call};

/// The greatest answer, in bytes: an event, with what servers add to it.
const ANSWER_LIMIT: usize = 256 << 10;

/// Why somebody was not invited.
#[derive(Debug, Error)]
pub enum InviteError {
    /// By what this server knows.
    #[error(transparent)]
    Local(#[from] LocalError),
    /// The user wants no invitations (`M_INVITE_BLOCKED`).
    #[error("the user does not accept invitations")]
    Blocked,
    /// The user's server refuses it, and says why (`M_FORBIDDEN`).
    #[error("the user's server does not accept the invitation: {0}")]
    Refused(String),
    /// The user's server does not support the room's version (`M_UNSUPPORTED_ROOM_VERSION`).
    #[error("the user's server does not support room version {0}")]
    IncompatibleVersion(RoomVersion),
    /// The user's server cannot be reached, or does not answer as it should (502).
    #[error("the user's server did not sign the invitation: {0}")]
    NoAnswer(String),
}

/// Why an invitation of another server was refused.
#[derive(Debug, Error)]
pub enum ReceiveInviteError {
    /// The room has a version that this server does not support (`M_INCOMPATIBLE_ROOM_VERSION`).
    #[error("this server does not support room version {0:?}")]
    IncompatibleVersion(String),
    /// There is no such user here, or not any more (`M_FORBIDDEN`).
    #[error("there is no such user")]
    NoSuchUser,
    /// The user wants no invitations (`M_INVITE_BLOCKED`).
    #[error("the user does not accept invitations")]
    Blocked,
    /// By the checks of rooms.
    #[error(transparent)]
    Invite(#[from] Unacceptable),
}

impl From<StoreError> for ReceiveInviteError {
    fn from(error: StoreError) -> Self {
        Self::Invite(Unacceptable::Failure(error.into()))
    }
}

/// The answer to version 2 of the endpoint; version 1 has it in a list, after a number.
#[derive(Deserialize)]
struct Signed {
    event: Box<RawValue>,
}

impl Federation {
    /// Invites a user (`POST /rooms/{roomId}/invite`). One of another server is invited when that server has signed the
    /// invitation. It completes even if nobody waits.
    pub async fn invite(&self, request: Invite) -> Result<OwnedEventId, InviteError> {
        let draft = InviteDraft::from(request);
        self.invite_with(draft).await
    }

    /// The same with another content of the membership event.
    pub async fn invite_with(&self, draft: InviteDraft) -> Result<OwnedEventId, InviteError> {
        if self.rooms().is_local(&draft.target) {
            let blocked = self.blocks_invitations(&draft.target).await;
            if blocked.map_err(|error| LocalError::from(myelin_rooms::Failure::from(error)))? {
                return Err(InviteError::Blocked);
            }
            return Ok(self.rooms().invite_with(draft).await?);
        }
        let federation = self.clone();
        let work = async move { federation.invite_elsewhere(draft).await };
        match self.0.tasks.spawn(work.in_current_span()).await {
            Ok(result) => result,
            Err(_) => Err(LocalError::from(myelin_rooms::Failure::CutShort).into()),
        }
    }

    async fn invite_elsewhere(&self, draft: InviteDraft) -> Result<OwnedEventId, InviteError> {
        let target = draft.target.clone();
        let server = target.server_name().to_owned();
        let drawn = self.rooms().draw_up_invite(draft).await?;
        let version = drawn.event.version();
        let answer = match self.ask_for_signature(&server, &drawn).await {
            Ok(answer) => answer,
            Err(error) => {
                tracing::debug!(%server, error = chain(&error), "invite a user of a server");
                return Err(refused(&error, target, version));
            }
        };
        let fetch = Arc::new(self.clone());
        let completed = self.rooms().complete_invite(fetch, drawn.event, answer);
        completed.await.map_err(|error| match error {
            CompleteInviteError::Answer(_) => InviteError::NoAnswer(error.to_string()),
            CompleteInviteError::Forbidden(text) => {
                LocalError::from(myelin_rooms::AppendError::Forbidden(text)).into()
            }
            CompleteInviteError::Failure(failure) => LocalError::from(failure).into(),
        })
    }

    async fn ask_for_signature(
        &self,
        server: &ServerName,
        drawn: &DrawnInvite,
    ) -> Result<Box<RawValue>, RequestError> {
        let event: JsonObject = object(&drawn.event)?;
        let told = drawn.told.iter().map(object);
        let told = Value::Array(
            told.map(|event| event.map(Value::Object))
                .collect::<Result<_, _>>()?,
        );
        let version = drawn.event.version();
        let body = json!({
            "room_version": version.as_str(),
            "event": &event,
            "invite_room_state": &told,
        });
        let old = matches!(version, RoomVersion::V1 | RoomVersion::V2);
        match self.put_invite(server, "v2", &drawn.event, &body).await {
            // Servers of old know only the first version of the endpoint, and those versions of rooms.
            Err(RequestError::Refused {
                status: 400 | 404 | 405,
                ..
            }) if old => {
                let mut body = Value::Object(event);
                body["unsigned"] = json!({ "invite_room_state": told });
                let answer = self.put_invite(server, "v1", &drawn.event, &body).await?;
                let (_, signed): (u16, Signed) =
                    serde_json::from_slice(&answer).map_err(RequestError::Malformed)?;
                Ok(signed.event)
            }
            answer => {
                let signed: Signed =
                    serde_json::from_slice(&answer?).map_err(RequestError::Malformed)?;
                Ok(signed.event)
            }
        }
    }

    async fn put_invite(
        &self,
        server: &ServerName,
        version: &str,
        event: &Pdu,
        body: &Value,
    ) -> Result<bytes::Bytes, RequestError> {
        let call = Call {
            method: &Method::PUT,
            path: &[
                "_matrix",
                "federation",
                version,
                "invite",
                event.room_id(),
                event.event_id(),
            ],
            query: &[],
            content: Some(body),
            signed: true,
            limit: ANSWER_LIMIT,
            timeout: TIMEOUT,
        };
        self.0.client.send(server, call).await
    }

    /// Takes an invitation of one of our users (`PUT /_matrix/federation/v2/invite/{roomId}/{eventId}`). Answers it with our
    /// signature.
    pub async fn receive_invite(&self, request: ReceiveInvite) -> Result<Pdu, ReceiveInviteError> {
        if let Some(user) = myelin_rooms::Rooms::invited_user(request.version, &request.event)
            && self.rooms().is_local(&user)
        {
            if !self.is_active(&user).await? {
                return Err(ReceiveInviteError::NoSuchUser);
            }
            if self.blocks_invitations(&user).await? {
                return Err(ReceiveInviteError::Blocked);
            }
        }
        let fetch = Arc::new(self.clone());
        Ok(self.rooms().receive_invite(fetch, request).await?)
    }

    /// Whether a user has an account here that was not ended.
    async fn is_active(&self, user: &UserId) -> Result<bool, StoreError> {
        let (accounts, user) = (self.accounts().clone(), user.to_owned());
        let read = move |view: &View| {
            let account = accounts.find_local_user(view, &user)?;
            Ok(account.is_some_and(|(_, account)| !account.deactivated))
        };
        self.rooms().store().read(read).await
    }

    /// Whether a user of ours wants no invitations.
    pub async fn blocks_invitations(&self, user: &UserId) -> Result<bool, StoreError> {
        let (accounts, user) = (self.accounts().clone(), user.to_owned());
        let read = move |view: &View| {
            let Some((user, _)) = accounts.find_local_user(view, &user)? else {
                return Ok(false);
            };
            accounts.blocks_invitations(view, user)
        };
        self.rooms().store().read(read).await
    }
}

fn object(event: &Pdu) -> Result<JsonObject, RequestError> {
    serde_json::from_str(event.json()).map_err(RequestError::Malformed)
}

/// What comes of a refusal of the other server. What it objects to in our request is no business of the client's.
fn refused(error: &RequestError, target: OwnedUserId, version: RoomVersion) -> InviteError {
    match error {
        RequestError::Disabled => LocalError::RemoteTarget(target).into(),
        RequestError::Refused {
            status, errcode, ..
        } => match (*status, errcode.as_str()) {
            (400, "M_INCOMPATIBLE_ROOM_VERSION") => InviteError::IncompatibleVersion(version),
            (403, "M_INVITE_BLOCKED") => InviteError::Blocked,
            (403, _) => InviteError::Refused(
                error.said("The user's server does not accept the invitation."),
            ),
            _ => InviteError::NoAnswer(chain(error)),
        },
        _ => InviteError::NoAnswer(chain(error)),
    }
}
