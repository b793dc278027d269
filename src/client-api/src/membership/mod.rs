//! Who is in a room: inviting, joining, knocking, leaving, moderating, forgetting.

mod ban;
mod forget;
mod invite;
mod join;
mod joined_rooms;
mod kick;
mod knock;
mod leave;
mod unban;

use http::StatusCode;
use myelin_federation::{Federation, InviteError};
use myelin_rooms::{InviteError as LocalError, Moderate, ModerateError};
use ruma::{
    OwnedRoomId, OwnedServerName, RoomAliasId, RoomId, RoomOrAliasId,
    api::{
        client::{
            knock::knock_room,
            membership::{
                ban_user, forget_room, invite_user, join_room_by_id, join_room_by_id_or_alias,
                joined_rooms as joined_rooms_operation, kick_user, leave_room, unban_user,
            },
        },
        error::ErrorKind,
    },
};

use crate::{
    Limit,
    error::{Refusal, Result},
    routes::Routes,
    shared::{not_in_room, refuse_alias, refuse_append, remote_user},
};

/// The routes of this family.
pub(crate) fn routes(routes: Routes) -> Routes {
    routes
        .operation::<invite_user::v3::Request, _, _>(Limit::Invite, invite::invite)
        .operation::<join_room_by_id::v3::Request, _, _>(Limit::Join, join::join_by_id)
        .operation::<join_room_by_id_or_alias::v3::Request, _, _>(Limit::Join, join::join)
        .operation::<knock_room::v3::Request, _, _>(Limit::Join, knock::knock)
        .operation::<leave_room::v3::Request, _, _>(Limit::Send, leave::leave)
        .operation::<forget_room::v3::Request, _, _>(Limit::Send, forget::forget)
        .operation::<kick_user::v3::Request, _, _>(Limit::Send, kick::kick)
        .operation::<ban_user::v3::Request, _, _>(Limit::Send, ban::ban)
        .operation::<unban_user::v3::Request, _, _>(Limit::Send, unban::unban)
        .operation::<joined_rooms_operation::v3::Request, _, _>(Limit::Read, joined_rooms::list)
}

/// What invitations are refused with. What another server says goes on to the client, but for what it finds wrong with our
/// request, about which the client can do nothing.
pub(crate) fn refuse_invitation(error: InviteError) -> Refusal {
    let message = error.to_string();
    match error {
        InviteError::Local(LocalError::RoomNotFound) => not_in_room(),
        InviteError::Local(LocalError::RemoteTarget(user)) => remote_user(&user),
        InviteError::Local(LocalError::Append(error)) => refuse_append(error),
        InviteError::Blocked => {
            Refusal::new(StatusCode::FORBIDDEN, ErrorKind::InviteBlocked, message)
        }
        InviteError::Refused(_) => Refusal::forbidden(message),
        InviteError::IncompatibleVersion(_) => {
            Refusal::bad_request(ErrorKind::UnsupportedRoomVersion, message)
        }
        InviteError::NoAnswer(_) => {
            Refusal::new(StatusCode::BAD_GATEWAY, ErrorKind::Unknown, message)
        }
    }
}

/// What kicking, banning and lifting a ban are refused with.
fn refuse_moderation(error: ModerateError) -> Refusal {
    match error {
        ModerateError::RoomNotFound => not_in_room(),
        ModerateError::TargetNotInRoom => {
            Refusal::forbidden("That user's membership does not allow it.")
        }
        ModerateError::Append(error) => refuse_append(error),
    }
}

/// An act of `sender` on somebody's membership.
fn moderation(
    room_id: OwnedRoomId,
    sender: ruma::OwnedUserId,
    target: ruma::OwnedUserId,
    reason: Option<String>,
) -> Moderate {
    Moderate {
        room_id,
        sender,
        target,
        reason,
    }
}

/// The room that a client named by its id or by an alias, and for an alias servers that are likely to be in it.
async fn resolve(
    federation: &Federation,
    room: &RoomOrAliasId,
) -> Result<(OwnedRoomId, Vec<OwnedServerName>)> {
    if let Ok(room_id) = <&RoomId>::try_from(room) {
        return Ok((room_id.to_owned(), Vec::new()));
    }
    let alias = <&RoomAliasId>::try_from(room)
        .map_err(|_| Refusal::invalid("This is neither a room id nor an alias."))?;
    let found = federation
        .resolve_alias(alias)
        .await
        .map_err(refuse_alias)?;
    Ok((found.room_id, found.servers))
}
