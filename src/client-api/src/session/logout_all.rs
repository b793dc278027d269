//! `POST /_matrix/client/v3/logout/all`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3logoutall>

use axum::extract::State;
use myelin_accounts::Accounts;
use ruma::api::client::session::logout_all::v3::{Request as Operation, Response};

use super::logout::refuse;
use crate::{
    error::Result,
    extract::{Reply, Request},
};

/// Ends all of the caller's sessions, and deletes their devices.
pub(crate) async fn logout(
    State(accounts): State<Accounts>,
    request: Request<Operation>,
) -> Result<Reply<Response>> {
    accounts
        .logout_all(request.caller.user)
        .await
        .map_err(refuse)?;
    Ok(Reply(Response::new()))
}
