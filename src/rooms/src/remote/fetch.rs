//! What this crate asks of other servers. The federation client implements it; tests put a room in memory behind it.

use std::{future::Future, pin::Pin};

use myelin_rules::sign::VerifyKeys;
use myelin_types::Millis;
use ruma::{EventId, OwnedEventId, OwnedServerName, RoomId, ServerName};
use serde_json::value::RawValue;
use thiserror::Error;

/// A future of a [`Fetch`].
pub type Fetching<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Other servers, as far as rooms need them. Nothing that they answer is trusted: every event is checked here.
///
/// Implementations bound the time and the bytes of each answer.
pub trait Fetch: Send + Sync {
    /// `POST /_matrix/federation/v1/get_missing_events/{roomId}`: events before some that we have.
    fn missing_events<'a>(
        &'a self,
        server: &'a ServerName,
        room: &'a RoomId,
        request: &'a MissingEvents,
    ) -> Fetching<'a, Result<Vec<Box<RawValue>>, FetchError>>;

    /// `GET /_matrix/federation/v1/backfill/{roomId}`: events and those before them, at most `limit` altogether.
    fn backfill<'a>(
        &'a self,
        server: &'a ServerName,
        room: &'a RoomId,
        from: &'a [OwnedEventId],
        limit: usize,
    ) -> Fetching<'a, Result<Vec<Box<RawValue>>, FetchError>> {
        let _ = (server, room, from, limit);
        // For implementations of which no history is wanted.
        Box::pin(async { Err(FetchError::Unreachable("it gives no history".to_owned())) })
    }

    /// `GET /_matrix/federation/v1/event/{eventId}`: one event.
    fn event<'a>(
        &'a self,
        server: &'a ServerName,
        event_id: &'a EventId,
    ) -> Fetching<'a, Result<Box<RawValue>, FetchError>>;

    /// `GET /_matrix/federation/v1/state_ids/{roomId}`: the state before an event, by ids.
    fn state_ids<'a>(
        &'a self,
        server: &'a ServerName,
        room: &'a RoomId,
        event_id: &'a EventId,
    ) -> Fetching<'a, Result<StateIds, FetchError>>;

    /// `GET /_matrix/federation/v1/state/{roomId}`: the state before an event.
    fn state<'a>(
        &'a self,
        server: &'a ServerName,
        room: &'a RoomId,
        event_id: &'a EventId,
    ) -> Fetching<'a, Result<StateEvents, FetchError>>;

    /// Public keys of servers, from memory, the servers or notaries. Keys that cannot be had are left out of the answer;
    /// further ones may be in it.
    fn keys<'a>(&'a self, wanted: &'a [WantedKey]) -> Fetching<'a, VerifyKeys>;
}

/// What is asked of `get_missing_events`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MissingEvents {
    /// Events that we have: the walk stops there.
    pub earliest: Vec<OwnedEventId>,
    /// Events whose predecessors we want.
    pub latest: Vec<OwnedEventId>,
    /// At most so many events.
    pub limit: u32,
    /// None with a lesser depth.
    pub min_depth: i64,
}

/// The answer to `state_ids`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StateIds {
    /// `pdu_ids`: the state.
    pub state: Vec<OwnedEventId>,
    /// `auth_chain_ids`.
    pub auth_chain: Vec<OwnedEventId>,
}

/// The answer to `state`.
#[derive(Clone, Debug, Default)]
pub struct StateEvents {
    /// `pdus`: the state.
    pub state: Vec<Box<RawValue>>,
    /// `auth_chain`.
    pub auth_chain: Vec<Box<RawValue>>,
}

/// A key that is needed for a signature.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WantedKey {
    /// Whose key.
    pub server: OwnedServerName,
    /// Which: `ed25519:...`.
    pub key_id: String,
    /// When the event was sent: a key whose known validity ends before this is worth asking for again.
    pub valid_at: Millis,
}

/// Why nothing was fetched.
#[derive(Clone, Debug, Error)]
pub enum FetchError {
    /// The server could not be reached, or in time, or is not to be asked for now.
    #[error("the server cannot be reached: {0}")]
    Unreachable(String),
    /// The server answered that it will not.
    #[error("the server refused with status {status} {errcode}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// `errcode`, empty if there was none.
        errcode: String,
    },
    /// The answer is not what it should be.
    #[error("the answer is malformed: {0}")]
    Malformed(String),
}

impl FetchError {
    /// Whether the same request may be answered another time.
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Unreachable(_) => true,
            Self::Refused { status, .. } => *status == 429 || *status >= 500,
            Self::Malformed(_) => false,
        }
    }
}
