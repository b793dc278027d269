//! The body of an answer to `/sync`, of which a client with many rooms has megabytes.
//!
//! A room's events are written into the body and dropped, one room after the other, and the parts of a large answer are made
//! as the client takes them. So an answer takes as much memory as one of its parts, however large it is and however slow the
//! client.

use std::collections::BTreeMap;

use axum::{
    body::Body,
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use futures_util::stream::{self, Stream};
use http::header::CONTENT_TYPE;
use myelin_sync::{Response as Answer, Rest, RoomsSection, SyncError};
use ruma::OwnedRoomId;
use serde::Serialize;

/// The answer that begins with `answer` and goes on with `rest`.
pub(super) fn answer(answer: Answer, rest: Rest) -> Response {
    let mut text = Text::begin(answer);
    let body = if rest.is_empty() {
        text.end();
        Body::from(text.take())
    } else {
        Body::from_stream(parts(text, rest))
    };
    ([(CONTENT_TYPE, "application/json")], body).into_response()
}

/// The parts of a body. After an error the connection is cut, so that the client does not take what it has for all there is.
fn parts(text: Text, rest: Rest) -> impl Stream<Item = Result<Bytes, SyncError>> {
    stream::try_unfold(Some((text, rest)), async |state| {
        let Some((mut text, mut rest)) = state else {
            return Ok(None);
        };
        loop {
            let part = text.take();
            if !part.is_empty() {
                return Ok(Some((part, Some((text, rest)))));
            }
            match rest.next().await {
                Ok(Some(rooms)) => text.rooms(rooms),
                Ok(None) => {
                    text.end();
                    return Ok(Some((text.take(), None)));
                }
                Err(error) => {
                    match &error {
                        SyncError::Store(error) => {
                            tracing::error!(%error, "an answer to a sync was cut short");
                        }
                        // The client's doing.
                        SyncError::TooSlow => tracing::debug!("an answer to a sync took too long"),
                    }
                    return Err(error);
                }
            }
        }
    })
}

/// The text of an answer, which has been begun and not ended.
struct Text {
    text: Vec<u8>,
    /// The section of `rooms` that is open.
    section: Option<&'static str>,
}

impl Text {
    /// Everything up to the first rooms, and these.
    fn begin(mut answer: Answer) -> Self {
        let rooms = std::mem::take(&mut answer.rooms);
        let mut text = Self {
            text: Vec::with_capacity(1024),
            section: None,
        };
        text.write(&answer);
        // `rooms` is the last field, and empty: what follows goes into it.
        text.text.truncate(text.text.len() - "}}".len());
        text.rooms(rooms);
        text
    }

    /// Adds rooms. No section may come again once another has begun.
    fn rooms(&mut self, rooms: RoomsSection) {
        let RoomsSection {
            join,
            invite,
            knock,
            leave,
        } = rooms;
        self.add("invite", invite);
        self.add("knock", knock);
        self.add("join", join);
        self.add("leave", leave);
    }

    fn add<T: Serialize>(&mut self, section: &'static str, rooms: BTreeMap<OwnedRoomId, T>) {
        for (id, room) in rooms {
            if self.section == Some(section) {
                self.text.push(b',');
            } else {
                if self.section.is_some() {
                    self.text.extend_from_slice(b"},");
                }
                self.section = Some(section);
                self.write(section);
                self.text.extend_from_slice(b":{");
            }
            self.write(&id);
            self.text.push(b':');
            self.write(&room);
        }
    }

    fn write<T: Serialize + ?Sized>(&mut self, value: &T) {
        serde_json::to_writer(&mut self.text, value)
            .expect("a response is maps with text keys, written to memory");
    }

    fn end(&mut self) {
        if self.section.take().is_some() {
            self.text.push(b'}');
        }
        self.text.extend_from_slice(b"}}");
    }

    /// What was written since the last call.
    fn take(&mut self) -> Bytes {
        std::mem::take(&mut self.text).into()
    }
}

#[cfg(test)]
mod tests {
    use http::header::CONTENT_LENGTH;
    use myelin_sync::{
        Events, InvitedRoom, JoinedRoom, LeftRoom, Response as Answer, RoomsSection,
    };
    use ruma::{OwnedRoomId, room_id};
    use serde_json::{Value, json, value::to_raw_value};

    use super::Text;
    use crate::testing::Server;

    fn whole(answer: &Answer) -> Value {
        serde_json::to_value(answer).expect("it is JSON")
    }

    #[test]
    fn a_body_in_parts_is_the_same_as_in_one_piece() {
        let event = to_raw_value(&json!({ "type": "m.a" })).expect("it is JSON");
        let events = Events {
            events: vec![event],
        };
        let rooms = [room_id!("!a:b"), room_id!("!c:d"), room_id!("!e:f")];
        let [a, c, e] = rooms.map(OwnedRoomId::from);
        let joined = || JoinedRoom {
            ephemeral: events.clone(),
            ..JoinedRoom::default()
        };
        let first = RoomsSection {
            invite: [(a.clone(), InvitedRoom::default())].into(),
            join: [(c.clone(), joined())].into(),
            ..RoomsSection::default()
        };
        let second = RoomsSection {
            join: [(a, joined()), (e.clone(), joined())].into(),
            leave: [(c.clone(), LeftRoom::default())].into(),
            ..RoomsSection::default()
        };
        let third = RoomsSection {
            leave: [(e, LeftRoom::default())].into(),
            ..RoomsSection::default()
        };
        let of = |rooms: RoomsSection| Answer {
            next_batch: "s1_2".to_owned(),
            account_data: events.clone(),
            rooms,
            ..Answer::default()
        };
        let nothing = RoomsSection::default;
        for parts in [
            vec![nothing()],
            vec![first.clone()],
            vec![nothing(), third.clone()],
            vec![first, second, nothing(), third],
        ] {
            let mut all = of(nothing());
            let mut parts = parts.into_iter();
            let beginning = parts.next().unwrap_or_default();
            all.rooms.extend(beginning.clone());
            let mut text = Text::begin(of(beginning));
            for part in parts {
                all.rooms.extend(part.clone());
                text.rooms(part);
            }
            text.end();
            let text: Value = serde_json::from_slice(&text.take()).expect("it is JSON");
            assert_eq!(text, whole(&all));
        }
    }

    #[tokio::test]
    async fn a_large_answer_comes_in_parts_and_whole() {
        let server = Server::new().await;
        let alice = server.register("alice").await;
        let mut rooms = Vec::new();
        for _ in 0..4 {
            let room = server.room(&alice, &json!({})).await;
            for _ in 0..10 {
                server.say(&room, &alice, &"x".repeat(6_000)).await;
            }
            rooms.push(room);
        }
        let answer = server.get("/sync?timeout=0", &alice).await;
        assert!(
            !answer.headers.contains_key(CONTENT_LENGTH),
            "its length was known, so that it was made whole"
        );
        let answer = answer.ok();
        for room in rooms {
            let timeline = &answer["rooms"]["join"][&room]["timeline"];
            assert_eq!(timeline["events"].as_array().map(Vec::len), Some(10));
        }
        let since = answer["next_batch"].as_str().unwrap_or_default();
        let small = server
            .get(&format!("/sync?timeout=0&since={since}"), &alice)
            .await;
        assert!(small.headers.contains_key(CONTENT_LENGTH));
    }
}
