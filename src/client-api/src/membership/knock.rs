//! `POST /_matrix/client/v3/knock/{roomIdOrAlias}`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3knockroomidoralias>

use axum::extract::State;
use myelin_accounts::Accounts;
use myelin_rooms::{Enter, KnockError, Rooms};
use ruma::api::client::knock::knock_room::v3::{Request as Operation, Response};

use super::resolve;
use crate::{
    error::{Refusal, Result},
    extract::{Reply, Request},
    shared::{no_such_room, profile, refuse_append},
};

fn refuse(error: KnockError) -> Refusal {
    match error {
        KnockError::RoomNotFound => no_such_room(),
        KnockError::Append(error) => refuse_append(error),
    }
}

/// Knocks on a room.
pub(crate) async fn knock(
    State(rooms): State<Rooms>,
    State(accounts): State<Accounts>,
    request: Request<Operation>,
) -> Result<Reply<Response>> {
    let Request { body, caller, .. } = request;
    let room_id = resolve(&rooms, &body.room_id_or_alias).await?;
    let profile = profile(&rooms, &accounts, &caller.user_id).await?;
    rooms
        .knock(Enter {
            room_id: room_id.clone(),
            user: caller.user_id,
            profile,
            reason: body.reason,
        })
        .await
        .map_err(refuse)?;
    Ok(Reply(Response::new(room_id)))
}
