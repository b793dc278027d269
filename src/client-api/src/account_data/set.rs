//! `PUT /_matrix/client/v3/user/{userId}/account_data/{type}` and
//! `PUT /_matrix/client/v3/user/{userId}/rooms/{roomId}/account_data/{type}`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3useruseridaccount_datatype>

use axum::{Json, extract::State};
use http::StatusCode;
use myelin_accounts::{AccountDataError, Accounts};
use myelin_data::RawJson;
use myelin_rooms::Rooms;
use myelin_types::RoomNum;
use ruma::{
    OwnedRoomId, OwnedUserId,
    api::{auth_scheme::AccessToken, error::ErrorKind},
};
use serde_json::{Map, Value, value::RawValue};

use super::{own, room};
use crate::{
    error::{Refusal, Result},
    extract::Call,
};

fn refuse(error: AccountDataError) -> Refusal {
    match error {
        AccountDataError::NotAnObject => {
            Refusal::bad_request(ErrorKind::BadJson, "Account data is an object.")
        }
        AccountDataError::InvalidType => Refusal::invalid("The type cannot be kept."),
        AccountDataError::ServerManaged(kind) => Refusal::new(
            StatusCode::METHOD_NOT_ALLOWED,
            ErrorKind::BadJson,
            format!("{kind} is changed through an endpoint of its own."),
        ),
        AccountDataError::Failed(cause) => Refusal::internal(cause),
    }
}

/// Sets global account data of the caller.
pub(crate) async fn global(
    State(accounts): State<Accounts>,
    call: Call<AccessToken>,
) -> Result<Json<Map<String, Value>>> {
    let user_id: OwnedUserId = call.id(0)?;
    own(&call.caller, &user_id)?;
    set(&accounts, &call, RoomNum::NONE, call.arg(1)).await
}

/// Sets the caller's account data for a room.
pub(crate) async fn of_room(
    State(rooms): State<Rooms>,
    State(accounts): State<Accounts>,
    call: Call<AccessToken>,
) -> Result<Json<Map<String, Value>>> {
    let user_id: OwnedUserId = call.id(0)?;
    let room_id: OwnedRoomId = call.id(1)?;
    own(&call.caller, &user_id)?;
    let room = room(&rooms, room_id).await?;
    set(&accounts, &call, room, call.arg(2)).await
}

async fn set(
    accounts: &Accounts,
    call: &Call<AccessToken>,
    room: RoomNum,
    kind: &str,
) -> Result<Json<Map<String, Value>>> {
    let content = RawJson(call.json::<Box<RawValue>>()?);
    accounts
        .set_account_data(call.caller.user, room, kind, content)
        .await
        .map_err(refuse)?;
    Ok(Json(Map::new()))
}
