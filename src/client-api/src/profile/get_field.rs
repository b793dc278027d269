//! `GET /_matrix/client/v3/profile/{userId}/{keyName}`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3profileuseridkeyname>

use axum::{Json, extract::State};
use myelin_accounts::Accounts;
use myelin_rooms::Rooms;
use ruma::{OwnedUserId, api::auth_scheme::NoAuthentication};
use serde_json::{Map, Value};

use super::find;
use crate::{
    error::{Refusal, Result},
    extract::Call,
};

/// Answers with one field of a user's profile.
pub(crate) async fn get(
    State(rooms): State<Rooms>,
    State(accounts): State<Accounts>,
    call: Call<NoAuthentication>,
) -> Result<Json<Map<String, Value>>> {
    let user_id: OwnedUserId = call.id(0)?;
    let mut profile = find(&rooms, &accounts, &user_id).await?;
    let (key, value) = profile
        .fields
        .remove_entry(call.arg(1))
        .ok_or_else(|| Refusal::not_found("The profile has no such field."))?;
    Ok(Json(Map::from_iter([(key, value)])))
}
