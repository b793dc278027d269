//! `GET /_matrix/client/v3/user/{userId}/rooms/{roomId}/tags`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3useruseridroomsroomidtags>

use axum::{Json, extract::State};
use myelin_accounts::Accounts;
use myelin_rooms::Rooms;
use ruma::{OwnedRoomId, OwnedUserId, api::auth_scheme::AccessToken};
use serde_json::{Value, json};

use super::{own, room};
use crate::{
    error::{Refusal, Result},
    extract::Call,
};

/// Lists the caller's tags of a room.
pub(crate) async fn list(
    State(rooms): State<Rooms>,
    State(accounts): State<Accounts>,
    call: Call<AccessToken>,
) -> Result<Json<Value>> {
    let user_id: OwnedUserId = call.id(0)?;
    let room_id: OwnedRoomId = call.id(1)?;
    own(&call.caller, &user_id)?;
    let room = room(&rooms, room_id).await?;
    let user = call.caller.user;
    let tags = rooms
        .store()
        .read(move |view| accounts.tags(view, user, room))
        .await
        .map_err(Refusal::internal)?;
    Ok(Json(json!({ "tags": tags })))
}
