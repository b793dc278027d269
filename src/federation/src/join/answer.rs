//! The answer to `send_join`, read as it comes off the wire.
//!
//! It may have hundreds of thousands of events. The text is cut into them piece by piece, so that the whole of it is never
//! in memory besides its parts, and whoever sends without end, or nests without end, is cut off. What the events say is
//! checked by `rooms`.

use ruma::OwnedServerName;
use serde_json::value::RawValue;

/// The greatest answer, in bytes.
pub(super) const MOST_BYTES: usize = 256 << 20;
/// Most events.
const MOST_EVENTS: usize = 500_000;
/// The greatest event, in bytes: a valid one has at most 64 KiB without `unsigned`. Greater ones are left out.
const MOST_OF_EVENT: usize = 256 << 10;
/// The greatest list of servers, in bytes.
const MOST_OF_SERVERS: usize = 8 << 20;
/// Most servers; further ones are left out.
const MOST_SERVERS: usize = 10_000;
/// The longest key that is remembered; all that are looked for are shorter.
const MOST_OF_KEY: usize = 64;

/// What a server answered.
#[derive(Debug, Default)]
pub struct SendJoinAnswer {
    /// `event`: the join with the server's signature.
    pub event: Option<Box<RawValue>>,
    /// `state`: the room's state before the join.
    pub state: Vec<Box<RawValue>>,
    /// `auth_chain`.
    pub auth_chain: Vec<Box<RawValue>>,
    /// `members_omitted`: whether memberships are missing in the state.
    pub members_omitted: bool,
    /// `servers_in_room`, as far as they are server names.
    pub servers_in_room: Vec<OwnedServerName>,
}

/// Why an answer is none.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// It is no JSON of the shape that is expected.
    #[error("the answer is malformed: {0}")]
    Malformed(&'static str),
    /// It is over one of the limits.
    #[error("the answer is too large")]
    TooLarge,
}

/// Reads an answer piece by piece.
#[derive(Debug, Default)]
pub struct Reader {
    answer: SendJoinAnswer,
    place: Place,
    /// Whether the answer is a pair of a number and the object, as version 1 of the endpoint has it.
    paired: bool,
    key: Vec<u8>,
    field: Field,
    value: Value,
    seen: Vec<Field>,
    bytes: usize,
    events: usize,
}

/// Where in the text the reader is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Start,
    /// In front of the pair's number, or in it.
    Number,
    /// After the pair's number.
    Second,
    /// In front of a key, or the end of the object; whether one must follow.
    Key {
        required: bool,
    },
    InKey {
        escaped: bool,
    },
    Colon,
    /// In front of the value of a key.
    Value,
    /// In a value that is taken as a whole.
    InValue,
    AfterValue,
    /// In front of an element of a list of events, or the end of the list; whether one must follow.
    Element {
        required: bool,
    },
    InElement,
    AfterElement,
    /// After the object, where the pair has to be closed.
    Close,
    End,
}

/// The keys of the object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Field {
    State,
    AuthChain,
    Event,
    MembersOmitted,
    Servers,
    #[default]
    Other,
}

impl Field {
    fn of(key: &str) -> Self {
        match key {
            "state" => Self::State,
            "auth_chain" => Self::AuthChain,
            "event" => Self::Event,
            "members_omitted" => Self::MembersOmitted,
            "servers_in_room" => Self::Servers,
            _ => Self::Other,
        }
    }

    /// How many bytes of its value are kept; of greater ones nothing is.
    fn limit(self) -> usize {
        match self {
            Self::State | Self::AuthChain | Self::Event => MOST_OF_EVENT,
            Self::MembersOmitted => 8,
            Self::Servers => MOST_OF_SERVERS,
            Self::Other => 0,
        }
    }
}

/// A value as far as it has come.
#[derive(Debug, Default)]
struct Value {
    text: Vec<u8>,
    limit: usize,
    overflown: bool,
    /// How many objects and lists are open.
    depth: usize,
    in_string: bool,
    escaped: bool,
    /// Whether it is a number or a word, which the next character that is none of it ends.
    bare: bool,
    begun: bool,
}

/// Whether a byte ended a value.
#[derive(PartialEq, Eq)]
enum Ended {
    No,
    /// With this byte.
    With,
    /// Before this byte.
    Before,
}

impl Value {
    fn start(&mut self, limit: usize) {
        self.text.clear();
        *self = Value {
            text: std::mem::take(&mut self.text),
            limit,
            ..Value::default()
        };
    }

