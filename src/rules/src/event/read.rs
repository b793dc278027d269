//! Reading events: from other servers, with every check of the format, and from our own store, with none.

use std::sync::{Arc, OnceLock};

use serde::Deserialize;

use super::{Inner, MAX_AUTH_EVENTS, MAX_EVENT_BYTES, MAX_PREV_EVENTS, Pdu};
use crate::{
    Object, RoomVersion,
    canonical::{self, CanonicalError, Numbers},
    hash, limits,
    members::{Members, Text},
    version::{EventIdFormat, Rules},
};

/// Why bytes are not an event.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Not JSON that the room version takes.
    #[error("event is not canonical JSON")]
    Json(#[from] CanonicalError),
    /// The named field is missing.
    #[error("event lacks `{0}`")]
    Missing(&'static str),
    /// The named field has the wrong type or form.
    #[error("`{0}` of the event is malformed")]
    Malformed(&'static str),
    /// The named field is longer than 255 bytes; or, where the room version goes by them, code points.
    #[error("`{0}` of the event is too long")]
    TooLong(&'static str),
    /// The named list has too many entries.
    #[error("event has too many `{0}`")]
    TooMany(&'static str),
    /// The event is larger than [`MAX_EVENT_BYTES`].
    #[error("event is too large")]
    TooLarge,
}

impl Pdu {
    /// Reads an event from another server, of a room of this version. Checks format and limits; signatures and hashes
    /// are [`crate::sign::verify`]'s. `unsigned` is dropped: nothing vouches for it.
    pub fn parse(version: RoomVersion, json: &[u8]) -> Result<Self, ParseError> {
        let numbers = version.rules().numbers();
        Self::from_object(version, canonical::parse_object(json, numbers)?)
    }

    /// As [`Self::parse`], for an event from a room's past: however many events it refers to. Old servers sent events that
    /// would be refused today (server-server specification, "Backfilling and retrieving missing events").
    pub fn parse_history(version: RoomVersion, json: &[u8]) -> Result<Self, ParseError> {
        let numbers = version.rules().numbers();
        let object = canonical::parse_object(json, numbers)?;
        let limits = Limits {
            prev_events: usize::MAX,
            auth_events: usize::MAX,
            ..Limits::of_others(version.rules())
        };
        Self::from_limited(version, object, limits)
    }

    /// As [`Self::parse`], from an object that is decoded already.
    pub fn from_object(version: RoomVersion, object: Object) -> Result<Self, ParseError> {
        Self::from_limited(version, object, Limits::of_others(version.rules()))
    }

    fn from_limited(
        version: RoomVersion,
        mut object: Object,
        limits: Limits,
    ) -> Result<Self, ParseError> {
        let rules = version.rules();
        object.remove("unsigned");
        let json = canonical::object_to_string(&object, rules.numbers())?;
        // Counted without `unsigned`, which every server fills differently: all must agree which events are too large.
        if json.len() > MAX_EVENT_BYTES {
            return Err(ParseError::TooLarge);
        }
        if let Some(value) = object.get("hashes") {
            let hash = value.get("sha256").and_then(serde_json::Value::as_str);
            hash.ok_or(ParseError::Malformed("hashes"))?;
        } else {
            return Err(ParseError::Missing("hashes"));
        }
        let signatures = object
            .get("signatures")
            .ok_or(ParseError::Missing("signatures"))?
            .as_object()
            .ok_or(ParseError::Malformed("signatures"))?;
        if signatures.values().any(|keys| !keys.is_object()) {
            return Err(ParseError::Malformed("signatures"));
        }
        let event_id = match rules.event_id {
            EventIdFormat::Opaque => None,
            EventIdFormat::Base64 | EventIdFormat::UrlSafeBase64 => {
                hash::event_id(version, &hash::reference_hash(version, &json)?)
            }
        };
        let event = Self::read(version, event_id.as_deref(), json)?;
        event.0.check(rules, limits)?;
        // The content is decoded already, and whoever checks the event will look at it.
        if let Some(serde_json::Value::Object(content)) = object.remove("content") {
            let _ = event.0.object.set(content);
        }
        Ok(event)
    }

    /// Reads an event from what [`Self::json`] gave, together with the ID it had. Trusts both.
    pub fn from_stored(
        version: RoomVersion,
        event_id: &str,
        json: &str,
    ) -> Result<Self, ParseError> {
        Self::read(version, Some(event_id), json.to_owned())
    }

    /// Takes the fields out of `json`. The ID is looked for in the event when not given.
    fn read(
        version: RoomVersion,
        event_id: Option<&str>,
        json: String,
    ) -> Result<Self, ParseError> {
        let rules = version.rules();
        let members = Members::of(&json).ok_or(ParseError::Malformed("event"))?;
        let event_type = required_string(&members, "type")?;
        let event_id = match event_id {
            Some(id) => id.into(),
            None => required_string(&members, "event_id")?,
        };
        let room_id = if rules.room_id_is_create_hash && event_type.as_ref() == "m.room.create" {
            // The create event of a v12 room carries no room ID (rule 1.2 of authorisation): it is what makes it.
            if members.get("room_id").is_some() {
                return Err(ParseError::Malformed("room_id"));
            }
            format!("!{}", event_id.strip_prefix('$').unwrap_or(&event_id)).into_boxed_str()
        } else {
            required_string(&members, "room_id")?
        };
        let content = members
            .get("content")
            .ok_or(ParseError::Missing("content"))?;
        if !content.starts_with('{') {
            return Err(ParseError::Malformed("content"));
        }
        // `content` is a slice of `json`, so this is its offset.
        let start = content.as_ptr().addr() - json.as_ptr().addr();
        let content = start..start + content.len();
        let references = |name| match rules.event_id {
            EventIdFormat::Opaque => paired_references(&members, name),
            EventIdFormat::Base64 | EventIdFormat::UrlSafeBase64 => references(&members, name),
        };
        let inner = Inner {
            version,
            event_id,
            room_id,
            sender: required_string(&members, "sender")?,
            state_key: members
                .get("state_key")
                .map(|text| string(text, "state_key"))
                .transpose()?,
            // Not a field of every event, so an odd one is no reason to drop those that only happen to have it.
            redacts: members
                .get("redacts")
                .and_then(|text| string(text, "redacts").ok()),
            origin_server_ts: integer(&members, "origin_server_ts")?,
            depth: integer(&members, "depth")?,
            prev_events: references("prev_events")?,
            auth_events: references("auth_events")?,
            event_type,
            content,
            object: OnceLock::new(),
            decoded: OnceLock::new(),
            json: Box::default(),
        };
        drop(members);
        Ok(Self(Arc::new(Inner {
            json: json.into_boxed_str(),
            ..inner
        })))
    }

    /// An event put together by [`super::EventBuilder`].
    pub(super) fn from_inner(inner: Inner) -> Result<Self, ParseError> {
        if inner.json.len() > MAX_EVENT_BYTES {
            return Err(ParseError::TooLarge);
        }
        inner.check(inner.version.rules(), Limits::STRICT)?;
        Ok(Self(Arc::new(inner)))
    }
}

/// What an event may have.
#[derive(Clone, Copy)]
struct Limits {
    prev_events: usize,
    auth_events: usize,
    /// Whether `type` and `state_key` are measured in bytes, rather than in code points.
    bytes: bool,
}

impl Limits {
    /// Of events of our own.
    const STRICT: Self = Self {
        prev_events: MAX_PREV_EVENTS,
        auth_events: MAX_AUTH_EVENTS,
        bytes: true,
    };

    /// Of events of other servers.
    const fn of_others(rules: &Rules) -> Self {
        Self {
            bytes: rules.strict_byte_limits,
            ..Self::STRICT
        }
    }
}

impl Inner {
    /// The limits on the fields, and their grammar.
    fn check(&self, rules: &Rules, most: Limits) -> Result<(), ParseError> {
        let length = |text: &str| {
            if most.bytes {
                text.len()
            } else {
                text.chars().count()
            }
        };
        let strings = [
            ("event_id", self.event_id.len()),
            ("room_id", self.room_id.len()),
            ("sender", self.sender.len()),
            ("type", length(&self.event_type)),
            ("state_key", self.state_key.as_deref().map_or(0, length)),
        ];
        for (name, length) in strings {
            if length > limits::MAX_ID_BYTES {
                return Err(ParseError::TooLong(name));
            }
        }
        if !limits::is_event_id(&self.event_id) {
            return Err(ParseError::Malformed("event_id"));
        }
        if !limits::is_room_id(&self.room_id) {
            return Err(ParseError::Malformed("room_id"));
        }
        if !limits::is_user_id(&self.sender) {
            return Err(ParseError::Malformed("sender"));
        }
        if !(0..=rules.max_depth).contains(&self.depth) {
            return Err(ParseError::Malformed("depth"));
        }
        let lists = [
            ("prev_events", &self.prev_events, most.prev_events),
            ("auth_events", &self.auth_events, most.auth_events),
        ];
        for (name, ids, limit) in lists {
            if ids.len() > limit {
                return Err(ParseError::TooMany(name));
            }
            if !ids.iter().all(|id| limits::is_event_id(id)) {
                return Err(ParseError::Malformed(name));
            }
        }
        Ok(())
    }
}

impl Rules {
    /// The numbers that events of this version may hold.
    pub fn numbers(&self) -> Numbers {
        if self.strict_canonical_json {
            Numbers::Strict
        } else {
            Numbers::Any
        }
    }
}

fn string(text: &str, name: &'static str) -> Result<Box<str>, ParseError> {
    let text: Text<'_> = serde_json::from_str(text).map_err(|_| ParseError::Malformed(name))?;
    Ok(text.0.into())
}

fn required_string(members: &Members<'_>, name: &'static str) -> Result<Box<str>, ParseError> {
    string(members.get(name).ok_or(ParseError::Missing(name))?, name)
}

fn integer(members: &Members<'_>, name: &'static str) -> Result<i64, ParseError> {
    let text = members.get(name).ok_or(ParseError::Missing(name))?;
    text.parse().map_err(|_| ParseError::Malformed(name))
}

/// v3 and later: a list of event IDs.
fn references(members: &Members<'_>, name: &'static str) -> Result<Box<[Box<str>]>, ParseError> {
    let text = members.get(name).ok_or(ParseError::Missing(name))?;
    serde_json::from_str(text).map_err(|_| ParseError::Malformed(name))
}

/// v1-2: a list of pairs of event ID and hashes.
fn paired_references(
    members: &Members<'_>,
    name: &'static str,
) -> Result<Box<[Box<str>]>, ParseError> {
    #[derive(Deserialize)]
    struct Pair(
        Box<str>,
        #[expect(dead_code, reason = "only its form matters")] Object,
    );

    let text = members.get(name).ok_or(ParseError::Missing(name))?;
    let pairs: Vec<Pair> = serde_json::from_str(text).map_err(|_| ParseError::Malformed(name))?;
    Ok(pairs.into_iter().map(|pair| pair.0).collect())
}
