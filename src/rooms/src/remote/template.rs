//! Membership events of our users that another server drafts, because this one does not know where in the room's history
//! they attach.
//!
//! Nothing is signed that another server wrote: the event is built anew. Of the draft only the references to other events
//! are taken, by their shape and within the limits of events, and the user in whose name somebody is let in.

use myelin_data::rooms::Membership as Stored;
use myelin_rules::{BuildError, EventBuilder, EventRef, Pdu, RoomVersion, limits};
use ruma::{OwnedRoomId, OwnedServerName, OwnedUserId};
use serde::Deserialize;
use serde_json::{Value, value::RawValue};
use thiserror::Error;

use crate::{
    Enter, JsonObject, Rooms,
    membership::{self, MEMBER},
};

/// The greatest draft that is looked at, in bytes: more than any event has.
const MOST_BYTES: usize = 128 * 1024;

/// A membership event that is wanted of another server's draft.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// In which room.
    pub room_id: OwnedRoomId,
    /// The room's version, as the other server says.
    pub version: RoomVersion,
    /// Whose membership; the user is also the sender.
    pub user: OwnedUserId,
    /// What he is to become.
    pub membership: Stored,
    /// What else the event says.
    pub content: JsonObject,
    /// The server that drafted it.
    pub server: OwnedServerName,
}

/// Why another server's draft is of no use.
#[derive(Clone, Debug, Error)]
pub enum DraftError {
    /// It is no event.
    #[error("the draft is malformed: {0}")]
    Malformed(String),
    /// It is another event than was asked for.
    #[error("the draft has another `{0}` than was asked for")]
    Mismatch(&'static str),
    /// What came of it breaks the limits or the format of events.
    #[error("the event cannot be built: {0}")]
    Build(String),
}

impl Wanted {
    /// The join of a user.
    pub fn join(request: &Enter, version: RoomVersion, server: OwnedServerName) -> Self {
        Self {
            room_id: request.room_id.clone(),
            version,
            user: request.user.clone(),
            membership: Stored::Join,
            content: membership::entering(request, Stored::Join),
            server,
        }
    }

    /// The knock of a user.
    pub fn knock(request: &Enter, version: RoomVersion, server: OwnedServerName) -> Self {
        Self {
            membership: Stored::Knock,
            content: membership::entering(request, Stored::Knock),
            ..Self::join(request, version, server)
        }
    }

    /// The leave of a user, by which he declines an invitation or takes back a knock as well.
    pub fn leave(
        room_id: OwnedRoomId,
        user: OwnedUserId,
        reason: Option<&str>,
        version: RoomVersion,
        server: OwnedServerName,
    ) -> Self {
        Self {
            room_id,
            version,
            user,
            membership: Stored::Leave,
            content: membership::content(Stored::Leave, None, reason),
            server,
        }
    }
}

/// What is looked at of a draft.
#[derive(Deserialize)]
struct Draft {
    #[serde(rename = "type")]
    event_type: String,
    room_id: String,
    sender: String,
    state_key: String,
    content: JsonObject,
    prev_events: Vec<Value>,
    auth_events: Vec<Value>,
    depth: i64,
}

impl Rooms {
    /// Builds and signs the event that is wanted, in the place of the room's history that the draft names.
    pub fn fill_in(&self, draft: &RawValue, wanted: &Wanted) -> Result<Pdu, DraftError> {
        let malformed = |text: &str| DraftError::Malformed(text.to_owned());
        if draft.get().len() > MOST_BYTES {
            return Err(malformed("it is too large"));
        }
        let draft: Draft = serde_json::from_str(draft.get())
            .map_err(|error| DraftError::Malformed(error.to_string()))?;
        let membership = draft.content.get("membership").and_then(Value::as_str);
        for (name, holds) in [
            ("type", draft.event_type == MEMBER),
            ("room_id", draft.room_id == wanted.room_id.as_str()),
            ("sender", draft.sender == wanted.user.as_str()),
            ("state_key", draft.state_key == wanted.user.as_str()),
            ("membership", membership == Some(wanted.membership.as_str())),
        ] {
            if !holds {
                return Err(DraftError::Mismatch(name));
            }
        }
        let references = |list: &[Value]| {
            list.iter()
                .map(|entry| EventRef::from_entry(wanted.version, entry))
                .collect::<Option<Vec<EventRef>>>()
                .ok_or_else(|| malformed("it refers to something that is no event"))
        };
        let prev_events = references(&draft.prev_events)?;
        if prev_events.is_empty() {
            return Err(malformed("it has no predecessors"));
        }
        let mut content = wanted.content.clone();
        let vouching = "join_authorised_via_users_server";
        content.remove(vouching);
        if wanted.membership == Stored::Join
            && wanted.version.rules().restricted
            && let Some(user) = draft.content.get(vouching)
        {
            // His server has to sign the event, and that is the one that it will be sent to.
            let server = user.as_str().and_then(limits::server_name_of);
            let is_user = user.as_str().is_some_and(limits::is_user_id);
            if !is_user || server != Some(wanted.server.as_str()) {
                return Err(malformed(
                    "who lets the user in is no user of the drafting server",
                ));
            }
            content.insert(vouching.to_owned(), user.clone());
        }
        let builder = EventBuilder {
            room_id: Some(wanted.room_id.to_string()),
            sender: wanted.user.to_string(),
            event_type: MEMBER.to_owned(),
            state_key: Some(wanted.user.to_string()),
            content,
            redacts: None,
            prev_events,
            auth_events: references(&draft.auth_events)?,
            depth: draft.depth,
            origin_server_ts: self.0.clock.now(),
        };
        builder
            .sign(wanted.version, &self.0.signer)
            .map_err(|error| match error {
                BuildError::Format(error) => DraftError::Build(error.to_string()),
            })
    }
}