    fn keep(&mut self, byte: u8) {
        if self.text.len() < self.limit {
            self.text.push(byte);
        } else {
            self.overflown = true;
            self.text.clear();
            self.limit = 0;
        }
    }

    fn take(&mut self, byte: u8) -> Ended {
        if self.in_string {
            self.keep(byte);
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => {
                    self.in_string = false;
                    return self.ended();
                }
                _ => {}
            }
            return Ended::No;
        }
        if self.bare && matches!(byte, b',' | b']' | b'}' | b' ' | b'\t' | b'\n' | b'\r') {
            return Ended::Before;
        }
        self.begun = true;
        self.keep(byte);
        match byte {
            b'"' => self.in_string = true,
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                return self.ended();
            }
            _ if self.depth == 0 => self.bare = true,
            _ => {}
        }
        Ended::No
    }

    fn ended(&self) -> Ended {
        if self.depth == 0 {
            Ended::With
        } else {
            Ended::No
        }
    }

    /// The text; none if it was too large to be kept.
    fn text(&self) -> Result<Option<&str>, AnswerError> {
        if self.overflown {
            return Ok(None);
        }
        std::str::from_utf8(&self.text)
            .map(Some)
            .map_err(|_| AnswerError::Malformed("it is not UTF-8"))
    }
}

impl Reader {
    /// A reader of one answer.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next piece.
    pub fn push(&mut self, piece: &[u8]) -> Result<(), AnswerError> {
        self.bytes += piece.len();
        if self.bytes > MOST_BYTES {
            return Err(AnswerError::TooLarge);
        }
        for byte in piece {
            self.take(*byte)?;
        }
        Ok(())
    }

    /// The answer, at its end.
    pub fn finish(self) -> Result<SendJoinAnswer, AnswerError> {
        if self.place != Place::End {
            return Err(AnswerError::Malformed("it ends too early"));
        }
        for field in [Field::State, Field::AuthChain] {
            if !self.seen.contains(&field) {
                return Err(AnswerError::Malformed("a list of events is missing"));
            }
        }
        Ok(self.answer)
    }

    fn take(&mut self, byte: u8) -> Result<(), AnswerError> {
        let malformed = |what| Err(AnswerError::Malformed(what));
        let blank = matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
        match self.place {
            Place::InValue | Place::InElement => return self.take_in_value(byte),
            Place::InKey { escaped } => {
                match byte {
                    b'"' if !escaped => {
                        self.field = self.named_field()?;
                        self.place = Place::Colon;
                        return Ok(());
                    }
                    _ if self.key.len() < MOST_OF_KEY => self.key.push(byte),
                    _ => {}
                }
                let escaped = byte == b'\\' && !escaped;
                self.place = Place::InKey { escaped };
            }
            _ if blank => {
                if self.place == Place::Number && !self.key.is_empty() {
                    self.place = Place::Second;
                    // The number's end is told from its comma.
                    return Ok(());
                }
            }
            Place::Start => {
                self.place = match byte {
                    b'{' => Place::Key { required: false },
                    b'[' => {
                        self.paired = true;
                        Place::Number
                    }
                    _ => return malformed("it is no object"),
                };
            }
            Place::Number => match byte {
                b'0'..=b'9' if self.key.len() < MOST_OF_KEY => self.key.push(byte),
                b',' if !self.key.is_empty() => {
                    self.key.clear();
                    self.place = Place::Second;
                }
                _ => return malformed("it is a list without a number"),
            },
            Place::Second => match byte {
                b',' if !self.key.is_empty() => self.key.clear(),
                b'{' if self.key.is_empty() => self.place = Place::Key { required: false },
                _ => return malformed("it is a list without an object"),
            },
            Place::Key { required } => match byte {
                b'"' => {
                    self.key.clear();
                    self.place = Place::InKey { escaped: false };
                }
                b'}' if !required => self.close(),
                _ => return malformed("a key is missing"),
            },
            Place::Colon if byte == b':' => self.place = Place::Value,
            Place::Colon => return malformed("a colon is missing"),
            Place::Value => {
                let listed = matches!(self.field, Field::State | Field::AuthChain);
                if listed && byte != b'[' {
                    return malformed("a list of events is none");
                }
                if listed {
                    self.place = Place::Element { required: false };
                } else {
                    self.value.start(self.field.limit());
                    self.place = Place::InValue;
                    return self.take_in_value(byte);
                }
            }
            Place::Element { required: false } if byte == b']' => self.place = Place::AfterValue,
            Place::Element { .. } => {
                self.value.start(self.field.limit());
                self.place = Place::InElement;
                return self.take_in_value(byte);
            }
            Place::AfterElement => {
                self.place = match byte {
                    b',' => Place::Element { required: true },
                    b']' => Place::AfterValue,
                    _ => return malformed("a comma is missing"),
                };
            }
            Place::AfterValue => match byte {
                b',' => self.place = Place::Key { required: true },
                b'}' => self.close(),
                _ => return malformed("a comma is missing"),
            },
            Place::Close if byte == b']' => self.place = Place::End,
            Place::Close | Place::End => return malformed("more follows"),
        }
        Ok(())
    }

