//! `PUT /_matrix/federation/v1/send_leave/{roomId}/{eventId}`
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv1send_leaveroomideventid>
//!
//! Deprecated: the answer is a list of the status and an empty object. Tested with version 2.

use axum::{Json, extract::State};
use myelin_federation::Federation;
use ruma::api::{
    federation::{
        authentication::ServerSignatures,
        membership::create_leave_event::v2::{Request as Second, Response},
    },
    metadata,
};
use serde::Serialize;

use crate::{
    error::Result,
    extract::{Request as Received, read_like},
    send_leave::accept,
};

metadata! {
    method: PUT,
    rate_limited: false,
    authentication: ServerSignatures,
    path: "/_matrix/federation/v1/send_leave/{room_id}/{event_id}",
}

read_like! {
    /// What is sent to version 2 of the endpoint, and means the same.
    Request(Second) => Response
}

/// An empty object.
#[derive(Serialize)]
pub(crate) struct Nothing {}

/// Takes in the leave of a user of the calling server.
pub(crate) async fn put(
    State(federation): State<Federation>,
    request: Received<Request>,
) -> Result<Json<(u16, Nothing)>> {
    let Received { body, origin, .. } = request;
    accept(&federation, body.0, origin).await?;
    Ok(Json((200, Nothing {})))
}
