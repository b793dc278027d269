//! Building and signing events of our own.
//!
//! The canonical text is put together by hand, field by field in the order of the keys: the content is encoded once,
//! and the three texts that are needed (for the content hash, for the signature and reference hash, to be sent) differ
//! only in which fields they have.

use std::sync::OnceLock;

use base64::Engine as _;
use myelin_types::Millis;
use serde_json::Value;

use super::{Inner, ParseError, Pdu};
use crate::{
    Object, RoomVersion, Signer, canonical,
    hash::{self, BASE64, BASE64_URL},
    limits,
    members::ObjectWriter,
    redact,
    version::EventIdFormat,
};

/// Why an event could not be built.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// The event would break the limits or the format that holds for everybody's events.
    #[error("event breaks the format of its room version")]
    Format(#[from] ParseError),
}

/// A reference to an event, in `prev_events` or `auth_events`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventRef {
    /// The event's ID.
    pub event_id: String,
    /// Its reference hash; part of references in v1-2 only. Synapse leaves it out where it refers to an event that it has
    /// just made, and nobody can be asked for more than he gives.
    pub hash: Option<[u8; 32]>,
}

impl EventRef {
    /// A reference by ID alone; enough from v3 on.
    pub fn id(event_id: impl Into<String>) -> Self {
        Self {
            event_id: event_id.into(),
            hash: None,
        }
    }
}

impl EventRef {
    /// The reference that an entry of `prev_events` or `auth_events` is, in events of this version. None if it has not the
    /// form of one.
    pub fn from_entry(version: RoomVersion, entry: &Value) -> Option<Self> {
        let (id, hash) = match (version.rules().event_id, entry) {
            (EventIdFormat::Opaque, Value::Array(pair)) => {
                let [Value::String(id), Value::Object(hashes)] = pair.as_slice() else {
                    return None;
                };
                let hash = match hashes.get("sha256") {
                    Some(hash) => Some(BASE64.decode(hash.as_str()?).ok()?.try_into().ok()?),
                    None => None,
                };
                (id, hash)
            }
            (EventIdFormat::Base64 | EventIdFormat::UrlSafeBase64, Value::String(id)) => (id, None),
            _ => return None,
        };
        limits::is_event_id(id).then(|| Self {
            event_id: id.clone(),
            hash,
        })
    }
}

impl From<&Pdu> for EventRef {
    /// Computes the reference hash only where the event's room version needs it.
    fn from(event: &Pdu) -> Self {
        let paired = event.version().rules().event_id == EventIdFormat::Opaque;
        Self {
            event_id: event.event_id().to_owned(),
            hash: paired.then(|| event.reference_hash()),
        }
    }
}

/// The parts of an event of ours, before it has hashes, signature and ID.
#[derive(Clone, Debug)]
pub struct EventBuilder {
    /// The room. None exactly for the create event of a v12 room.
    pub room_id: Option<String>,
    /// The sender, a user of the signing server.
    pub sender: String,
    /// The `type`.
    pub event_type: String,
    /// The `state_key`, for state events.
    pub state_key: Option<String>,
    /// The content.
    pub content: Object,
    /// For redactions: the target. It is put where the room version wants it.
    pub redacts: Option<String>,
    /// The forward extremities.
    pub prev_events: Vec<EventRef>,
    /// The events that [`crate::auth::auth_types`] selects.
    pub auth_events: Vec<EventRef>,
    /// One more than the greatest depth of `prev_events`. Values above the version's limit are set to it.
    pub depth: i64,
    /// Now.
    pub origin_server_ts: Millis,
}

/// The texts of the fields that take work, ready to be put into an event.
struct Parts<'a> {
    event: &'a EventBuilder,
    prev_events: String,
    auth_events: String,
    event_id: Option<String>,
}

