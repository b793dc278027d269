//! Events as servers exchange and keep them (PDUs). Spec: "Event format" of each room version; "Size limits" of the
//! client-server API.

mod build;
mod client;
mod memory;
mod read;

pub use build::{BuildError, EventBuilder, EventRef};
pub use memory::block;
pub use read::ParseError;

use std::{
    borrow::Cow,
    fmt,
    ops::Range,
    sync::{Arc, OnceLock},
};

use myelin_types::Millis;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{
    Object, RoomVersion, Signer,
    auth::Decoded,
    hash,
    members::{Members, ObjectWriter},
    redact, sign,
};

/// Largest event in the form servers exchange, in bytes of canonical JSON.
pub const MAX_EVENT_BYTES: usize = 65_536;
/// Most `prev_events`.
pub const MAX_PREV_EVENTS: usize = 20;
/// Most `auth_events`.
pub const MAX_AUTH_EVENTS: usize = 10;

/// An event. Immutable; cloning copies a pointer.
#[derive(Clone)]
pub struct Pdu(Arc<Inner>);

/// What is looked at without decoding the whole event.
struct Inner {
    version: RoomVersion,
    event_id: Box<str>,
    room_id: Box<str>,
    sender: Box<str>,
    event_type: Box<str>,
    state_key: Option<Box<str>>,
    redacts: Option<Box<str>>,
    origin_server_ts: i64,
    depth: i64,
    prev_events: Box<[Box<str>]>,
    auth_events: Box<[Box<str>]>,
    json: Box<str>,
    /// Where in `json` the content stands.
    content: Range<usize>,
    object: OnceLock<Object>,
    /// What authorisation makes of the content; kept here because the same few events authorise all others.
    decoded: OnceLock<Decoded>,
}

impl Pdu {
    /// The version of the event's room.
    pub fn version(&self) -> RoomVersion {
        self.0.version
    }

    /// The event's ID.
    pub fn event_id(&self) -> &str {
        &self.0.event_id
    }

    /// The ID of its room; for the create event of a v12 room, which carries none, the one that follows from it.
    pub fn room_id(&self) -> &str {
        &self.0.room_id
    }

    /// The user who sent it.
    pub fn sender(&self) -> &str {
        &self.0.sender
    }

    /// The `type`.
    pub fn event_type(&self) -> &str {
        &self.0.event_type
    }

    /// The `state_key`; present exactly for state events.
    pub fn state_key(&self) -> Option<&str> {
        self.0.state_key.as_deref()
    }

    /// Whether this is the state event with this type and state key.
    pub fn is_state(&self, event_type: &str, state_key: &str) -> bool {
        self.event_type() == event_type && self.state_key() == Some(state_key)
    }

    /// The content, decoded on first use.
    pub fn content(&self) -> &Object {
        self.0.object.get_or_init(|| {
            // Only bytes from the store that are not what was stored could fail here; they have no content.
            serde_json::from_str(self.content_json()).unwrap_or_default()
        })
    }

    /// The content as canonical JSON.
    pub fn content_json(&self) -> &str {
        &self.0.json[self.0.content.clone()]
    }

