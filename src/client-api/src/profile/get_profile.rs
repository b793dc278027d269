//! `GET /_matrix/client/v3/profile/{userId}`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3profileuserid>

use axum::{Json, extract::State};
use myelin_accounts::Accounts;
use myelin_rooms::Rooms;
use ruma::{OwnedUserId, api::auth_scheme::NoAuthentication};
use serde_json::{Map, Value};

use super::find;
use crate::{error::Result, extract::Call};

/// Answers with a user's profile.
pub(crate) async fn get(
    State(rooms): State<Rooms>,
    State(accounts): State<Accounts>,
    call: Call<NoAuthentication>,
) -> Result<Json<Map<String, Value>>> {
    let user_id: OwnedUserId = call.id(0)?;
    let profile = find(&rooms, &accounts, &user_id).await?;
    Ok(Json(profile.fields))
}
