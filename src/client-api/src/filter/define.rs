//! `POST /_matrix/client/v3/user/{userId}/filter`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3useruseridfilter>

use axum::{Json, extract::State};
use myelin_accounts::{Accounts, FilterError};
use ruma::{
    OwnedUserId,
    api::{auth_scheme::AccessToken, error::ErrorKind},
};
use serde_json::{Value, json};

use crate::{
    error::{Refusal, Result},
    extract::Call,
};

fn refuse(error: FilterError) -> Refusal {
    match error {
        FilterError::Invalid(what) => {
            Refusal::bad_request(ErrorKind::BadJson, format!("This is no filter: {what}."))
        }
        FilterError::TooLarge => Refusal::too_large("The filter is too large to be kept."),
        FilterError::TooMany => Refusal::bad_request(
            ErrorKind::Unknown,
            "You have as many filters as this server keeps for one user.",
        ),
        FilterError::Failed(cause) => Refusal::internal(cause),
    }
}

/// Stores a filter of the caller.
pub(crate) async fn define(
    State(accounts): State<Accounts>,
    call: Call<AccessToken>,
) -> Result<Json<Value>> {
    let user_id: OwnedUserId = call.id(0)?;
    if call.caller.user_id != user_id {
        return Err(Refusal::forbidden("You can store filters for yourself alone."));
    }
    let filter_id = accounts
        .define_filter(call.caller.user, &call.json()?)
        .await
        .map_err(refuse)?;
    Ok(Json(json!({ "filter_id": filter_id })))
}