    /// The content decoded as `T`.
    pub fn content_as<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(self.content_json())
    }

    /// One value of the content. While the content is not decoded only this value is, and nothing of it is kept.
    pub fn content_value(&self, key: &str) -> Option<Cow<'_, Value>> {
        if let Some(content) = self.0.object.get() {
            return content.get(key).map(Cow::Borrowed);
        }
        let text = Members::of(self.content_json())?.get(key)?;
        serde_json::from_str(text).ok().map(Cow::Owned)
    }

    /// A copy of the event without what was decoded of its content.
    #[must_use]
    pub fn undecoded(&self) -> Self {
        let event = &*self.0;
        Self(Arc::new(Inner {
            version: event.version,
            event_id: event.event_id.clone(),
            room_id: event.room_id.clone(),
            sender: event.sender.clone(),
            event_type: event.event_type.clone(),
            state_key: event.state_key.clone(),
            redacts: event.redacts.clone(),
            origin_server_ts: event.origin_server_ts,
            depth: event.depth,
            prev_events: event.prev_events.clone(),
            auth_events: event.auth_events.clone(),
            json: event.json.clone(),
            content: event.content.clone(),
            object: OnceLock::new(),
            decoded: OnceLock::new(),
        }))
    }

    /// When its server says it was sent; 0 for times before 1970.
    pub fn origin_server_ts(&self) -> Millis {
        Millis(u64::try_from(self.0.origin_server_ts).unwrap_or(0))
    }

    /// Its claimed distance from the create event; not negative.
    pub fn depth(&self) -> i64 {
        self.0.depth
    }

    /// The IDs of `prev_events`.
    pub fn prev_events(&self) -> impl ExactSizeIterator<Item = &str> + Clone {
        self.0.prev_events.iter().map(AsRef::as_ref)
    }

    /// The IDs of `auth_events`.
    pub fn auth_events(&self) -> impl ExactSizeIterator<Item = &str> + Clone {
        self.0.auth_events.iter().map(AsRef::as_ref)
    }

    /// For `m.room.redaction` events: the ID of the event to redact, from where the room version puts it.
    pub fn redacts(&self) -> Option<&str> {
        if self.event_type() != "m.room.redaction" {
            None
        } else if self.version().rules().redacts_in_content {
            self.content().get("redacts")?.as_str()
        } else {
            self.0.redacts.as_deref()
        }
    }

    /// The event in the form servers exchange, as canonical JSON. What is to be stored.
    pub fn json(&self) -> &str {
        &self.0.json
    }

    /// The event as a redaction leaves it; same ID.
    pub fn redacted(&self) -> Self {
        let json = redact::redact(self.version(), self.json()).expect("an event is an object");
        self.with_json(json)
    }

    /// The event with `signer`'s signature added to those it has; same ID.
    pub fn countersigned(&self, signer: &Signer) -> Self {
        let members = Members::of(self.json()).expect("an event is an object");
        let text = hash::signed_text(self.version(), self.json()).expect("an event is an object");
        let signatures = members.get("signatures").unwrap_or("{}");
        let signatures = signer.add_signature(signatures, text.as_bytes());
        self.with_signatures(&members, &signatures)
    }

    /// The event with the signature of a policy server added to those it has; same ID. Whether it fits is
    /// [`sign::has_policy_signature`](crate::sign::has_policy_signature)'s to say.
    pub fn with_policy_signature(&self, server: &str, signature: &str) -> Self {
        let members = Members::of(self.json()).expect("an event is an object");
        let signatures = members.get("signatures").unwrap_or("{}");
        let signatures = sign::with_signature(signatures, server, sign::POLICY_KEY_ID, signature);
        self.with_signatures(&members, &signatures)
    }

    fn with_signatures(&self, members: &Members<'_>, signatures: &str) -> Self {
        let mut signed = ObjectWriter::with_capacity(self.json().len() + 128);
        for (key, value) in members.iter() {
            signed.raw(
                key,
                if key == "signatures" {
                    signatures
                } else {
                    value
                },
            );
        }
        self.with_json(signed.finish())
    }

    /// The reference hash.
    pub fn reference_hash(&self) -> [u8; 32] {
        hash::reference_hash(self.version(), self.json()).expect("an event is an object")
    }

    /// The event with the same fields, in another text.
    fn with_json(&self, json: String) -> Self {
        Self::from_stored(self.version(), self.event_id(), &json)
            .expect("redaction and signatures leave an event an event")
    }

    /// What authorisation keeps of the content.
    pub(crate) fn decoded(&self) -> &Decoded {
        self.0.decoded.get_or_init(|| Decoded::of(self))
    }
}

impl fmt::Debug for Pdu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pdu")
            .field("event_id", &self.event_id())
            .field("room_id", &self.room_id())
            .field("type", &self.event_type())
            .field("state_key", &self.state_key())
            .field("sender", &self.sender())
            .finish_non_exhaustive()
    }
}
