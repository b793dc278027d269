//! `GET /_matrix/federation/v1/timestamp_to_event/{roomId}`
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1timestamp_to_eventroomid>

use axum::extract::State;
use myelin_federation::Federation;
use myelin_types::Millis;
use ruma::{
    MilliSecondsSinceUnixEpoch, UInt,
    api::federation::event::get_event_by_timestamp::v1::{Request as Operation, Response},
};

use crate::{
    error::{Refusal, Result},
    extract::{Reply, Request},
    reads::refuse,
};

/// The event of a room that is nearest to a time, on the side of it that the caller names.
pub(crate) async fn get(
    State(federation): State<Federation>,
    request: Request<Operation>,
) -> Result<Reply<Response>> {
    let Request { body, origin } = request;
    let found = federation
        .rooms()
        .serve_timestamp(origin, &body.room_id, Millis(body.ts.0.into()), body.dir)
        .await
        .map_err(refuse)?;
    let sent = MilliSecondsSinceUnixEpoch(UInt::new_saturating(found.origin_server_ts.0));
    let event_id = found.event_id.try_into().map_err(Refusal::internal)?;
    Ok(Reply(Response::new(event_id, sent)))
}
