//! `PUT /_matrix/client/v3/profile/{userId}/{keyName}`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3profileuseridkeyname>

use axum::{Json, extract::State};
use myelin_accounts::Accounts;
use myelin_rooms::Rooms;
use ruma::{OwnedUserId, api::auth_scheme::AccessToken};
use serde_json::{Map, Value};

use super::{own_profile, refuse, tell_rooms};
use crate::{
    error::{Refusal, Result},
    extract::Call,
};

/// Sets one field of the caller's profile. A change of name or avatar is sent to all of his rooms.
pub(crate) async fn set(
    State(rooms): State<Rooms>,
    State(accounts): State<Accounts>,
    call: Call<AccessToken>,
) -> Result<Json<Map<String, Value>>> {
    let user_id: OwnedUserId = call.id(0)?;
    own_profile(&call.caller.user_id, &user_id)?;
    let key = call.arg(1);
    let value = call
        .json::<Map<String, Value>>()?
        .remove(key)
        .ok_or_else(|| Refusal::missing(format!("The body lacks {key}.")))?;
    let changed = accounts
        .set_profile_field(call.caller.user, key, value)
        .await
        .map_err(refuse)?;
    tell_rooms(&rooms, &user_id, changed).await?;
    Ok(Json(Map::new()))
}
