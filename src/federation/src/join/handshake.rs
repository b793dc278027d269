//! The two requests of a join: for a draft of the event, and with the event.

use std::time::Duration;

use http::Method;
use myelin_rooms::remote::JoinAnswer;
use myelin_rules::{Pdu, RoomVersion};
use ruma::{OwnedServerName, RoomId, ServerName, UserId};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::answer::{AnswerError, MOST_BYTES, Reader, SendJoinAnswer};
use crate::{
    Federation,
    client::{Call, RequestError},
};

/// The greatest draft, in bytes: an event has at most 64 KiB.
const DRAFT_LIMIT: usize = 256 << 10;
/// How long a server may take for a draft.
const DRAFT_TIMEOUT: Duration = Duration::from_secs(20);
/// How long it may take to let the user in, and to send the state of the room.
const JOIN_TIMEOUT: Duration = Duration::from_mins(5);

/// The answer to `make_join`.
#[derive(Debug, Deserialize)]
pub(super) struct Draft {
    /// `room_version`; version 1 if there is none.
    #[serde(default = "first_version")]
    pub(super) room_version: String,
    /// `event`: what is drafted.
    pub(super) event: Box<RawValue>,
}

fn first_version() -> String {
    RoomVersion::V1.to_string()
}

/// Why a server did not let somebody in.
#[derive(Debug, thiserror::Error)]
pub(super) enum SendJoinError {
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error(transparent)]
    Answer(#[from] AnswerError),
}

impl Federation {
    /// `GET /_matrix/federation/v1/make_join/{roomId}/{userId}`
    pub(super) async fn request_draft(
        &self,
        server: &ServerName,
        room: &RoomId,
        user: &UserId,
    ) -> Result<Draft, RequestError> {
        let versions: Vec<(&str, &str)> = RoomVersion::ALL
            .iter()
            .map(|version| ("ver", version.as_str()))
            .collect();
        let call = Call {
            method: &Method::GET,
            path: &[
                "_matrix",
                "federation",
                "v1",
                "make_join",
                room.as_str(),
                user.as_str(),
            ],
            query: &versions,
            content: None,
            signed: true,
            limit: DRAFT_LIMIT,
            timeout: DRAFT_TIMEOUT,
        };
        let answer = self.0.client.send(server, call).await?;
        serde_json::from_slice(&answer).map_err(RequestError::Malformed)
    }

    /// `PUT /_matrix/federation/v2/send_join/{roomId}/{eventId}`, or its first version where the server has no second.
    pub(super) async fn send_join(
        &self,
        server: &ServerName,
        room: &RoomId,
        join: &Pdu,
    ) -> Result<SendJoinAnswer, SendJoinError> {
        match self.send_join_by(server, room, join, "v2").await {
            Err(SendJoinError::Request(RequestError::Refused { status, errcode }))
                if is_unrecognised(status, &errcode) =>
            {
                self.send_join_by(server, room, join, "v1").await
            }
            answer => answer,
        }
    }

    async fn send_join_by(
        &self,
        server: &ServerName,
        room: &RoomId,
        join: &Pdu,
        version: &str,
    ) -> Result<SendJoinAnswer, SendJoinError> {
        let content = serde_json::from_str(join.json()).map_err(RequestError::Malformed)?;
        let path = [
            "_matrix",
            "federation",
            version,
            "send_join",
            room.as_str(),
            join.event_id(),
        ];
        let call = Call {
            method: &Method::PUT,
            path: &path,
            query: &[],
            content: Some(&content),
            signed: true,
            limit: MOST_BYTES,
            timeout: JOIN_TIMEOUT,
        };
        let mut answer = self.0.client.open(server, call).await?;
        let mut reader = Reader::new();
        while let Some(piece) = answer.chunk().await? {
            reader.push(&piece)?;
        }
        Ok(reader.finish()?)
    }
}

/// Whether a refusal says that a server does not know the endpoint. Servers of old answer that without an error code.
pub(super) fn is_unrecognised(status: u16, errcode: &str) -> bool {
    matches!(status, 404 | 405) && matches!(errcode, "" | "M_UNRECOGNIZED")
}

/// What is handed on to be checked.
pub(super) fn join_answer(
    room: &RoomId,
    version: RoomVersion,
    server: OwnedServerName,
    join: Pdu,
    answer: SendJoinAnswer,
) -> JoinAnswer {
    JoinAnswer {
        room_id: room.to_owned(),
        version,
        server,
        join,
        event: answer.event,
        state: answer.state,
        auth_chain: answer.auth_chain,
    }
}
