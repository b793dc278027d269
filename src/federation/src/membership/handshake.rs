//! The two requests of a handshake: for the draft of a membership event, and with the event.

use std::time::Duration;

use http::Method;
use myelin_rules::{Pdu, RoomVersion};
use ruma::{RoomId, ServerName, UserId};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    Federation,
    client::{Call, RequestError},
};

/// The greatest draft, in bytes: an event has at most 64 KiB.
const DRAFT_LIMIT: usize = 256 << 10;
/// The greatest answer to a membership event: what is told of the room with a knock.
const ANSWER_LIMIT: usize = 4 << 20;
/// How long a server may take for a step. Whoever waits for it is a client, whose patience ends as well.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(20);

/// The answer to `make_join`, `make_leave` and `make_knock`.
#[derive(Debug, Deserialize)]
pub(crate) struct Draft {
    /// `room_version`; version 1 if there is none.
    #[serde(default = "first_version")]
    pub(crate) room_version: String,
    /// `event`: what is drafted.
    pub(crate) event: Box<RawValue>,
}

fn first_version() -> String {
    RoomVersion::V1.to_string()
}

impl Federation {
    /// `GET /_matrix/federation/v1/{operation}/{roomId}/{userId}`
    pub(crate) async fn ask_for_draft(
        &self,
        server: &ServerName,
        operation: &str,
        room: &RoomId,
        user: &UserId,
        versions: &[RoomVersion],
    ) -> Result<Draft, RequestError> {
        let versions: Vec<(&str, &str)> = versions
            .iter()
            .map(|version| ("ver", version.as_str()))
            .collect();
        let call = Call {
            method: &Method::GET,
            path: &[
                "_matrix",
                "federation",
                "v1",
                operation,
                room.as_str(),
                user.as_str(),
            ],
            query: &versions,
            content: None,
            signed: true,
            limit: DRAFT_LIMIT,
            timeout: TIMEOUT,
        };
        let answer = self.0.client.send(server, call).await?;
        serde_json::from_slice(&answer).map_err(RequestError::Malformed)
    }

    /// `PUT /_matrix/federation/{version}/{operation}/{roomId}/{eventId}` with an event.
    pub(crate) async fn hand_in(
        &self,
        server: &ServerName,
        version: &str,
        operation: &str,
        event: &Pdu,
    ) -> Result<bytes::Bytes, RequestError> {
        let content = serde_json::from_str(event.json()).map_err(RequestError::Malformed)?;
        let call = Call {
            method: &Method::PUT,
            path: &[
                "_matrix",
                "federation",
                version,
                operation,
                event.room_id(),
                event.event_id(),
            ],
            query: &[],
            content: Some(&content),
            signed: true,
            limit: ANSWER_LIMIT,
            timeout: TIMEOUT,
        };
        self.0.client.send(server, call).await
    }
}

/// Whether an error says that a server does not know the endpoint. Servers of old answer that without an error code.
pub(crate) fn is_unrecognised(error: &RequestError) -> bool {
    match error {
        RequestError::Refused {
            status, errcode, ..
        } => matches!(status, 404 | 405) && matches!(errcode.as_str(), "" | "M_UNRECOGNIZED"),
        _ => false,
    }
}
