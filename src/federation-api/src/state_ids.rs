//! `GET /_matrix/federation/v1/state_ids/{roomId}`
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1state_idsroomid>

use std::sync::Arc;

use axum::extract::State;
use myelin_federation::Federation;
use myelin_rooms::Event;
use ruma::{
    OwnedEventId,
    api::federation::event::get_room_state_ids::v1::{Request as Operation, Response},
};

use crate::{
    error::{Refusal, Result},
    extract::{Reply, Request},
    reads::refuse,
};

/// The state before an event, by ids.
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
    let response = Response::new(ids(&before.auth_chain)?, ids(&before.state)?);
    Ok(Reply(response))
}

fn ids(events: &[Arc<Event>]) -> Result<Vec<OwnedEventId>> {
    let ids = events
        .iter()
        .map(|event| OwnedEventId::try_from(event.pdu.event_id()));
    ids.collect::<std::result::Result<_, _>>()
        .map_err(Refusal::internal)
}
