//! `GET /_matrix/client/v1/register/m.login.registration_token/validity`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1registermloginregistration_tokenvalidity>

use axum::extract::State;
use myelin_accounts::{Accounts, RegisterError, Secret};
use ruma::api::client::account::check_registration_token_validity::v1::{
    Request as Operation, Response,
};

use crate::{
    error::{Refusal, Result},
    extract::{Reply, Request},
};

fn refuse(error: RegisterError) -> Refusal {
    match error {
        RegisterError::Closed => Refusal::forbidden("Registration is closed on this server."),
        other => Refusal::internal(other),
    }
}

/// Answers whether a registration token would let somebody register now.
pub(crate) async fn get(
    State(accounts): State<Accounts>,
    request: Request<Operation>,
) -> Result<Reply<Response>> {
    let valid = accounts
        .registration_token_valid(&Secret::new(request.body.token))
        .await
        .map_err(refuse)?;
    Ok(Reply(Response::new(valid)))
}
