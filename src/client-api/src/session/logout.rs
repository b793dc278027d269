//! `POST /_matrix/client/v3/logout`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3logout>

use axum::extract::State;
use myelin_accounts::{Accounts, LogoutError};
use ruma::api::client::session::logout::v3::{Request as Operation, Response};

use crate::{
    error::{Refusal, Result},
    extract::{Reply, Request},
};

pub(super) fn refuse(error: LogoutError) -> Refusal {
    match error {
        LogoutError::Failed(cause) => Refusal::internal(cause),
    }
}

/// Ends the session that asks, and deletes its device.
pub(crate) async fn logout(
    State(accounts): State<Accounts>,
    request: Request<Operation>,
) -> Result<Reply<Response>> {
    accounts
        .logout(request.caller.user, &request.caller.device_id)
        .await
        .map_err(refuse)?;
    Ok(Reply(Response::new()))
}