impl EventBuilder {
    /// Hashes and signs the event. All limits are checked.
    pub fn sign(mut self, version: RoomVersion, signer: &Signer) -> Result<Pdu, BuildError> {
        let rules = version.rules();
        if rules.redacts_in_content
            && let Some(target) = self.redacts.take()
        {
            self.content.insert("redacts".to_owned(), target.into());
        }
        self.depth = self.depth.min(rules.max_depth);
        let is_v12_create = rules.room_id_is_create_hash && self.event_type == "m.room.create";
        if self.room_id.is_none() != is_v12_create {
            let error = match self.room_id {
                None => ParseError::Missing("room_id"),
                Some(_) => ParseError::Malformed("room_id"),
            };
            return Err(error.into());
        }

        let mut content = String::new();
        canonical::write_object(&mut content, &self.content, rules.numbers(), 1)
            .map_err(ParseError::from)?;
        let redacted = redact::redact_content(version, &self.event_type, &self.content);
        let mut redacted_content = String::new();
        canonical::write_object(&mut redacted_content, &redacted, rules.numbers(), 1)
            .map_err(ParseError::from)?;

        let mut parts = Parts {
            event: &self,
            prev_events: references(&self.prev_events, rules.event_id),
            auth_events: references(&self.auth_events, rules.event_id),
            event_id: None,
        };
        if rules.event_id == EventIdFormat::Opaque {
            // Any locally unique string will do; the hash of the rest of the event is one that asks for no chance.
            let opaque = BASE64_URL.encode(hash::sha256(&parts.text(&content, true, None, None)));
            parts.event_id = Some(format!("${opaque}:{}", signer.server_name()));
        }
        let content_hash = hash::sha256(&parts.text(&content, true, None, None));
        let hashes = format!("{{\"sha256\":\"{}\"}}", BASE64.encode(content_hash));
        // `redacts` does not survive a redaction; `signatures` is in neither of the two texts this is.
        let signed_text = parts.text(&redacted_content, false, Some(&hashes), None);
        let signatures = signer.add_signature("{}", signed_text.as_bytes());
        let event_id = match parts.event_id.take() {
            Some(id) => {
                parts.event_id = Some(id.clone());
                id
            }
            None => hash::event_id(version, &hash::sha256(&signed_text))
                .expect("versions without opaque IDs make them of the hash"),
        };
        let json = parts.text(&content, true, Some(&hashes), Some(&signatures));
        // Only `auth_events` stands before the content: `{"auth_events":…,"content":`.
        let start = r#"{"auth_events":,"content":"#.len() + parts.auth_events.len();
        let ids = |references: Vec<EventRef>| -> Box<[Box<str>]> {
            references
                .into_iter()
                .map(|reference| reference.event_id.into_boxed_str())
                .collect()
        };
        let event = Pdu::from_inner(Inner {
            version,
            room_id: match self.room_id {
                Some(room_id) => room_id.into_boxed_str(),
                None => format!("!{}", &event_id[1..]).into_boxed_str(),
            },
            event_id: event_id.into_boxed_str(),
            sender: self.sender.into_boxed_str(),
            event_type: self.event_type.into_boxed_str(),
            state_key: self.state_key.map(String::into_boxed_str),
            redacts: self.redacts.map(String::into_boxed_str),
            origin_server_ts: i64::try_from(self.origin_server_ts.0).unwrap_or(i64::MAX),
            depth: self.depth,
            prev_events: ids(self.prev_events),
            auth_events: ids(self.auth_events),
            content: start..start + content.len(),
            object: OnceLock::from(self.content),
            decoded: OnceLock::new(),
            json: json.into_boxed_str(),
        })?;
        Ok(event)
    }
}

impl Parts<'_> {
    fn text(
        &self,
        content: &str,
        with_redacts: bool,
        hashes: Option<&str>,
        signatures: Option<&str>,
    ) -> String {
        let event = self.event;
        let mut text = ObjectWriter::with_capacity(content.len() + 1024);
        text.raw("auth_events", &self.auth_events);
        text.raw("content", content);
        text.integer("depth", event.depth);
        if let Some(event_id) = &self.event_id {
            text.string("event_id", event_id);
        }
        if let Some(hashes) = hashes {
            text.raw("hashes", hashes);
        }
        text.integer("origin_server_ts", event.origin_server_ts.0);
        text.raw("prev_events", &self.prev_events);
        if with_redacts && let Some(redacts) = &event.redacts {
            text.string("redacts", redacts);
        }
        if let Some(room_id) = &event.room_id {
            text.string("room_id", room_id);
        }
        text.string("sender", &event.sender);
        if let Some(signatures) = signatures {
            text.raw("signatures", signatures);
        }
        if let Some(state_key) = &event.state_key {
            text.string("state_key", state_key);
        }
        text.string("type", &event.event_type);
        text.finish()
    }
}

/// The text of `prev_events` or `auth_events`.
fn references(references: &[EventRef], format: EventIdFormat) -> String {
    let mut text = String::with_capacity(2 + references.len() * 48);
    text.push('[');
    for (index, reference) in references.iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        if format == EventIdFormat::Opaque {
            text.push('[');
            canonical::write_string(&mut text, &reference.event_id);
            text.push_str(",{");
            if let Some(hash) = &reference.hash {
                text.push_str("\"sha256\":\"");
                BASE64.encode_string(hash, &mut text);
                text.push('"');
            }
            text.push_str("}]");
        } else {
            canonical::write_string(&mut text, &reference.event_id);
        }
    }
    text.push(']');
    text
}
