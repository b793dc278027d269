//! What somebody who waits outside a room is shown of it.

use myelin_store::{CodecError, Parser, Value, Writer};
use myelin_types::EventNum;

use crate::RawJson;

/// What a user who was invited or who knocked is shown of a room: a snapshot of that time.
///
/// What the room becomes afterwards is none of an outsider's business and changes nothing here. What is redacted
/// afterwards is: a redaction takes back what an event says from everybody who was told it. Events are therefore kept by
/// number and read when they are shown, since a stored event is pruned once it is redacted. It also leaves the form open:
/// clients are shown four fields of each, other servers whole events.
#[derive(Clone, Debug, PartialEq)]
pub enum Shown {
    /// Events of a room that this server takes part in, in the order in which they are shown. The membership event itself
    /// is the last.
    Events(Vec<EventNum>),
    /// Of a room whose events this server does not have: what it was told. Rows of version 1 are of this kind too.
    Raw {
        /// Stripped state events as text, a JSON list.
        events: RawJson,
        /// The names of servers that are in the room, as far as they were told: those to ask for it.
        via: Vec<String>,
    },
}

const EVENTS: u8 = 0;
const RAW: u8 = 1;

impl Value for Shown {
    const VERSION: u8 = 3;

    fn encode(&self, writer: &mut Writer) {
        match self {
            Shown::Events(events) => {
                writer.u8(EVENTS);
                writer.postcard(events);
            }
            Shown::Raw { events, via } => {
                writer.u8(RAW);
                writer.postcard(via);
                events.encode(writer);
            }
        }
    }

    fn decode(version: u8, parser: &mut Parser<'_>) -> Result<Self, CodecError> {
        match version {
            // Copies of the events as they stood.
            1 => raw(parser, Vec::new()),
            2 | 3 => match parser.u8()? {
                EVENTS => parser.postcard().map(Shown::Events),
                RAW if version == 2 => raw(parser, Vec::new()),
                RAW => {
                    let via = parser.postcard()?;
                    raw(parser, via)
                }
                _ => Err(CodecError::Invalid("what is shown of a room")),
            },
            other => Err(CodecError::UnknownVersion(other)),
        }
    }
}

fn raw(parser: &mut Parser<'_>, via: Vec<String>) -> Result<Shown, CodecError> {
    let events = RawJson::decode(RawJson::VERSION, parser)?;
    Ok(Shown::Raw { events, via })
}

#[cfg(test)]
mod tests {
    use myelin_store::{CodecError, Parser, Value, Writer};
    use myelin_types::EventNum;
    use serde_json::json;

    use super::Shown;
    use crate::RawJson;

    fn encoded(value: &impl Value) -> Vec<u8> {
        let mut writer = Writer::new();
        value.encode(&mut writer);
        writer.into_bytes()
    }

    fn decoded(version: u8, bytes: &[u8]) -> Result<Shown, CodecError> {
        let mut parser = Parser::new(bytes);
        let shown = Shown::decode(version, &mut parser)?;
        parser.finish()?;
        Ok(shown)
    }

    fn told() -> RawJson {
        RawJson::of(&json!([{"type": "m.room.name", "content": {"name": "x"}}])).expect("JSON")
    }

    #[test]
    fn both_kinds_round_trip() {
        let events = Shown::Events([1, 300, u64::MAX].map(EventNum).into());
        let outside = Shown::Raw {
            events: told(),
            via: vec!["a.org".to_owned(), "b.org".to_owned()],
        };
        for shown in [Shown::Events(Vec::new()), events, outside] {
            let bytes = encoded(&shown);
            assert_eq!(decoded(Shown::VERSION, &bytes).expect("decodes"), shown);
        }
        assert!(decoded(Shown::VERSION, &[7]).is_err());
        assert!(decoded(Shown::VERSION, &[]).is_err());
    }

    #[test]
    fn copies_of_earlier_versions_are_read() {
        let shown = Shown::Raw {
            events: told(),
            via: Vec::new(),
        };
        let bytes = encoded(&told());
        assert_eq!(decoded(1, &bytes).expect("decodes"), shown);
        let mut second = vec![super::RAW];
        second.extend(bytes);
        assert_eq!(decoded(2, &second).expect("decodes"), shown);
    }

    #[test]
    fn events_take_little_room() {
        let shown = Shown::Events((5_000_000..5_000_008).map(EventNum).collect());
        assert!(encoded(&shown).len() <= 40);
    }
}
