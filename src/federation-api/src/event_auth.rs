//! `GET /_matrix/federation/v1/event_auth/{roomId}/{eventId}`
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1event_authroomideventid>

use axum::extract::State;
use myelin_federation::Federation;
use ruma::api::federation::authorization::get_event_authorization::v1::{
    Request as Operation, Response,
};

use crate::{
    error::Result,
    extract::{Reply, Request},
    reads::{refuse, texts},
};

/// The events that allow an event, and those that allow these.
pub(crate) async fn get(
    State(federation): State<Federation>,
    request: Request<Operation>,
) -> Result<Reply<Response>> {
    let Request { body, origin } = request;
    let chain = federation
        .rooms()
        .serve_event_auth(origin, &body.room_id, body.event_id)
        .await
        .map_err(refuse)?;
    let chain = texts(chain.iter().map(|event| &event.pdu))?;
    Ok(Reply(Response::new(chain)))
}
