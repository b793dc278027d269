//! `GET /_matrix/federation/v1/state/{roomId}`
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1stateroomid>

use axum::extract::State;
use myelin_federation::Federation;
use ruma::api::federation::event::get_room_state::v1::{Request as Operation, Response};

use crate::{
    error::Result,
    extract::{Reply, Request},
    reads::{refuse, texts},
};

/// The state before an event.
pub(crate) async fn get(
    State(federation): State<Federation>,
    request: Request<Operation>,
) -> Result<Reply<Response>> {
    let Request { body, origin } = request;
    let before = federation
        .rooms()
        .serve_state(origin, &body.room_id, body.event_id)
        .await
        .map_err(refuse)?;
    let auth_chain = texts(before.auth_chain.iter().map(|event| &event.pdu))?;
    let state = texts(before.state.iter().map(|event| &event.pdu))?;
    Ok(Reply(Response::new(auth_chain, state)))
}
