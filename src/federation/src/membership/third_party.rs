//! Invitations by e-mail address and the like, once an identity server says whose the address is. Spec: server-server API,
//! "Third-party invites".
//!
//! 1. The identity server tells the server of the now known user (`/3pid/onbind`).
//! 2. That server asks the one of whoever sent the invitation to redeem it (`/exchange_third_party_invite`).
//! 3. That one invites the user, with the identity server's word for it in the event, which the rules of the room check.

use http::Method;
use myelin_rooms::{Failure, JsonObject, remote::InviteDraft};
use ruma::{OwnedRoomId, OwnedServerName, OwnedUserId};
use serde_json::json;
use thiserror::Error;

use super::{InviteError, handshake::TIMEOUT};
use crate::{Federation, RequestError, chain, client::Call};

/// Most invitations that one binding redeems. Anybody may say that an address was bound, and each of them is a request to
/// another server.
pub const MOST_BOUND: usize = 20;
/// How many bindings are dealt with at once; further ones are refused.
pub(crate) const BINDINGS_AT_ONCE: usize = 4;
/// The greatest answer, in bytes: an empty object.
const ANSWER_LIMIT: usize = 64 << 10;

/// An invitation of somebody whose address was bound to a user.
#[derive(Clone, Debug)]
pub struct BoundInvite {
    /// To which room.
    pub room_id: OwnedRoomId,
    /// Who sent it.
    pub sender: OwnedUserId,
    /// Whom it is for.
    pub target: OwnedUserId,
    /// What the identity server signed: the user and the token of the invitation.
    pub signed: JsonObject,
}

/// Why an invitation was not redeemed.
#[derive(Debug, Error)]
pub enum ExchangeError {
    /// The room has no such invitation (`M_FORBIDDEN`).
    #[error("the room has no such invitation")]
    NoSuchInvite,
    /// Its sender is no user of this server, which therefore cannot invite in his name (`M_FORBIDDEN`).
    #[error("the invitation was not sent from this server")]
    NotOurs,
    /// It could not be sent.
    #[error(transparent)]
    Invite(#[from] InviteError),
}

impl From<Failure> for ExchangeError {
    fn from(failure: Failure) -> Self {
        Self::Invite(InviteError::Local(failure.into()))
    }
}

impl Federation {
    /// Redeems an invitation that a user of ours sent (`PUT /_matrix/federation/v1/exchange_third_party_invite/{roomId}`).
    pub async fn exchange_third_party_invite(
        &self,
        request: BoundInvite,
    ) -> Result<(), ExchangeError> {
        if !self.rooms().is_local(&request.sender) {
            return Err(ExchangeError::NotOurs);
        }
        let content = self.rooms().redeeming(&request.room_id, request.signed);
        let content = content.await?.ok_or(ExchangeError::NoSuchInvite)?;
        self.invite_with(InviteDraft {
            room_id: request.room_id,
            sender: request.sender,
            target: request.target,
            content,
        })
        .await?;
        Ok(())
    }

    /// Has invitations redeemed that somebody got before his address was known to be a user's of ours (`PUT
    /// /_matrix/federation/v1/3pid/onbind`), at most [`MOST_BOUND`]. That happens in the background; whether there is room
    /// for it is answered.
    pub fn redeem_invites(&self, invites: Vec<BoundInvite>) -> bool {
        let Ok(permit) = self.0.bindings.clone().try_acquire_owned() else {
            return false;
        };
        let federation = self.clone();
        self.0.tasks.spawn(async move {
            for invite in invites.into_iter().take(MOST_BOUND) {
                let room = invite.room_id.clone();
                if let Err(error) = federation.redeem(invite).await {
                    tracing::debug!(%room, error, "redeem an invitation by address");
                }
            }
            drop(permit);
        });
        true
    }

    async fn redeem(&self, invite: BoundInvite) -> Result<(), String> {
        if self.rooms().is_local(&invite.sender) {
            let exchanged = self.exchange_third_party_invite(invite).await;
            return exchanged.map_err(|error| chain(&error));
        }
        let server: OwnedServerName = invite.sender.server_name().to_owned();
        let sent = self.ask_to_exchange(&server, &invite).await;
        sent.map_err(|error| chain(&error))
    }

    async fn ask_to_exchange(
        &self,
        server: &ruma::ServerName,
        invite: &BoundInvite,
    ) -> Result<(), RequestError> {
        let body = json!({
            "type": "m.room.member",
            "room_id": invite.room_id,
            "sender": invite.sender,
            "state_key": invite.target,
            "content": {
                "membership": "invite",
                // The room says under which name he was invited; this server is not in it.
                "third_party_invite": { "display_name": "", "signed": invite.signed },
            },
        });
        let call = Call {
            method: &Method::PUT,
            path: &[
                "_matrix",
                "federation",
                "v1",
                "exchange_third_party_invite",
                invite.room_id.as_str(),
            ],
            query: &[],
            content: Some(&body),
            signed: true,
            limit: ANSWER_LIMIT,
            timeout: TIMEOUT,
        };
        self.0.client.send(server, call).await.map(drop)
    }
}
