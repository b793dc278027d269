//! Events in the formats that clients get them in. Spec: client-server API, "Room event format" and "Stripped state".

use std::{collections::HashMap, sync::Arc};

use myelin_data::rooms::Membership;
use myelin_rules::Pdu;
use myelin_store::StoreError;
use myelin_types::{EventNum, Millis};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use super::{RoomView, Sight, Viewer};
use crate::Event;

/// A format of events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For clients, with the room's id: for everything but a sync.
    #[default]
    Client,
    /// For clients, without the room's id, which a sync has said already.
    Sync,
    /// As servers exchange it, for filters with `event_format: federation`.
    Federation,
}

/// Writes a room's events for one viewer.
pub struct Shaper<'a> {
    room: &'a RoomView<'a>,
    viewer: &'a Viewer,
    format: Format,
    now: Millis,
    fields: Option<&'a [String]>,
}

/// `unsigned` of an event in the clients' format.
#[derive(Serialize)]
struct Unsigned<'a> {
    age: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    membership: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prev_content: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prev_sender: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    redacted_because: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    replaces_state: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    transaction_id: Option<&'a str>,
}

impl<'a> Shaper<'a> {
    /// A writer of whole events in `format`.
    pub fn new(room: &'a RoomView<'a>, viewer: &'a Viewer, format: Format) -> Self {
        Self {
            room,
            viewer,
            format,
            now: room.rooms().clock().now(),
            fields: None,
        }
    }

    /// Keeps only these fields of each event (`event_fields` of a filter).
    #[must_use]
    pub fn with_fields(self, fields: Option<&'a [String]>) -> Self {
        Self { fields, ..self }
    }

    /// Events of a timeline: each says what the viewer was in the room then.
    pub fn timeline(
        &self,
        sight: &mut Sight<'_>,
        events: &[Arc<Event>],
    ) -> Result<Vec<Box<RawValue>>, StoreError> {
        let memberships = events
            .iter()
            .map(|event| sight.membership_at(event).map(Some))
            .collect::<Result<Vec<_>, StoreError>>()?;
        self.shape(events, &memberships)
    }

    /// Events of a state.
    pub fn state(&self, events: &[Arc<Event>]) -> Result<Vec<Box<RawValue>>, StoreError> {
        self.shape(events, &vec![None; events.len()])
    }

    fn shape(
        &self,
        events: &[Arc<Event>],
        memberships: &[Option<Membership>],
    ) -> Result<Vec<Box<RawValue>>, StoreError> {
        if self.format == Format::Federation {
            let raw = events
                .iter()
                .map(|event| self.pruned(event.pdu.json().to_owned()));
            return raw.collect();
        }
        let referred: Vec<EventNum> = events
            .iter()
            .flat_map(|event| [event.header.replaces, event.header.redacted_by])
            .flatten()
            .collect();
        let others: HashMap<EventNum, Arc<Event>> = referred
            .iter()
            .copied()
            .zip(self.room.events(&referred)?)
            .collect();
        events
            .iter()
            .zip(memberships)
            .map(|(event, membership)| {
                let other = |num: Option<EventNum>| {
                    num.and_then(|num| others.get(&num)).map(|other| &**other)
                };
                let redaction = match other(event.header.redacted_by) {
                    Some(redaction) => Some(self.client(redaction, None, None, None)?),
                    None => None,
                };
                let replaced = other(event.header.replaces);
                self.pruned(self.client(event, *membership, replaced, redaction.as_deref())?)
            })
            .collect()
    }

    /// An event in the clients' format.
    fn client(
        &self,
        event: &Event,
        membership: Option<Membership>,
        replaced: Option<&Event>,
        redaction: Option<&str>,
    ) -> Result<String, StoreError> {
        let transaction = event.header.transaction.as_ref().filter(|transaction| {
            event.header.sender == self.viewer.user
                && self.viewer.device_id.as_ref() == Some(&transaction.device_id)
        });
        let unsigned = Unsigned {
            age: self.now.0.saturating_sub(event.pdu.origin_server_ts().0),
            membership: membership.map(Membership::as_str),
            prev_content: replaced
                .map(|replaced| raw(replaced.pdu.content_json()))
                .transpose()?,
            prev_sender: replaced.map(|replaced| replaced.pdu.sender()),
            redacted_because: redaction.map(raw).transpose()?,
            replaces_state: replaced.map(|replaced| replaced.pdu.event_id()),
            transaction_id: transaction.map(|transaction| transaction.transaction_id.as_str()),
        };
        let unsigned = serde_json::to_string(&unsigned).map_err(|_| MALFORMED)?;
        let with_room_id = self.format == Format::Client;
        Ok(event.pdu.client_json(with_room_id, Some(&unsigned)))
    }

