//! `GET /_matrix/federation/v1/event/{eventId}`
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1eventeventid>

use axum::extract::State;
use myelin_federation::Federation;
use ruma::api::federation::event::get_event::v1::{Request as Operation, Response};

use crate::{
    error::Result,
    extract::{Reply, Request},
    reads::{now, refuse, text},
};

/// One event of a room that the calling server is in.
pub(crate) async fn get(
    State(federation): State<Federation>,
    request: Request<Operation>,
) -> Result<Reply<Response>> {
    let Request { body, origin } = request;
    let event = federation
        .rooms()
        .serve_event(origin, body.event_id)
        .await
        .map_err(refuse)?;
    let here = federation.server_name().to_owned();
    Ok(Reply(Response::new(here, now(&federation), text(&event)?)))
}
