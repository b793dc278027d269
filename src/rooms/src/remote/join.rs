//! Users of other servers who join through this one: `make_join` and `send_join`.

use std::sync::Arc;

use myelin_rules::RoomVersion;
use ruma::{OwnedEventId, OwnedRoomId, OwnedServerName, OwnedUserId};
use serde_json::value::RawValue;
use thiserror::Error;

use super::Fetch;
use crate::{Event, Failure, JsonObject, Rooms};

/// A request for the template of a join.
#[derive(Clone, Debug)]
pub struct MakeJoin {
    /// Which room.
    pub room_id: OwnedRoomId,
    /// Who wants to join.
    pub user: OwnedUserId,
    /// The server that asks.
    pub origin: OwnedServerName,
    /// The room versions that it supports; the specification's default is `["1"]`.
    pub versions: Vec<String>,
}

/// The template of a membership event.
#[derive(Clone, Debug)]
pub struct JoinTemplate {
    /// `room_version`.
    pub room_version: RoomVersion,
    /// `event`: everything but hashes and signatures.
    pub event: JsonObject,
}

/// Why there is no template.
#[derive(Clone, Debug, Error)]
pub enum MakeJoinError {
    /// The server does not know the room, or is not in it (404 `M_NOT_FOUND`).
    #[error("the room is not known")]
    RoomNotFound,
    /// The server that asks does not support the room's version (400 `M_INCOMPATIBLE_ROOM_VERSION` with `room_version`).
    #[error("the room has version {0}, which the joining server does not support")]
    IncompatibleVersion(RoomVersion),
    /// The user is none of the server that asks, or the room's ACL or rules keep him out (403 `M_FORBIDDEN`).
    #[error("{0}")]
    Forbidden(String),
    /// Whether the user may join can only be judged by a server that is in one of the rooms whose members may (400
    /// `M_UNABLE_TO_AUTHORISE_JOIN`).
    #[error("this server cannot tell whether the user is in a room that lets him in")]
    UnableToAuthorise,
    /// The user could be let in, but nobody here has the power to (400 `M_UNABLE_TO_GRANT_JOIN`).
    #[error("no user of this server can let the user in")]
    UnableToGrant,
    /// A fault of the server.
    #[error(transparent)]
    Failure(#[from] Failure),
}

/// A signed join.
#[derive(Clone, Debug)]
pub struct AcceptJoin {
    /// The room, from the path.
    pub room_id: OwnedRoomId,
    /// The event's id, from the path.
    pub event_id: OwnedEventId,
    /// The event.
    pub pdu: Box<RawValue>,
    /// The server that sends it.
    pub origin: OwnedServerName,
}

/// What the joining server needs.
#[derive(Clone, Debug)]
pub struct AcceptedJoin {
    /// The room's version, which is that of the events.
    pub room_version: RoomVersion,
    /// `event`: the join, with our signature where it needs one.
    pub event: Arc<Event>,
    /// `state`: the room's state before the join.
    pub state: Vec<Arc<Event>>,
    /// `auth_chain` of the state.
    pub auth_chain: Vec<Arc<Event>>,
    /// `servers_in_room`: those with joined users before the join.
    pub servers: Vec<OwnedServerName>,
}

/// Why a join was refused.
#[derive(Clone, Debug, Error)]
pub enum AcceptJoinError {
    /// The server does not know the room, or is not in it (404 `M_NOT_FOUND`).
    #[error("the room is not known")]
    RoomNotFound,
    /// It is no join of this room with this id (400 `M_BAD_JSON`).
    #[error("not a valid join: {0}")]
    Malformed(String),
    /// Its signatures do not verify, or it is not the origin's to send, or the room's ACL or rules refuse it (403
    /// `M_FORBIDDEN`).
    #[error("{0}")]
    Forbidden(String),
    /// As in [`MakeJoinError`].
    #[error("this server cannot tell whether the user is in a room that lets him in")]
    UnableToAuthorise,
    /// As in [`MakeJoinError`].
    #[error("no user of this server can let the user in")]
    UnableToGrant,
    /// A fault of the server.
    #[error(transparent)]
    Failure(#[from] Failure),
}

impl Rooms {
    /// The template of a join (`GET /_matrix/federation/v1/make_join/{roomId}/{userId}`).
    pub async fn make_join(&self, request: MakeJoin) -> Result<JoinTemplate, MakeJoinError> {
        let _ = request;
        todo!()
    }

    /// Takes a join into its room (`PUT /_matrix/federation/v2/send_join/{roomId}/{eventId}`).
    pub async fn accept_join(
        &self,
        fetch: Arc<dyn Fetch>,
        request: AcceptJoin,
    ) -> Result<AcceptedJoin, AcceptJoinError> {
        let _ = (fetch, request);
        todo!()
    }
}
