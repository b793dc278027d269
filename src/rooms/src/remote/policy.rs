//! Policy servers: a room may have a server look at each event before it is sent. Spec: server-server API, "Policy
//! Servers".
//!
//! An event of ours is not sent without the policy server's signature. One of another server that has none, or one that
//! does not fit, is shown to the policy server; what it does not sign is soft-failed.
//!
//! The policy server is asked about our own events while the room is locked: what is signed must be what is appended. So
//! a policy server that does not answer holds up its room, as long as one question may take, and no other.

use std::{collections::HashSet, sync::Arc};

use futures_util::{StreamExt, stream};
use myelin_rules::{Pdu, event::MAX_EVENT_BYTES, sign};
use myelin_store::{StoreError, View};
use ruma::{OwnedServerName, ServerName};
use serde::Deserialize;
use serde_json::Value;
use thiserror::Error;

use super::{FetchError, Fetching};
use crate::{
    AppendError, Failure, JsonObject, RoomHandle, Rooms, pipeline::RoomGuard, read::RoomView,
};

/// The state event that names a room's policy server.
const POLICY: &str = "m.room.policy";
/// About so many events of one batch a policy server is asked; further ones have to have its signature already.
const MOST_QUESTIONS: usize = 100;
/// How many questions to a policy server are open at once.
const AT_ONCE: usize = 8;

/// How policy servers are asked. The federation client implements it; tests put a key behind it.
pub trait AskPolicy: Send + Sync {
    /// `POST /_matrix/policy/v1/sign`: the signature of the server `via` under an event. Implementations bound the time of
    /// an answer.
    fn sign<'a>(
        &'a self,
        via: &'a ServerName,
        event: &'a Pdu,
    ) -> Fetching<'a, Result<String, NotSigned>>;
}

/// Why a policy server gave no signature.
#[derive(Clone, Debug, Error)]
pub enum NotSigned {
    /// It does not recommend the event, and says so, for whoever wants to send it.
    #[error("{0}")]
    Refused(String),
    /// It could not be asked, or its answer is of no use.
    #[error("the policy server of the room cannot be asked")]
    Failed(#[source] FetchError),
}

/// A room's policy server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PolicyServer {
    via: OwnedServerName,
    key: [u8; 32],
}

#[derive(Deserialize)]
struct Content {
    via: String,
    public_keys: PublicKeys,
}

#[derive(Deserialize)]
struct PublicKeys {
    ed25519: String,
}

impl PolicyServer {
    /// What the room's state says, if it says anything that is valid. A key that is none fits no signature.
    fn of(content: &JsonObject) -> Option<PolicyServer> {
        let content = Value::Object(content.clone());
        let Content { via, public_keys } = serde_json::from_value(content).ok()?;
        Some(PolicyServer {
            via: OwnedServerName::try_from(via).ok()?,
            key: sign::public_key(&public_keys.ed25519).unwrap_or_default(),
        })
    }

    /// Whether an event has its recommendation, or needs none.
    fn recommends(&self, event: &Pdu) -> bool {
        event.is_state(POLICY, "")
            || sign::has_policy_signature(event, self.via.as_str(), &self.key)
    }

    /// The event with its signature. Why there is none, else.
    async fn ask(&self, rooms: &Rooms, event: &Pdu) -> Result<Pdu, String> {
        let Some(policies) = rooms.0.policies.get() else {
            return Err("the policy server of the room cannot be asked".to_owned());
        };
        let signature = policies.sign(&self.via, event).await;
        let signature = signature.map_err(|error| {
            if let NotSigned::Failed(cause) = &error {
                tracing::debug!(via = %self.via, error = %cause, "ask a policy server");
            }
            error.to_string()
        })?;
        let signed = event.with_policy_signature(self.via.as_str(), &signature);
        if !self.recommends(&signed) {
            return Err("the signature of the policy server does not fit".to_owned());
        }
        if signed.json().len() > MAX_EVENT_BYTES {
            return Err("the event is too large with the policy server's signature".to_owned());
        }
        Ok(signed)
    }
}

impl Rooms {
    /// Says how policy servers are asked. What comes second is ignored.
    pub fn ask_policies_through(&self, policies: Arc<dyn AskPolicy>) {
        self.0.policies.set(policies).ok();
    }

    /// The policy server that a room uses.
    async fn policy_server(&self, handle: &RoomHandle) -> Result<Option<PolicyServer>, Failure> {
        let (rooms, num) = (self.clone(), handle.num);
        let read = move |view: &View| {
            let room = RoomView::open(&rooms, view, num)?;
            let Some(event) = room.state_entry(room.current()?, POLICY, "")? else {
                return Ok(None);
            };
            let policy = PolicyServer::of(room.event(event)?.pdu.content());
            match policy {
                Some(policy) if room.has_server(&policy.via)? => Ok(Some(policy)),
                _ => Ok::<_, StoreError>(None),
            }
        };
        Ok(self.0.store.read(read).await?)
    }

