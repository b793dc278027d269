//! `POST /_matrix/federation/v1/get_missing_events/{roomId}`
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#post_matrixfederationv1get_missing_eventsroomid>

use axum::extract::State;
use myelin_federation::Federation;
use myelin_rooms::remote::MissingEvents;
use ruma::api::federation::event::get_missing_events::v1::{Request as Operation, Response};

use crate::{
    error::Result,
    extract::{Reply, Request},
    reads::{refuse, texts},
};

/// Events that the calling server lacks between those it has and those it got.
pub(crate) async fn post(
    State(federation): State<Federation>,
    request: Request<Operation>,
) -> Result<Reply<Response>> {
    let Request { body, origin } = request;
    let wanted = MissingEvents {
        earliest: body.earliest_events,
        latest: body.latest_events,
        limit: u32::try_from(u64::from(body.limit)).unwrap_or(u32::MAX),
        min_depth: i64::from(body.min_depth),
    };
    let events = federation
        .rooms()
        .serve_missing_events(origin, &body.room_id, wanted)
        .await
        .map_err(refuse)?;
    Ok(Reply(Response::new(texts(&events)?)))
}
