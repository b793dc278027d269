//! `DELETE /_matrix/client/v3/profile/{userId}/{keyName}`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#delete_matrixclientv3profileuseridkeyname>

use axum::{Json, extract::State};
use myelin_accounts::Accounts;
use myelin_rooms::Rooms;
use ruma::{OwnedUserId, api::auth_scheme::AccessToken};
use serde_json::{Map, Value};

use super::{own_profile, refuse, tell_rooms};
use crate::{error::Result, extract::Call};

/// Removes one field of the caller's profile.
pub(crate) async fn delete(
    State(rooms): State<Rooms>,
    State(accounts): State<Accounts>,
    call: Call<AccessToken>,
) -> Result<Json<Map<String, Value>>> {
    let user_id: OwnedUserId = call.id(0)?;
    own_profile(&call.caller.user_id, &user_id)?;
    let changed = accounts
        .delete_profile_field(call.caller.user, call.arg(1))
        .await
        .map_err(refuse)?;
    tell_rooms(&rooms, &user_id, changed).await?;
    Ok(Json(Map::new()))
}
