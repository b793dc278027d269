//! What rooms ask of other servers, as requests.

use std::time::Duration;

use bytes::Bytes;
use http::Method;
use myelin_rooms::remote::{
    Fetch, FetchError, Fetching, MissingEvents, StateEvents, StateIds, WantedKey,
};
use myelin_rules::sign::VerifyKeys;
use ruma::{EventId, OwnedEventId, RoomId, ServerName};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{json, value::RawValue};

use crate::{
    Federation,
    client::{Call, RequestError},
};

/// The greatest answers, in bytes: an event has at most 64 KiB, and some servers add `unsigned` to it.
const EVENT_LIMIT: usize = 256 << 10;
const EVENTS_LIMIT: usize = 8 << 20;
const IDS_LIMIT: usize = 32 << 20;
const STATE_LIMIT: usize = 128 << 20;
/// How long others may take: the state of a large room is a large answer.
const TIMEOUT: Duration = Duration::from_secs(30);
const STATE_TIMEOUT: Duration = Duration::from_mins(3);

/// The events of an answer: of `/event`, which wraps one into a transaction, of `/backfill` and of `/state`.
#[derive(Deserialize)]
struct Pdus {
    pdus: Vec<Box<RawValue>>,
    #[serde(default)]
    auth_chain: Vec<Box<RawValue>>,
}

#[derive(Deserialize)]
struct Events {
    #[serde(default)]
    events: Vec<Box<RawValue>>,
}

#[derive(Deserialize)]
struct Ids {
    pdu_ids: Vec<OwnedEventId>,
    auth_chain_ids: Vec<OwnedEventId>,
}

impl Federation {
    async fn get(
        &self,
        server: &ServerName,
        path: [&str; 2],
        query: &[(&str, &str)],
        limit: usize,
        timeout: Duration,
    ) -> Result<Bytes, RequestError> {
        let call = Call {
            method: &Method::GET,
            path: &["_matrix", "federation", "v1", path[0], path[1]],
            query,
            content: None,
            signed: true,
            limit,
            timeout,
        };
        self.0.client.send(server, call).await
    }

    async fn fetch_missing_events(
        &self,
        server: &ServerName,
        room: &RoomId,
        request: &MissingEvents,
    ) -> Result<Vec<Box<RawValue>>, RequestError> {
        let content = json!({
            "earliest_events": request.earliest,
            "latest_events": request.latest,
            "limit": request.limit,
            "min_depth": request.min_depth,
        });
        let call = Call {
            method: &Method::POST,
            path: &[
                "_matrix",
                "federation",
                "v1",
                "get_missing_events",
                room.as_str(),
            ],
            query: &[],
            content: Some(&content),
            signed: true,
            limit: EVENTS_LIMIT,
            timeout: TIMEOUT,
        };
        let answer: Events = read(&self.0.client.send(server, call).await?)?;
        Ok(answer.events)
    }

    async fn fetch_backfill(
        &self,
        server: &ServerName,
        room: &RoomId,
        from: &[OwnedEventId],
        limit: usize,
    ) -> Result<Vec<Box<RawValue>>, RequestError> {
        let limit = limit.to_string();
        let mut query = vec![("limit", limit.as_str())];
        query.extend(from.iter().map(|id| ("v", id.as_str())));
        let path = ["backfill", room.as_str()];
        let answer = self
            .get(server, path, &query, EVENTS_LIMIT, TIMEOUT)
            .await?;
        let answer: Pdus = read(&answer)?;
        Ok(answer.pdus)
    }

    async fn fetch_event(
        &self,
        server: &ServerName,
        event_id: &EventId,
    ) -> Result<Option<Box<RawValue>>, RequestError> {
        let path = ["event", event_id.as_str()];
        let answer: Pdus = read(&self.get(server, path, &[], EVENT_LIMIT, TIMEOUT).await?)?;
        Ok(answer.pdus.into_iter().next())
    }

    async fn fetch_state_ids(
        &self,
        server: &ServerName,
        room: &RoomId,
        event_id: &EventId,
    ) -> Result<StateIds, RequestError> {
        let path = ["state_ids", room.as_str()];
        let query = [("event_id", event_id.as_str())];
        let answer = self
            .get(server, path, &query, IDS_LIMIT, STATE_TIMEOUT)
            .await?;
        let answer: Ids = read(&answer)?;
        Ok(StateIds {
            state: answer.pdu_ids,
            auth_chain: answer.auth_chain_ids,
        })
    }

    async fn fetch_state(
        &self,
        server: &ServerName,
        room: &RoomId,
        event_id: &EventId,
    ) -> Result<StateEvents, RequestError> {
        let path = ["state", room.as_str()];
        let query = [("event_id", event_id.as_str())];
        let answer = self
            .get(server, path, &query, STATE_LIMIT, STATE_TIMEOUT)
            .await?;
        let answer: Pdus = read(&answer)?;
        Ok(StateEvents {
            state: answer.pdus,
            auth_chain: answer.auth_chain,
        })
    }
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, RequestError> {
    serde_json::from_slice(body).map_err(RequestError::Malformed)
}

impl From<RequestError> for FetchError {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::Refused {
                status, errcode, ..
            } => Self::Refused { status, errcode },
            RequestError::Malformed(_) | RequestError::TooLarge => {
                Self::Malformed(crate::chain(&error))
            }
            RequestError::Disabled
            | RequestError::Unreachable(_)
            | RequestError::NoPublicAddress
            | RequestError::Unsigned(_) => Self::Unreachable(crate::chain(&error)),
        }
    }
}

impl Fetch for Federation {
    fn missing_events<'a>(
        &'a self,
        server: &'a ServerName,
        room: &'a RoomId,
        request: &'a MissingEvents,
    ) -> Fetching<'a, Result<Vec<Box<RawValue>>, FetchError>> {
        Box::pin(async move { Ok(self.fetch_missing_events(server, room, request).await?) })
    }

    fn backfill<'a>(
        &'a self,
        server: &'a ServerName,
        room: &'a RoomId,
        from: &'a [OwnedEventId],
        limit: usize,
    ) -> Fetching<'a, Result<Vec<Box<RawValue>>, FetchError>> {
        Box::pin(async move { Ok(self.fetch_backfill(server, room, from, limit).await?) })
    }

    fn event<'a>(
        &'a self,
        server: &'a ServerName,
        event_id: &'a EventId,
    ) -> Fetching<'a, Result<Box<RawValue>, FetchError>> {
        Box::pin(async move {
            let event = self.fetch_event(server, event_id).await?;
            event.ok_or_else(|| FetchError::Malformed("no event in the answer".to_owned()))
        })
    }

    fn state_ids<'a>(
        &'a self,
        server: &'a ServerName,
        room: &'a RoomId,
        event_id: &'a EventId,
    ) -> Fetching<'a, Result<StateIds, FetchError>> {
        Box::pin(async move { Ok(self.fetch_state_ids(server, room, event_id).await?) })
    }

    fn state<'a>(
        &'a self,
        server: &'a ServerName,
        room: &'a RoomId,
        event_id: &'a EventId,
    ) -> Fetching<'a, Result<StateEvents, FetchError>> {
        Box::pin(async move { Ok(self.fetch_state(server, room, event_id).await?) })
    }

    fn keys<'a>(&'a self, wanted: &'a [WantedKey]) -> Fetching<'a, VerifyKeys> {
        Box::pin(self.0.keys.event_keys(wanted))
    }
}
