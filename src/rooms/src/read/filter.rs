//! Filters that clients hand in: which events they want. Spec: client-server API, "Filtering".

use ruma::{
    OwnedRoomId, OwnedUserId, RoomId,
    api::client::filter::{Filter, RoomEventFilter, UrlFilter},
};

use crate::Event;

/// A filter of events, ready for use.
#[derive(Clone, Debug, Default)]
pub struct EventMatcher {
    types: Option<Vec<String>>,
    not_types: Vec<String>,
    senders: Option<Vec<OwnedUserId>>,
    not_senders: Vec<OwnedUserId>,
    rooms: Option<Vec<OwnedRoomId>>,
    not_rooms: Vec<OwnedRoomId>,
    url: Option<bool>,
}

impl From<&RoomEventFilter> for EventMatcher {
    fn from(filter: &RoomEventFilter) -> Self {
        Self {
            types: filter.types.clone(),
            not_types: filter.not_types.clone(),
            senders: filter.senders.clone(),
            not_senders: filter.not_senders.clone(),
            rooms: filter.rooms.clone(),
            not_rooms: filter.not_rooms.clone(),
            url: filter
                .url_filter
                .as_ref()
                .map(|url| matches!(url, UrlFilter::EventsWithUrl)),
        }
    }
}

impl From<&Filter> for EventMatcher {
    fn from(filter: &Filter) -> Self {
        Self {
            types: filter.types.clone(),
            not_types: filter.not_types.clone(),
            senders: filter.senders.clone(),
            not_senders: filter.not_senders.clone(),
            ..Self::default()
        }
    }
}

impl EventMatcher {
    /// Whether events of a room are wanted at all.
    pub fn takes_room(&self, room: &RoomId) -> bool {
        !self.not_rooms.iter().any(|id| id == room)
            && self
                .rooms
                .as_ref()
                .is_none_or(|rooms| rooms.iter().any(|id| id == room))
    }

    /// Whether events of a type are wanted.
    pub fn takes_type(&self, event_type: &str) -> bool {
        let among = |types: &[String]| types.iter().any(|pattern| wildcard(pattern, event_type));
        !among(&self.not_types) && self.types.as_ref().is_none_or(|types| among(types))
    }

    /// Whether events of a sender are wanted.
    pub fn takes_sender(&self, sender: &str) -> bool {
        let among = |users: &[OwnedUserId]| users.iter().any(|user| user.as_str() == sender);
        !among(&self.not_senders) && self.senders.as_ref().is_none_or(|senders| among(senders))
    }

    /// Whether no event at all is wanted.
    pub fn takes_nothing(&self) -> bool {
        let empty = |list: Option<bool>| list.unwrap_or(false);
        empty(self.types.as_ref().map(Vec::is_empty))
            || empty(self.senders.as_ref().map(Vec::is_empty))
            || empty(self.rooms.as_ref().map(Vec::is_empty))
    }

    /// Whether an event of a room that is wanted is wanted itself.
    pub fn takes(&self, event: &Event) -> bool {
        self.takes_type(event.pdu.event_type())
            && self.takes_sender(event.pdu.sender())
            && self.url.is_none_or(|wanted| {
                let url = event.pdu.content_value("url");
                wanted == url.is_some_and(|url| url.is_string())
            })
    }
}

/// Whether `text` matches `pattern`, in which `*` stands for any sequence of characters.
fn wildcard(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else {
        return false;
    };
    let Some(last) = parts.next_back() else {
        return rest.is_empty();
    };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::wildcard;

    #[test]
    fn asterisks_stand_for_anything() {
        for (pattern, text, expected) in [
            ("m.room.message", "m.room.message", true),
            ("m.room.message", "m.room.messages", false),
            ("m.room", "m.room.message", false),
            ("m.room.*", "m.room.message", true),
            ("m.room.*", "m.room.", true),
            ("m.room.*", "m.room", false),
            ("*", "", true),
            ("*", "anything", true),
            ("*.message", "m.room.message", true),
            ("m.*.message", "m.room.message", true),
            ("m.*.message", "m.message", false),
            ("m*m*e", "m.room.message", true),
            ("a*a", "a", false),
            ("**x**", "x", true),
            ("ä*", "äö", true),
            ("", "", true),
            ("", "x", false),
        ] {
            assert_eq!(wildcard(pattern, text), expected, "{pattern} {text}");
        }
    }
}
