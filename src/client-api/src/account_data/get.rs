//! `GET /_matrix/client/v3/user/{userId}/account_data/{type}` and
//! `GET /_matrix/client/v3/user/{userId}/rooms/{roomId}/account_data/{type}`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3useruseridaccount_datatype>

use axum::{Json, extract::State};
use myelin_accounts::{Accounts, Requester};
use myelin_rooms::Rooms;
use myelin_types::RoomNum;
use ruma::{
    OwnedRoomId, OwnedUserId,
    api::auth_scheme::AccessToken,
};
use serde_json::value::RawValue;

use super::{own, room};
use crate::{
    error::{Refusal, Result},
    extract::Call,
};

/// Answers with global account data of the caller.
pub(crate) async fn global(
    State(rooms): State<Rooms>,
    State(accounts): State<Accounts>,
    call: Call<AccessToken>,
) -> Result<Json<Box<RawValue>>> {
    let user_id: OwnedUserId = call.id(0)?;
    own(&call.caller, &user_id)?;
    get(&rooms, accounts, &call.caller, RoomNum::NONE, call.arg(1)).await
}

/// Answers with the caller's account data for a room.
pub(crate) async fn of_room(
    State(rooms): State<Rooms>,
    State(accounts): State<Accounts>,
    call: Call<AccessToken>,
) -> Result<Json<Box<RawValue>>> {
    let user_id: OwnedUserId = call.id(0)?;
    let room_id: OwnedRoomId = call.id(1)?;
    own(&call.caller, &user_id)?;
    let room = room(&rooms, room_id).await?;
    get(&rooms, accounts, &call.caller, room, call.arg(2)).await
}

async fn get(
    rooms: &Rooms,
    accounts: Accounts,
    caller: &Requester,
    room: RoomNum,
    kind: &str,
) -> Result<Json<Box<RawValue>>> {
    let (user, kind) = (caller.user, kind.to_owned());
    rooms
        .store()
        .read(move |view| accounts.account_data(view, user, room, &kind))
        .await
        .map_err(Refusal::internal)?
        .map(|data| Json(data.0))
        .ok_or_else(|| Refusal::not_found("There is no such account data."))
}
