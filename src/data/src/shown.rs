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
    /// Stripped state events as text, a JSON list: of a room whose events this server does not have, as the inviting
    /// server wrote them. Rows of version 1 are of this kind too.
    Raw(RawJson),
}

const EVENTS: u8 = 0;
const RAW: u8 = 1;

impl Value for Shown {
    const VERSION: u8 = 2;

    fn encode(&self, writer: &mut Writer) {
        match self {
            Shown::Events(events) => {
                writer.u8(EVENTS);
                writer.postcard(events);
            }
            Shown::Raw(json) => {
                writer.u8(RAW);
                json.encode(writer);
            }
        }
    }

    fn decode(version: u8, parser: &mut Parser<'_>) -> Result<Self, CodecError> {
        match version {
            // Copies of the events as they stood.
            1 => RawJson::decode(1, parser).map(Shown::Raw),
            2 => match parser.u8()? {
                EVENTS => parser.postcard().map(Shown::Events),
                RAW => RawJson::decode(RawJson::VERSION, parser).map(Shown::Raw),
                _ => Err(CodecError::Invalid("what is shown of a room")),
            },
            other => Err(CodecError::UnknownVersion(other)),
        }
    }
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

    fn raw() -> RawJson {
        RawJson::of(&json!([{"type": "m.room.name", "content": {"name": "x"}}])).expect("JSON")
    }

    #[test]
    fn both_kinds_round_trip() {
        let events = Shown::Events([1, 300, u64::MAX].map(EventNum).into());
        for shown in [Shown::Events(Vec::new()), events, Shown::Raw(raw())] {
            let bytes = encoded(&shown);
            assert_eq!(decoded(Shown::VERSION, &bytes).expect("decodes"), shown);
        }
        assert!(decoded(Shown::VERSION, &[7]).is_err());
        assert!(decoded(Shown::VERSION, &[]).is_err());
    }

    #[test]
    fn copies_of_the_first_version_are_read() {
        let bytes = encoded(&raw());
        assert_eq!(decoded(1, &bytes).expect("decodes"), Shown::Raw(raw()));
    }

    #[test]
    fn events_take_little_room() {
        let shown = Shown::Events((5_000_000..5_000_008).map(EventNum).collect());
        assert!(encoded(&shown).len() <= 40);
    }
}