    /// An event of a handshake with the signature of the room's policy server, where it gives one. Without it the event is
    /// refused when it is judged.
    pub(super) async fn ask_policy_of(
        &self,
        handle: &RoomHandle,
        event: Pdu,
    ) -> Result<Pdu, Failure> {
        let none = HashSet::new();
        let mut asked = self.ask_policy(handle, vec![event], &none).await?;
        asked.pop().ok_or(Failure::CutShort)
    }

    /// The same for an event of ours that leaves the server before it is part of the room, while nobody holds the room.
    pub(super) async fn with_policy(
        &self,
        handle: &RoomHandle,
        event: Pdu,
    ) -> Result<Pdu, AppendError> {
        match self.policy_server(handle).await? {
            Some(policy) if !policy.recommends(&event) => {
                let signed = policy.ask(self, &event).await;
                signed.map_err(AppendError::Forbidden)
            }
            _ => Ok(event),
        }
    }

    /// The events with the signature of the room's policy server, where it gives one to those that lack it; outliers are not
    /// shown to it.
    pub(super) async fn ask_policy(
        &self,
        handle: &RoomHandle,
        events: Vec<Pdu>,
        outliers: &HashSet<String>,
    ) -> Result<Vec<Pdu>, Failure> {
        let Some(policy) = self.policy_server(handle).await? else {
            return Ok(events);
        };
        let lacking = events
            .iter()
            .filter(|event| !outliers.contains(event.event_id()) && !policy.recommends(event));
        let questions = lacking.take(MOST_QUESTIONS).cloned().map(|event| {
            let policy = &policy;
            async move {
                let signed = policy.ask(self, &event).await;
                if let Err(reason) = &signed {
                    tracing::debug!(event_id = event.event_id(), reason, "ask the policy server");
                }
                signed.ok()
            }
        });
        let questions: Vec<_> = questions.collect();
        let signed: Vec<Option<Pdu>> = stream::iter(questions)
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        let mut events = events;
        for signed in signed.into_iter().flatten() {
            let same = |event: &&mut Pdu| event.event_id() == signed.event_id();
            if let Some(event) = events.iter_mut().find(same) {
                *event = signed.clone();
            }
        }
        Ok(events)
    }
}

impl RoomGuard {
    /// The policy server that the room uses now.
    async fn policy_server(&self) -> Result<Option<PolicyServer>, Failure> {
        let event = self.state().kept_event(POLICY);
        let policy = event.and_then(|event| PolicyServer::of(event.pdu.content()));
        let Some(policy) = policy else {
            return Ok(None);
        };
        let (rooms, room, via) = (self.rooms.clone(), self.num(), policy.via.clone());
        let read = move |view: &View| rooms.is_server_in_room(view, room, &via);
        let is_there = self.rooms.0.store.read(read).await?;
        Ok(is_there.then_some(policy))
    }

    /// 7. of the checks on receipt: whether the policy server of the room, if it uses one, recommends an event.
    pub(super) async fn check_policy(&self, event: &Pdu) -> Result<Result<(), String>, Failure> {
        match self.policy_server().await? {
            Some(policy) if !policy.recommends(event) => {
                Ok(Err("the policy server does not recommend it".to_owned()))
            }
            _ => Ok(Ok(())),
        }
    }

    /// An event of ours with the signature of the room's policy server, if the room uses one.
    pub(crate) async fn with_policy(&self, event: Pdu) -> Result<Pdu, AppendError> {
        match self.policy_server().await? {
            Some(policy) if !policy.recommends(&event) => {
                let signed = policy.ask(&self.rooms, &event).await;
                signed.map_err(AppendError::Forbidden)
            }
            _ => Ok(event),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::PolicyServer;

    #[test]
    fn a_policy_server_has_a_name_and_a_key() {
        let of = |content: Value| match content {
            Value::Object(content) => PolicyServer::of(&content),
            other => panic!("{other} is no object"),
        };
        let key = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE";
        let whole = json!({"via": "policy.org", "public_keys": {"ed25519": key, "other": 1}});
        let policy = of(whole).expect("it is whole");
        assert_eq!((policy.via.as_str(), policy.key), ("policy.org", [1; 32]));
        for content in [
            json!({}),
            json!({"via": "policy.org", "public_keys": {}}),
            json!({"via": 1, "public_keys": {"ed25519": key}}),
            json!({"via": "not a name", "public_keys": {"ed25519": key}}),
        ] {
            assert_eq!(of(content), None);
        }
    }
}
