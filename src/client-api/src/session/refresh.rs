//! `POST /_matrix/client/v3/refresh`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3refresh>

use axum::extract::State;
use myelin_accounts::{Accounts, RefreshError, Secret};
use ruma::api::client::session::refresh_token::v3::{Request as Operation, Response};

use crate::{
    error::{Refusal, Result},
    extract::{Reply, Request},
};

fn refuse(error: RefreshError) -> Refusal {
    match error {
        RefreshError::Unknown => Refusal::unknown_token(false),
        RefreshError::Failed(cause) => Refusal::internal(cause),
    }
}

/// Gives out the next pair of tokens.
pub(crate) async fn refresh(
    State(accounts): State<Accounts>,
    request: Request<Operation>,
) -> Result<Reply<Response>> {
    let pair = accounts
        .refresh(&Secret::new(request.body.refresh_token))
        .await
        .map_err(refuse)?;
    let mut response = Response::new(pair.access_token.into_exposed());
    response.refresh_token = Some(pair.refresh_token.into_exposed());
    response.expires_in_ms = Some(pair.expires_in);
    Ok(Reply(response))
}