    fn close(&mut self) {
        self.place = if self.paired {
            Place::Close
        } else {
            Place::End
        };
    }

    fn named_field(&mut self) -> Result<Field, AnswerError> {
        let mut quoted = vec![b'"'];
        quoted.append(&mut self.key);
        quoted.push(b'"');
        // What was cut short, or is no string, is none of the keys that matter.
        let key = serde_json::from_slice::<String>(&quoted).unwrap_or_default();
        let field = Field::of(&key);
        if field != Field::Other {
            if self.seen.contains(&field) {
                return Err(AnswerError::Malformed("a key is there twice"));
            }
            self.seen.push(field);
        }
        Ok(field)
    }

    fn take_in_value(&mut self, byte: u8) -> Result<(), AnswerError> {
        let first = !self.value.begun;
        if first && matches!(byte, b',' | b']' | b'}' | b':') {
            return Err(AnswerError::Malformed("a value is missing"));
        }
        let ended = self.value.take(byte);
        if ended == Ended::No {
            return Ok(());
        }
        let in_list = self.place == Place::InElement;
        self.place = if in_list {
            Place::AfterElement
        } else {
            Place::AfterValue
        };
        self.keep_value()?;
        if ended == Ended::Before {
            return self.take(byte);
        }
        Ok(())
    }

    fn keep_value(&mut self) -> Result<(), AnswerError> {
        if self.field == Field::Other {
            return Ok(());
        }
        let Some(text) = self.value.text()? else {
            return Ok(());
        };
        let broken = |_| AnswerError::Malformed("it is not JSON");
        match self.field {
            Field::State | Field::AuthChain | Field::Event => {
                if self.events >= MOST_EVENTS {
                    return Err(AnswerError::TooLarge);
                }
                self.events += 1;
                let event = RawValue::from_string(text.to_owned()).map_err(broken)?;
                match self.field {
                    Field::State => self.answer.state.push(event),
                    Field::AuthChain => self.answer.auth_chain.push(event),
                    // Some servers say that there is none.
                    _ if event.get() == "null" => {}
                    _ => self.answer.event = Some(event),
                }
            }
            Field::MembersOmitted => {
                self.answer.members_omitted = serde_json::from_str(text).map_err(broken)?;
            }
            Field::Servers => {
                let names: Vec<String> = serde_json::from_str(text).map_err(broken)?;
                let names = names.into_iter().map(OwnedServerName::try_from);
                let names = names.filter_map(Result::ok).take(MOST_SERVERS);
                self.answer.servers_in_room = names.collect();
            }
            Field::Other => {}
        }
        Ok(())
    }
}

