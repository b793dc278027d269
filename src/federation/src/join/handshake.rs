//! The second request of a join, with the event; the first, for a draft of it, is that of all handshakes.

use std::time::Duration;

use http::Method;
use myelin_rooms::remote::JoinAnswer;
use myelin_rules::{Pdu, RoomVersion};
use ruma::{OwnedServerName, RoomId, ServerName};

use super::answer::{AnswerError, MOST_BYTES, Reader, SendJoinAnswer};
use crate::{
    Federation,
    client::{Call, RequestError},
    membership::handshake::is_unrecognised,
};

/// How long it may take to let the user in, and to send the state of the room.
const JOIN_TIMEOUT: Duration = Duration::from_mins(5);

/// Why a server did not let somebody in.
#[derive(Debug, thiserror::Error)]
pub(super) enum SendJoinError {
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error(transparent)]
    Answer(#[from] AnswerError),
}

impl Federation {
    /// `PUT /_matrix/federation/v2/send_join/{roomId}/{eventId}`, or its first version where the server has no second.
    pub(super) async fn send_join(
        &self,
        server: &ServerName,
        room: &RoomId,
        join: &Pdu,
    ) -> Result<SendJoinAnswer, SendJoinError> {
        match self.send_join_by(server, room, join, "v2").await {
            Err(SendJoinError::Request(error)) if is_unrecognised(&error) => {
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
        // Version 1 has no such permission, and servers that do not know it give everything.
        let query: &[(&str, &str)] = if version == "v2" {
            &[("omit_members", "true")]
        } else {
            &[]
        };
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
            query,
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
        members_omitted: answer.members_omitted,
        servers: answer.servers_in_room,
    }
}
