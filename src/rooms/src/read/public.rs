//! `GET` and `POST /publicRooms`: the directory of rooms that everybody may find.
//!
//! Newest rooms come first: an order that stays, so that pages neither overlap nor leave rooms out.

use std::str::FromStr;

use myelin_data::rooms::Published;
use myelin_rules::visibility::HistoryVisibility;
use myelin_store::{Scan, StoreError, View};
use myelin_types::RoomNum;
use ruma::OwnedRoomId;
use serde::Serialize;
use thiserror::Error;

use super::{RoomView, access::visibility_in};
use crate::Rooms;

/// The page size of clients that name none.
const DEFAULT_LIMIT: usize = 100;
/// The largest page.
const MAX_LIMIT: usize = 500;

/// Where a page of the directory begins, and which way it goes. Its text is opaque to clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublicRoomsToken {
    /// Rooms after this one.
    After(RoomNum),
    /// Rooms before this one.
    Before(RoomNum),
}

/// A text that is no token of the directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("not a token of the directory")]
pub struct InvalidToken;

impl std::fmt::Display for PublicRoomsToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            PublicRoomsToken::After(room) => write!(f, "n{}", room.0),
            PublicRoomsToken::Before(room) => write!(f, "p{}", room.0),
        }
    }
}

impl FromStr for PublicRoomsToken {
    type Err = InvalidToken;

    fn from_str(text: &str) -> Result<Self, InvalidToken> {
        let room = |digits: &str| digits.parse().map(RoomNum).map_err(|_| InvalidToken);
        match (text.strip_prefix('n'), text.strip_prefix('p')) {
            (Some(digits), _) => room(digits).map(PublicRoomsToken::After),
            (None, Some(digits)) => room(digits).map(PublicRoomsToken::Before),
            (None, None) => Err(InvalidToken),
        }
    }
}

/// Which page of the directory to read.
#[derive(Clone, Debug, Default)]
pub struct PublicRoomsQuery {
    /// The most rooms to return.
    pub limit: Option<usize>,
    /// Where to begin; none for the first page.
    pub since: Option<PublicRoomsToken>,
    /// A text that the name, the topic or the alias of each room contains, whatever the case of its letters.
    pub search: Option<String>,
    /// The types of room to return, none among them for rooms without a type; without it, all.
    pub types: Option<Vec<Option<String>>>,
}

/// A page of the directory, as the specification's response body.
#[derive(Clone, Debug, Default, Serialize)]
pub struct PublicRooms {
    /// The rooms.
    pub chunk: Vec<PublicRoom>,
    /// Where the next page begins; none if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_batch: Option<String>,
    /// Where the page before begins; none if this is the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prev_batch: Option<String>,
}

/// A room as the directory shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PublicRoom {
    /// Its id.
    pub room_id: OwnedRoomId,
    /// How many users are joined.
    pub num_joined_members: u64,
    /// Whether everybody may read it.
    pub world_readable: bool,
    /// Whether guests may join.
    pub guest_can_join: bool,
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its topic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// Its canonical alias.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canonical_alias: Option<String>,
    /// Its picture.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub avatar_url: Option<String>,
    /// Who may join.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub join_rule: Option<String>,
    /// Its type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub room_type: Option<String>,
}

impl Rooms {
    /// A page of the directory. Rooms that everybody has left are not shown.
    pub async fn public_rooms(&self, query: PublicRoomsQuery) -> Result<PublicRooms, StoreError> {
        let rooms = self.clone();
        self.store()
            .read(move |view: &View| page(&rooms, view, &query))
            .await
    }
}

fn page(rooms: &Rooms, view: &View, query: &PublicRoomsQuery) -> Result<PublicRooms, StoreError> {
    let limit = query.limit.unwrap_or(DEFAULT_LIMIT).clamp(1, MAX_LIMIT);
    // Newer rooms have greater numbers.
    let scan = match &query.since {
        None => Scan::all().reverse(),
        Some(PublicRoomsToken::After(room)) => Scan::all().until(room).reverse(),
        Some(PublicRoomsToken::Before(room)) => Scan::all().after(room),
    };
    let mut found = Vec::new();
    for room in view.keys::<Published>(scan) {
        let room = room?;
        let Some(shown) = PublicRoom::read(&RoomView::open(rooms, view, room)?)? else {
            continue;
        };
        if query.takes(&shown) {
            found.push((room, shown));
        }
        if found.len() > limit {
            break;
        }
    }
    let more = found.len() > limit;
    found.truncate(limit);
    let backwards = matches!(query.since, Some(PublicRoomsToken::Before(_)));
    if backwards {
        found.reverse();
    }
    let first = found.first().map(|(room, _)| *room);
    let last = found.last().map(|(room, _)| *room);
    Ok(PublicRooms {
        chunk: found.into_iter().map(|(_, shown)| shown).collect(),
        next_batch: last
            .filter(|_| more || backwards)
            .map(|room| PublicRoomsToken::After(room).to_string()),
        prev_batch: first
            .filter(|_| {
                if backwards {
                    more
                } else {
                    query.since.is_some()
                }
            })
            .map(|room| PublicRoomsToken::Before(room).to_string()),
    })
}

impl PublicRoomsQuery {
    fn takes(&self, room: &PublicRoom) -> bool {
        let of_type = self
            .types
            .as_ref()
            .is_none_or(|types| types.contains(&room.room_type));
        let found = self.search.as_ref().is_none_or(|search| {
            let search = search.to_lowercase();
            [&room.name, &room.topic, &room.canonical_alias]
                .into_iter()
                .flatten()
                .any(|text| text.to_lowercase().contains(&search))
        });
        of_type && found
    }
}

impl PublicRoom {
    /// What the directory shows of a room; nothing if nobody is in it.
    fn read(room: &RoomView<'_>) -> Result<Option<PublicRoom>, StoreError> {
        let Some(head) = room.head()?.filter(|head| head.joined > 0) else {
            return Ok(None);
        };
        let state = head.root();
        let text = |event_type: &str, field: &str| -> Result<Option<String>, StoreError> {
            let Some(event) = room.state_entry(state, event_type, "")? else {
                return Ok(None);
            };
            let event = room.event(event)?;
            let text = event
                .pdu
                .content()
                .get(field)
                .and_then(|text| text.as_str());
            Ok(text.filter(|text| !text.is_empty()).map(str::to_owned))
        };
        Ok(Some(PublicRoom {
            room_id: room.room_id().to_owned(),
            num_joined_members: head.joined,
            world_readable: visibility_in(room, state)? == HistoryVisibility::WorldReadable,
            guest_can_join: text("m.room.guest_access", "guest_access")?.as_deref()
                == Some("can_join"),
            name: text("m.room.name", "name")?,
            topic: text("m.room.topic", "topic")?,
            canonical_alias: text("m.room.canonical_alias", "alias")?,
            avatar_url: text("m.room.avatar", "url")?,
            join_rule: text("m.room.join_rules", "join_rule")?,
            room_type: text("m.room.create", "type")?,
        }))
    }
}

#[cfg(test)]
mod tests {
    use myelin_types::RoomNum;

    use super::PublicRoomsToken;

    #[test]
    fn tokens_are_read_as_they_are_written() {
        for token in [
            PublicRoomsToken::After(RoomNum(7)),
            PublicRoomsToken::Before(RoomNum(0)),
        ] {
            assert_eq!(token.to_string().parse(), Ok(token));
        }
        for text in ["", "n", "7", "x7", "n-1"] {
            assert!(text.parse::<PublicRoomsToken>().is_err(), "{text:?}");
        }
    }
}