/// Reads a whole answer.
pub fn read_answer(text: &[u8]) -> Result<SendJoinAnswer, AnswerError> {
    let mut reader = Reader::new();
    reader.push(text)?;
    reader.finish()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::{AnswerError, Reader, SendJoinAnswer, read_answer};

    fn texts(events: &[Box<serde_json::value::RawValue>]) -> Vec<Value> {
        let values = events.iter().map(|event| serde_json::from_str(event.get()));
        values
            .map(|value| value.expect("events are JSON"))
            .collect()
    }

    fn check(answer: &SendJoinAnswer, body: &Value) {
        let list = |key: &str| body[key].as_array().cloned().unwrap_or_default();
        assert_eq!(texts(&answer.state), list("state"));
        assert_eq!(texts(&answer.auth_chain), list("auth_chain"));
        let event = answer.event.as_ref().map(|event| event.get());
        let event = event.map(|event| serde_json::from_str::<Value>(event).expect("JSON"));
        assert_eq!(event.as_ref(), body.get("event"));
        assert_eq!(
            answer.members_omitted,
            body["members_omitted"].as_bool().unwrap_or(false)
        );
    }

    fn events() -> impl Strategy<Value = Vec<Value>> {
        let leaf = prop_oneof![
            any::<i32>().prop_map(Value::from),
            "[ -~]{0,20}".prop_map(Value::from),
            "\\PC{0,10}".prop_map(Value::from),
            Just(Value::Bool(true)),
            Just(Value::Null),
        ];
        let value = leaf.prop_recursive(4, 16, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map("[a-z\"\\\\]{0,6}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        });
        proptest::collection::vec(value, 0..6)
    }

    proptest! {
        #[test]
        fn an_answer_is_read_alike_however_it_is_cut(
            (state, chain) in (events(), events()),
            (event, omitted, other) in (events(), any::<bool>(), events()),
            (pretty, paired) in any::<(bool, bool)>(),
            cuts in proptest::collection::vec(1_usize..40, 1..20),
        ) {
            let mut body = json!({
                "state": state, "auth_chain": chain, "members_omitted": omitted,
                "other": other, "servers_in_room": ["a.org", "no server", "b.org:1"],
            });
            if let Some(event) = event.first().filter(|event| !event.is_null()) {
                body["event"] = event.clone();
            }
            let whole = if paired { json!([200, body]) } else { body.clone() };
            let text = if pretty {
                serde_json::to_string_pretty(&whole)
            } else {
                serde_json::to_string(&whole)
            };
            let text = text.expect("it is JSON").into_bytes();
            check(&read_answer(&text).expect("it is an answer"), &body);
            let mut reader = Reader::new();
            let mut rest = &text[..];
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (piece, after) = rest.split_at((*cut).min(rest.len()));
                reader.push(piece).expect("it is an answer");
                rest = after;
            }
            let answer = reader.finish().expect("it is an answer");
            check(&answer, &body);
            prop_assert_eq!(answer.servers_in_room, ["a.org", "b.org:1"]);
            // An answer that is cut short is none.
            prop_assert!(read_answer(&text[..text.len() - 1]).is_err());
        }

        #[test]
        fn whatever_comes_is_read_or_refused(text in "[\\[\\]{}\",:\\\\ a-z0-9]{0,80}") {
            let _ = read_answer(text.as_bytes());
            let within = format!("{{\"state\":[{text}],\"auth_chain\":[]}}");
            if let Ok(answer) = read_answer(within.as_bytes())
                && let Ok(body) = serde_json::from_str::<Value>(&within)
            {
                check(&answer, &body);
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read_answer(&bytes);
        }
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        for (text, what) in [
            ("", "it ends too early"),
            ("[]", "it is a list without a number"),
            ("[200]", "it is a list without a number"),
            ("{}", "a list of events is missing"),
            (r#"{"state":[]}"#, "a list of events is missing"),
            (
                r#"{"state":{},"auth_chain":[]}"#,
                "a list of events is none",
            ),
            (r#"{"state":[],"state":[]}"#, "a key is there twice"),
            (r#"{"state":[],"auth_chain":[],}"#, "a key is missing"),
            (r#"{"state":[{}{}],"auth_chain":[]}"#, "a comma is missing"),
            (r#"{"state":[{},],"auth_chain":[]}"#, "a value is missing"),
            (r#"{"state":[{]],"auth_chain":[]}"#, "it is not JSON"),
            (r#"{"state":[],"auth_chain":[]}{"#, "more follows"),
        ] {
            let error = read_answer(text.as_bytes()).expect_err(text);
            assert_eq!(error, AnswerError::Malformed(what), "{text}");
        }
    }

    #[test]
    fn events_that_are_too_large_are_left_out() {
        let large = json!({ "a": "x".repeat(300 << 10) });
        let body = json!({ "state": [{"b": 1}, large, {"c": 1}], "auth_chain": [] });
        let answer = read_answer(body.to_string().as_bytes()).expect("it is an answer");
        assert_eq!(texts(&answer.state), [json!({"b": 1}), json!({"c": 1})]);
    }

    #[test]
    fn nesting_without_end_is_cut_off() {
        let mut text = br#"{"state":["#.to_vec();
        text.extend(std::iter::repeat_n(b'[', 1 << 20));
        let mut reader = Reader::new();
        reader.push(&text).expect("so far it may be one");
        assert!(reader.finish().is_err());
    }
}
