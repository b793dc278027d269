//! `GET /_matrix/federation/v1/backfill/{roomId}`
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1backfillroomid>

use axum::extract::State;
use myelin_federation::Federation;
use ruma::api::federation::backfill::get_backfill::v1::{Request as Operation, Response};

use crate::{
    error::Result,
    extract::{Reply, Request},
    reads::{now, refuse, texts},
};

/// Events and what came before them.
pub(crate) async fn get(
    State(federation): State<Federation>,
    request: Request<Operation>,
) -> Result<Reply<Response>> {
    let Request { body, origin } = request;
    let limit = usize::try_from(u64::from(body.limit)).unwrap_or(usize::MAX);
    let events = federation
        .rooms()
        .serve_backfill(origin, &body.room_id, body.v, limit)
        .await
        .map_err(refuse)?;
    let here = federation.server_name().to_owned();
    Ok(Reply(Response::new(
        here,
        now(&federation),
        texts(&events)?,
    )))
}
