//! `GET /_matrix/client/v3/register/available`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3registeravailable>

use axum::extract::State;
use myelin_accounts::Accounts;
use ruma::api::client::account::get_username_availability::v3::{Request as Operation, Response};

use super::register::refuse_name;
use crate::{
    error::Result,
    extract::{Reply, Request},
};

/// Answers whether a name could be registered now.
pub(crate) async fn get(
    State(accounts): State<Accounts>,
    request: Request<Operation>,
) -> Result<Reply<Response>> {
    accounts
        .check_username(&request.body.username)
        .await
        .map_err(refuse_name)?;
    Ok(Reply(Response::new(true)))
}
