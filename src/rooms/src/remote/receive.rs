//! Events that other servers send: the checks on receipt of a PDU.

use std::sync::Arc;

use ruma::{OwnedEventId, OwnedServerName};
use serde_json::value::RawValue;
use thiserror::Error;

use super::Fetch;
use crate::{Failure, Rooms};

/// What became of one event of a transaction.
#[derive(Clone, Debug)]
pub struct Received {
    /// Its id; none if it could not be read so far (such events are left out of the answer to a transaction).
    pub event_id: Option<OwnedEventId>,
    /// What became of it.
    pub result: Result<Outcome, ReceiveError>,
}

/// What became of an event that was stored. The same again when it is sent again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is part of the room.
    Accepted,
    /// It is stored, but kept out of the room's current history: the current state does not allow it.
    SoftFailed,
    /// It is stored as one that the room's rules refuse.
    Rejected,
}

/// Why an event was not stored.
#[derive(Clone, Debug, Error)]
pub enum ReceiveError {
    /// It is no event of its room's version (dropped).
    #[error("the event is malformed: {0}")]
    Malformed(String),
    /// The server does not know its room, or has no user in it (dropped).
    #[error("the room is not known")]
    RoomNotFound,
    /// The room's ACL denies the origin.
    #[error("the origin is denied by the room's access control list")]
    Denied,
    /// Its signatures do not verify (dropped).
    #[error("the signatures do not verify: {0}")]
    BadSignature(String),
    /// Events that it builds on could not be had. It may be sent again.
    #[error("events that it builds on cannot be had: {0}")]
    Unconnected(String),
    /// A fault of the server. It may be sent again.
    #[error(transparent)]
    Failure(#[from] Failure),
}

impl Rooms {
    /// Takes in the PDUs of a transaction (`PUT /_matrix/federation/v1/send/{txnId}`), of as many rooms as they are of.
    /// One answer for each, in their order. Complete, and durable, when it returns; completes even if nobody waits.
    pub async fn receive(
        &self,
        fetch: Arc<dyn Fetch>,
        origin: OwnedServerName,
        pdus: Vec<Box<RawValue>>,
    ) -> Vec<Received> {
        let _ = (fetch, origin, pdus);
        todo!()
    }
}
