//! `GET /_matrix/client/v3/user/{userId}/filter/{filterId}`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3useruseridfilterfilterid>

use axum::{Json, extract::State};
use myelin_accounts::Accounts;
use myelin_rooms::Rooms;
use ruma::{OwnedUserId, api::auth_scheme::AccessToken};
use serde_json::value::RawValue;

use crate::{
    error::{Refusal, Result},
    extract::Call,
};

/// Answers with a filter that the caller stored, as he stored it.
pub(crate) async fn get(
    State(rooms): State<Rooms>,
    State(accounts): State<Accounts>,
    call: Call<AccessToken>,
) -> Result<Json<Box<RawValue>>> {
    let user_id: OwnedUserId = call.id(0)?;
    if call.caller.user_id != user_id {
        return Err(Refusal::forbidden("This belongs to another user."));
    }
    let (user, id) = (call.caller.user, call.arg(1).to_owned());
    rooms
        .store()
        .read(move |view| accounts.filter(view, user, &id))
        .await
        .map_err(Refusal::internal)?
        .map(|filter| Json(filter.0))
        .ok_or_else(|| Refusal::not_found("There is no such filter."))
}
