//! What servers tell each other of a room whose inside the other does not see, with an invitation or in answer to a
//! knock: whole events, so that whoever is told can verify them. Spec: client-server API, "Stripped state"; server-server
//! API, "Inviting to a room", "Knocking upon a room".

use myelin_rules::{Pdu, RoomVersion};
use ruma::RoomId;
use serde::Deserialize;
use serde_json::value::{RawValue, to_raw_value};

use super::{Fetch, check};
use crate::{
    Failure, Rooms,
    head::SHOWN_TO_INVITED,
    pipeline::RoomGuard,
    read::{Stripped, stripped_pdu},
};

/// Most events that are taken of what another server tells; rooms show less than ten. Further ones are left out.
const MOST_EVENTS: usize = 40;
/// Most bytes of what clients are shown of it; what exceeds them is left out.
const MOST_BYTES: usize = 128 << 10;

/// What another server told of a room.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// The events as clients are shown them: only those that hold.
    pub(super) shown: Vec<Box<RawValue>>,
    /// Whether the create event is among them, verified.
    pub(super) has_create: bool,
    /// Whether a create event, verified or not, names another version than the room is said to have.
    pub(super) has_other_version: bool,
    /// What is wrong with an event that does not hold.
    pub(super) flaw: Option<String>,
}

impl RoomGuard {
    /// What servers outside the room are told of it.
    pub(super) fn told_outside(&self) -> Vec<Pdu> {
        let events = SHOWN_TO_INVITED
            .iter()
            .filter_map(|event_type| self.state().kept_event(event_type));
        events.map(|event| event.pdu.clone()).collect()
    }
}

impl Rooms {
    /// Checks what another server told of a room, event by event: its form, its room, its signatures and hash.
    ///
    /// Until version 12 servers may still tell events in the old form, of which nothing can be verified. Clients are shown
    /// those as they are: the server that invites somebody could tell him as much in any case.
    pub(super) async fn check_told(
        &self,
        fetch: &dyn Fetch,
        version: RoomVersion,
        room_id: &RoomId,
        told: Vec<Box<RawValue>>,
    ) -> Result<Told, Failure> {
        let strict = version.rules().room_id_is_create_hash;
        let mut told = told;
        told.truncate(MOST_EVENTS);
        let mut answer = Told::default();
        let mut whole = Vec::new();
        for json in told {
            answer.has_other_version |= names_other_version(&json, version);
            if !strict && let Some(stripped) = unsigned(&json) {
                answer.shown.push(stripped);
                continue;
            }
            match check::parse_in(version, room_id.as_str(), &json) {
                Ok(pdu) if pdu.state_key().is_some() => whole.push(pdu),
                Ok(_) => answer.flaw = Some("an event is none of a state".to_owned()),
                Err(error) => answer.flaw = Some(error.to_string()),
            }
        }
        for verified in self.verify(fetch, whole).await? {
            match verified {
                Ok(pdu) => {
                    answer.shown.extend(stripped_pdu(&pdu).ok());
                    answer.has_create |= pdu.is_state("m.room.create", "");
                }
                Err(error) => answer.flaw = Some(error.to_string()),
            }
        }
        let mut bytes = 0;
        answer.shown.retain(|event| {
            bytes += event.get().len();
            bytes <= MOST_BYTES
        });
        Ok(answer)
    }
}

/// Whether an event, whatever its form, is a create event of a room of another version.
fn names_other_version(json: &RawValue, version: RoomVersion) -> bool {
    #[derive(Deserialize)]
    struct Create {
        r#type: String,
        content: Content,
    }

    #[derive(Deserialize)]
    struct Content {
        room_version: Option<String>,
    }

    let Ok(event) = serde_json::from_str::<Create>(json.get()) else {
        return false;
    };
    let named = event.content.room_version;
    event.r#type == "m.room.create" && named.as_deref().unwrap_or("1") != version.as_str()
}

/// An event in the form that was told before whole events were, without anything else that came with it; none for what
/// claims to be more than that, or is less.
fn unsigned(json: &RawValue) -> Option<Box<RawValue>> {
    #[derive(Deserialize)]
    struct Claimed<'a> {
        #[serde(borrow)]
        content: &'a RawValue,
        sender: String,
        state_key: String,
        r#type: String,
        signatures: Option<serde::de::IgnoredAny>,
    }

    let claimed: Claimed<'_> = serde_json::from_str(json.get()).ok()?;
    if claimed.signatures.is_some() || !claimed.content.get().starts_with('{') {
        return None;
    }
    to_raw_value(&Stripped {
        content: claimed.content,
        sender: &claimed.sender,
        state_key: &claimed.state_key,
        r#type: &claimed.r#type,
    })
    .ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json, value::RawValue};

    use super::unsigned;

    fn raw(value: &Value) -> Box<RawValue> {
        serde_json::value::to_raw_value(value).expect("it is JSON")
    }

    #[test]
    fn only_four_fields_of_an_unsigned_event_are_shown() {
        let event = json!({
            "type": "m.room.name", "state_key": "", "sender": "@a:b", "content": { "name": "x" },
            "event_id": "$e", "unsigned": { "age": 1 },
        });
        let shown = unsigned(&raw(&event)).expect("it is one");
        let shown: Value = serde_json::from_str(shown.get()).expect("it is JSON");
        let expected = json!({
            "type": "m.room.name", "state_key": "", "sender": "@a:b", "content": { "name": "x" },
        });
        assert_eq!(shown, expected);
    }

    #[test]
    fn what_claims_to_be_signed_or_is_no_state_is_no_unsigned_event() {
        let good = json!({ "type": "t", "state_key": "", "sender": "@a:b", "content": {} });
        assert!(unsigned(&raw(&good)).is_some());
        for (key, value) in [
            ("signatures", json!({ "b": { "ed25519:1": "x" } })),
            ("content", json!([])),
            ("state_key", json!(1)),
            ("sender", Value::Null),
        ] {
            let mut bad = good.clone();
            bad[key] = value;
            assert!(unsigned(&raw(&bad)).is_none(), "{key}");
        }
        for text in ["[]", "1", "{}", "\"x\""] {
            let json = RawValue::from_string(text.to_owned()).expect("it is JSON");
            assert!(unsigned(&json).is_none(), "{text}");
        }
    }

    proptest! {
        /// Whatever is told, what is shown of it has four fields and nothing else.
        #[test]
        fn nothing_else_is_ever_shown(
            keys in proptest::collection::btree_map("[a-z_]{1,10}", "[a-z@:{}\\[\\]\"\\\\]{0,12}", 0..5),
            with_fields in any::<[bool; 4]>(),
        ) {
            let mut event: serde_json::Map<String, Value> =
                keys.into_iter().map(|(key, value)| (key, value.into())).collect();
            let fields = [
                ("type", json!("t")), ("state_key", json!("")),
                ("sender", json!("@a:b")), ("content", json!({ "a": [1, "\"}"] })),
            ];
            for ((key, value), with) in fields.into_iter().zip(with_fields) {
                if with {
                    event.insert(key.to_owned(), value);
                }
            }
            if let Some(shown) = unsigned(&raw(&Value::Object(event.clone()))) {
                let shown: serde_json::Map<String, Value> =
                    serde_json::from_str(shown.get()).expect("it is JSON");
                prop_assert_eq!(shown.len(), 4);
                for (key, value) in shown {
                    prop_assert_eq!(event.get(&key), Some(&value));
                }
            }
        }
    }
}
