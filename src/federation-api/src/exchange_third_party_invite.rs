//! `PUT /_matrix/federation/v1/exchange_third_party_invite/{roomId}`
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv1exchange_third_party_inviteroomid>

use axum::extract::State;
use http::StatusCode;
use myelin_federation::{BoundInvite, ExchangeError, Federation, InviteError};
use myelin_rooms::{AppendError, InviteError as LocalError, JsonObject};
use ruma::{
    api::{
        error::ErrorKind,
        federation::thirdparty::exchange_invite::v1::{Request as Operation, Response},
    },
    events::StateEventType,
};
use serde::Deserialize;

use crate::{
    error::{Refusal, Result},
    extract::{Reply, Request},
};

fn refuse(error: ExchangeError) -> Refusal {
    let message = error.to_string();
    match error {
        ExchangeError::NoSuchInvite
        | ExchangeError::NotOurs
        | ExchangeError::Invite(InviteError::Refused(_) | InviteError::IncompatibleVersion(_)) => {
            Refusal::forbidden(message)
        }
        ExchangeError::Invite(InviteError::Local(error)) => match error {
            LocalError::RoomNotFound => Refusal::no_such_room(),
            LocalError::Append(AppendError::Failure(failure)) => Refusal::internal(failure),
            LocalError::RemoteTarget(_) | LocalError::Append(_) => Refusal::forbidden(message),
        },
        ExchangeError::Invite(InviteError::Blocked) => {
            Refusal::new(StatusCode::FORBIDDEN, ErrorKind::InviteBlocked, message)
        }
        ExchangeError::Invite(InviteError::NoAnswer(_)) => {
            Refusal::new(StatusCode::BAD_GATEWAY, ErrorKind::Unknown, message)
        }
    }
}

/// The content of the event that is asked for. What it calls the user is what the room has, whatever is said here.
#[derive(Deserialize)]
struct Content {
    membership: String,
    third_party_invite: ThirdPartyInvite,
}

#[derive(Deserialize)]
struct ThirdPartyInvite {
    signed: JsonObject,
}

/// Invites a user whose address was invited by a user of this server.
pub(crate) async fn put(
    State(federation): State<Federation>,
    request: Request<Operation>,
) -> Result<Reply<Response>> {
    let Request { body, origin, .. } = request;
    let content: Content = serde_json::from_str(body.content.json().get())
        .map_err(|error| Refusal::invalid(format!("The content is malformed: {error}.")))?;
    if body.kind != StateEventType::RoomMember || content.membership != "invite" {
        return Err(Refusal::invalid("The event is no invitation."));
    }
    if body.state_key.server_name() != origin {
        return Err(Refusal::forbidden("The user is none of your server."));
    }
    let invite = BoundInvite {
        room_id: body.room_id,
        sender: body.sender,
        target: body.state_key,
        signed: content.third_party_invite.signed,
    };
    let exchanged = federation.exchange_third_party_invite(invite);
    exchanged.await.map_err(refuse)?;
    Ok(Reply(Response::new()))
}

#[cfg(test)]
mod tests {
    use http::Method;
    use serde_json::json;

    use crate::{
        outsiders::ALICE,
        testing::{CHARLIE, Here},
    };

    #[tokio::test]
    async fn only_what_the_room_was_told_of_is_redeemed() {
        let here = Here::new().await;
        let room = here.private_room().await;
        let path = format!("/_matrix/federation/v1/exchange_third_party_invite/{room}");
        let put = async |sender: &str, target: &str, membership: &str| {
            let signed = json!({ "mxid": target, "token": "abc", "signatures": {} });
            let body = json!({
                "type": "m.room.member", "room_id": room, "sender": sender, "state_key": target,
                "content": {
                    "membership": membership,
                    "third_party_invite": { "display_name": "c", "signed": signed },
                },
            });
            here.signed(Method::PUT, &path, Some(body)).await
        };
        put(ALICE, CHARLIE, "join")
            .await
            .refused(400, "M_INVALID_PARAM");
        put(ALICE, "@x:third.example", "invite")
            .await
            .refused(403, "M_FORBIDDEN");
        put("@x:third.example", CHARLIE, "invite")
            .await
            .refused(403, "M_FORBIDDEN");
        put(ALICE, CHARLIE, "invite")
            .await
            .refused(403, "M_FORBIDDEN");
        // The room knows the token now, and still not that it is Charlie's.
        let invite = json!({
            "display_name": "c...", "key_validity_url": "https://id.example/valid",
            "public_key": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        });
        here.set_state(&room, "m.room.third_party_invite", "abc", invite)
            .await;
        put(ALICE, CHARLIE, "invite")
            .await
            .refused(403, "M_FORBIDDEN");
        assert_eq!(here.membership(&room, CHARLIE), "leave");
    }
}
