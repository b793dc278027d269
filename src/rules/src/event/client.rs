//! The form of events that clients see. Spec: client-server API, "Room event format".

use std::borrow::Cow;

use super::Pdu;
use crate::{canonical::write_string, members::ObjectWriter};

impl Pdu {
    /// The event in the form of the client-server API, as JSON: without what only servers need; with `event_id`, with
    /// `room_id` if asked for, and with `unsigned` (the text of a JSON object) if given.
    ///
    /// The target of a redaction is both in `content` and at the top level, as `/rooms/v11` asks for clients of either
    /// age.
    pub fn client_json(&self, with_room_id: bool, unsigned: Option<&str>) -> String {
        let redacts = self.redacts();
        let content = match redacts {
            Some(target) if self.content().get("redacts").is_none() => {
                Cow::Owned(with_member(self.content_json(), "redacts", target))
            }
            _ => Cow::Borrowed(self.content_json()),
        };
        let unsigned_bytes = unsigned.map_or(0, str::len);
        let mut json = ObjectWriter::with_capacity(content.len() + unsigned_bytes + 400);
        json.raw("content", &content);
        json.string("event_id", self.event_id());
        json.integer("origin_server_ts", self.origin_server_ts().0);
        if let Some(target) = redacts {
            json.string("redacts", target);
        }
        if with_room_id {
            json.string("room_id", self.room_id());
        }
        json.string("sender", self.sender());
        if let Some(state_key) = self.state_key() {
            json.string("state_key", state_key);
        }
        json.string("type", self.event_type());
        if let Some(unsigned) = unsigned {
            json.raw("unsigned", unsigned);
        }
        json.finish()
    }
}

/// The text of an object with one more member.
fn with_member(object: &str, key: &str, value: &str) -> String {
    let mut text = object
        .strip_suffix('}')
        .expect("the text of an object ends with a brace")
        .to_owned();
    if text.len() > 1 {
        text.push(',');
    }
    write_string(&mut text, key);
    text.push(':');
    write_string(&mut text, value);
    text.push('}');
    text
}
