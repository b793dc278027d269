//! `GET /.well-known/matrix/client`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#getwell-knownmatrixclient>

use std::sync::Arc;

use axum::extract::State;
use ruma::api::client::discovery::discover_homeserver::{
    HomeserverInfo, Request as Operation, Response,
};

use crate::{
    About,
    error::{Refusal, Result},
    extract::{Reply, Request},
};

/// Answers with the address that is configured, if one is.
pub(crate) async fn get(
    State(about): State<Arc<About>>,
    _: Request<Operation>,
) -> Result<Reply<Response>> {
    let base_url = about
        .client_base_url
        .as_ref()
        .ok_or_else(|| Refusal::not_found("This server does not say where it is."))?;
    Ok(Reply(Response::new(HomeserverInfo::new(
        base_url.to_string(),
    ))))
}
