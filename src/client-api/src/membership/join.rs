//! `POST /_matrix/client/v3/rooms/{roomId}/join` and `POST /_matrix/client/v3/join/{roomIdOrAlias}`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidjoin>

use axum::extract::State;
use myelin_accounts::{Accounts, Requester};
use myelin_rooms::{Enter, JoinError, Rooms};
use ruma::{
    OwnedRoomId,
    api::client::membership::{
        join_room_by_id::v3::{Request as ByIdOperation, Response as ByIdResponse},
        join_room_by_id_or_alias::v3::{Request as Operation, Response},
    },
};

use super::resolve;
use crate::{
    error::{Refusal, Result},
    extract::{Reply, Request},
    shared::{no_such_room, profile, refuse_append},
};

fn refuse(error: JoinError) -> Refusal {
    match error {
        JoinError::RoomNotFound => no_such_room(),
        JoinError::Append(error) => refuse_append(error),
    }
}

/// Joins the room of an id.
pub(crate) async fn join_by_id(
    State(rooms): State<Rooms>,
    State(accounts): State<Accounts>,
    request: Request<ByIdOperation>,
) -> Result<Reply<ByIdResponse>> {
    let Request { body, caller, .. } = request;
    let room_id = enter(&rooms, &accounts, caller, body.room_id, body.reason).await?;
    Ok(Reply(ByIdResponse::new(room_id)))
}

/// Joins the room of an id or alias.
pub(crate) async fn join(
    State(rooms): State<Rooms>,
    State(accounts): State<Accounts>,
    request: Request<Operation>,
) -> Result<Reply<Response>> {
    let Request { body, caller, .. } = request;
    let room_id = resolve(&rooms, &body.room_id_or_alias).await?;
    let room_id = enter(&rooms, &accounts, caller, room_id, body.reason).await?;
    Ok(Reply(Response::new(room_id)))
}

async fn enter(
    rooms: &Rooms,
    accounts: &Accounts,
    caller: Requester,
    room_id: OwnedRoomId,
    reason: Option<String>,
) -> Result<OwnedRoomId> {
    let profile = profile(rooms, accounts, &caller.user_id).await?;
    rooms
        .join(Enter {
            room_id: room_id.clone(),
            user: caller.user_id,
            profile,
            reason,
        })
        .await
        .map_err(refuse)?;
    Ok(room_id)
}
