//! `POST /_matrix/client/v3/rooms/{roomId}/invite`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidinvite>

use axum::extract::State;
use myelin_accounts::Accounts;
use myelin_rooms::{Invite, InviteError, Rooms};
use ruma::api::{
    client::membership::invite_user::v3::{
        InvitationRecipient, InviteUserId, Request as Operation, Response,
    },
    error::ErrorKind,
};

use crate::{
    error::{Refusal, Result},
    extract::{Reply, Request},
    shared::{not_in_room, profile, refuse_append, remote_user},
};

fn refuse(error: InviteError) -> Refusal {
    match error {
        InviteError::RoomNotFound => not_in_room(),
        InviteError::RemoteTarget(user) => remote_user(&user),
        InviteError::Append(error) => refuse_append(error),
    }
}

/// Invites a user.
pub(crate) async fn invite(
    State(rooms): State<Rooms>,
    State(accounts): State<Accounts>,
    request: Request<Operation>,
) -> Result<Reply<Response>> {
    let invitation = request.body;
    let InvitationRecipient::UserId(recipient) = invitation.recipient else {
        return Err(Refusal::bad_request(
            ErrorKind::ThreepidDenied,
            "This server does not invite by e-mail address or phone number.",
        ));
    };
    let InviteUserId {
        user_id: target,
        reason,
        ..
    } = recipient;
    let profile = profile(&rooms, &accounts, &target).await?;
    rooms
        .invite(Invite {
            room_id: invitation.room_id,
            sender: request.caller.user_id,
            target,
            profile,
            reason,
            is_direct: false,
        })
        .await
        .map_err(refuse)?;
    Ok(Reply(Response::new()))
}