    /// The fields of an event that are wanted.
    fn pruned(&self, json: String) -> Result<Box<RawValue>, StoreError> {
        let Some(fields) = self.fields else {
            return RawValue::from_string(json).map_err(|_| MALFORMED);
        };
        let event: serde_json::Value = serde_json::from_str(&json).map_err(|_| MALFORMED)?;
        let mut kept = serde_json::Value::Object(serde_json::Map::new());
        for field in fields {
            keep(&event, &mut kept, &field_path(field));
        }
        to_raw_value(&kept).map_err(|_| MALFORMED)
    }
}

/// A stored event that cannot be written as JSON is none.
const MALFORMED: StoreError = StoreError::Missing("events");

fn raw(json: &str) -> Result<&RawValue, StoreError> {
    serde_json::from_str(json).map_err(|_| MALFORMED)
}

/// The names in `event_fields`: separated by dots, where a backslash takes the meaning from a dot or backslash.
fn field_path(field: &str) -> Vec<String> {
    let mut path = vec![String::new()];
    let mut chars = field.chars();
    while let Some(char) = chars.next() {
        match char {
            '.' => path.push(String::new()),
            char => {
                let char = match char {
                    '\\' => chars.next().unwrap_or('\\'),
                    other => other,
                };
                if let Some(name) = path.last_mut() {
                    name.push(char);
                }
            }
        }
    }
    path
}

/// Copies what stands at `path` of `from`, with the objects that lead there.
fn keep(from: &serde_json::Value, to: &mut serde_json::Value, path: &[String]) {
    let Some((name, rest)) = path.split_first() else {
        return;
    };
    let (Some(value), Some(target)) = (from.get(name), to.as_object_mut()) else {
        return;
    };
    if rest.is_empty() {
        target.insert(name.clone(), value.clone());
    } else if value.is_object() {
        let target = target
            .entry(name.clone())
            .or_insert_with(|| serde_json::Value::Object(serde_json::Map::new()));
        keep(value, target, rest);
    }
}

/// A state event as somebody outside the room is shown it.
#[derive(Serialize)]
pub(crate) struct Stripped<'a> {
    pub(crate) content: &'a RawValue,
    pub(crate) sender: &'a str,
    pub(crate) state_key: &'a str,
    pub(crate) r#type: &'a str,
}

/// An event of a state as somebody outside the room is shown it: type, state key, sender and content. A create event that
/// gives its room the id comes whole, so that whoever is shown it can check that it does.
pub fn stripped(event: &Event) -> Result<Box<RawValue>, StoreError> {
    stripped_pdu(&event.pdu)
}

/// The same for an event that is not stored.
pub(crate) fn stripped_pdu(event: &Pdu) -> Result<Box<RawValue>, StoreError> {
    if event.version().rules().room_id_is_create_hash && event.is_state("m.room.create", "") {
        return RawValue::from_string(event.json().to_owned()).map_err(|_| MALFORMED);
    }
    to_raw_value(&Stripped {
        content: raw(event.content_json())?,
        sender: event.sender(),
        state_key: event.state_key().unwrap_or_default(),
        r#type: event.event_type(),
    })
    .map_err(|_| MALFORMED)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{field_path, keep};

    #[test]
    fn fields_are_picked_by_their_paths() {
        let event = json!({"a": 1, "content": {"body": "x", "m.b": 2, "sub": {"y": 3, "z": 4}}});
        for (fields, expected) in [
            (vec!["a"], json!({"a": 1})),
            (
                vec!["content.body", "content.sub.z"],
                json!({"content": {"body": "x", "sub": {"z": 4}}}),
            ),
            (vec![r"content.m\.b"], json!({"content": {"m.b": 2}})),
            (
                vec!["content", "content.body", "none", "a.b"],
                json!({"content": event["content"]}),
            ),
            (vec![], json!({})),
        ] {
            let mut kept = json!({});
            for field in fields {
                keep(&event, &mut kept, &field_path(field));
            }
            assert_eq!(kept, expected);
        }
    }
}
