//! Reading rooms: who sees what, in which format.

use std::{sync::Arc, time::Duration};

use myelin_data::rooms::{Membership, Place};
use myelin_rooms::{
    Preset, Redact, Rooms,
    read::{Direction, MembersQuery, MessagesQuery, ReadError, RoomView, StateFormat, Viewer},
    token::{SyncToken, Token},
};
use myelin_rules::RoomVersion;
use myelin_types::{Millis, Pos};
use ruma::{OwnedEventId, RoomId, api::client::filter::RoomEventFilter};
use serde_json::{Value, json, value::RawValue};

use crate::support::{ALICE, BOB, CHARLIE, Server, message, moderate, state, transaction, user};

async fn viewer(server: &Server, who: &str) -> Viewer {
    let user_id = user(who);
    Viewer {
        user: server
            .rooms
            .interner()
            .user(&user_id)
            .await
            .expect("users are numbered"),
        user_id,
        device_id: Some("DEVICE".to_owned()),
    }
}

fn query(direction: Direction) -> MessagesQuery {
    MessagesQuery {
        from: None,
        to: None,
        direction,
        limit: Some(1_000),
        filter: RoomEventFilter::default(),
        crossed: Vec::new(),
    }
}

fn value(raw: &RawValue) -> Value {
    serde_json::from_str(raw.get()).expect("events are JSON")
}

/// The texts of messages and the types of other events.
fn brief(events: &[Box<RawValue>]) -> Vec<String> {
    let brief = events.iter().map(|raw| {
        let event = value(raw);
        let text = event["content"]["body"].as_str().or(event["type"].as_str());
        text.unwrap_or_default().to_owned()
    });
    brief.collect()
}

async fn says(server: &Server, room: &RoomId, from: u32, to: u32) {
    for number in from..to {
        server.say(room, ALICE, &number.to_string()).await;
    }
}

#[tokio::test]
async fn history_is_paged_in_both_directions() {
    let server = Server::new().await;
    let room = server.public_room().await;
    says(&server, &room, 0, 25).await;
    let alice = viewer(&server, ALICE).await;
    let all = server
        .rooms
        .messages(&alice, &room, query(Direction::Forward))
        .await
        .expect("a page");
    let all = brief(&all.chunk);
    for (direction, limit) in [
        (Direction::Backward, 4),
        (Direction::Forward, 7),
        (Direction::Backward, 31),
    ] {
        let mut found = Vec::new();
        let mut from: Option<Token> = None;
        loop {
            let page = MessagesQuery {
                from,
                limit: Some(limit),
                ..query(direction)
            };
            let page = server
                .rooms
                .messages(&alice, &room, page)
                .await
                .expect("a page");
            if let Some(from) = from {
                assert_eq!(page.start, from.to_string());
            }
            assert!(page.chunk.len() <= limit);
            found.extend(brief(&page.chunk));
            match page.end {
                Some(end) => from = Some(end.parse().expect("tokens can be read")),
                None => break,
            }
        }
        if direction == Direction::Backward {
            found.reverse();
        }
        assert_eq!(found, all);
    }
}

#[tokio::test]
async fn sync_tokens_name_points_of_the_timeline() {
    let server = Server::new().await;
    let room = server.public_room().await;
    says(&server, &room, 0, 3).await;
    let at = |server: &Server| {
        Some(Token::Sync(SyncToken {
            pos: server.store.watermark(),
            typing: 0,
            presence: 0,
            to_device: None,
        }))
    };
    let before = at(&server);
    says(&server, &room, 3, 6).await;
    let after = at(&server);
    says(&server, &room, 6, 9).await;
    let alice = viewer(&server, ALICE).await;
    for (from, to, direction, expected) in [
        (before, after, Direction::Forward, vec!["3", "4", "5"]),
        (after, before, Direction::Backward, vec!["5", "4", "3"]),
        (after, None, Direction::Forward, vec!["6", "7", "8"]),
    ] {
        let page = MessagesQuery {
            from,
            to,
            ..query(direction)
        };
        let page = server
            .rooms
            .messages(&alice, &room, page)
            .await
            .expect("a page");
        assert_eq!(brief(&page.chunk), expected);
    }
}

#[tokio::test]
async fn filters_and_lazy_members() {
    let server = Server::new().await;
    let room = server.public_room().await;
    server.join(&room, BOB).await;
    server.say(&room, BOB, "x").await;
    says(&server, &room, 0, 3).await;
    let alice = viewer(&server, ALICE).await;
    let filter =
        json!({"types": ["m.room.mess*"], "not_senders": [ALICE], "lazy_load_members": true});
    let page = MessagesQuery {
        filter: serde_json::from_value(filter).expect("a filter"),
        ..query(Direction::Backward)
    };
    let page = server
        .rooms
        .messages(&alice, &room, page)
        .await
        .expect("a page");
    assert_eq!(brief(&page.chunk), ["x"]);
    assert_eq!(page.end, None);
    assert_eq!(page.state.len(), 1);
    assert_eq!(value(&page.state[0])["state_key"], BOB);
}

#[tokio::test]
async fn who_left_sees_what_was_before() {
    let server = Server::new().await;
    let room = server.public_room().await;
    server.join(&room, BOB).await;
    let topic = |text: &str| state(&room, ALICE, "m.room.topic", "", json!({"topic": text}));
    server
        .rooms
        .send_state(topic("old"))
        .await
        .expect("Alice may");
    server
        .rooms
        .leave(&room, &user(BOB), None)
        .await
        .expect("Bob may leave");
    server
        .rooms
        .send_state(topic("new"))
        .await
        .expect("Alice may");
    let later = server.say(&room, ALICE, "later").await;
    server.join(&room, CHARLIE).await;
    let (rooms, bob) = (&server.rooms, viewer(&server, BOB).await);

    for banned in [false, true] {
        if banned {
            rooms
                .ban(moderate(&room, ALICE, BOB))
                .await
                .expect("Alice may ban");
        }
        let page = rooms
            .messages(&bob, &room, query(Direction::Backward))
            .await
            .expect("a page");
        assert_eq!(brief(&page.chunk)[..2], ["m.room.member", "m.room.topic"]);
        let content = rooms
            .client_state_event(&bob, &room, "m.room.topic", "", StateFormat::Content)
            .await
            .expect("there is a topic");
        assert_eq!(value(&content), json!({"topic": "old"}));
        let event = rooms
            .client_state_event(&bob, &room, "m.room.member", BOB, StateFormat::Event)
            .await
            .expect("there is a member");
        assert_eq!(value(&event)["content"]["membership"], "leave");
        let members = rooms
            .members(&bob, &room, MembersQuery::default())
            .await
            .expect("members");
        let members: Vec<Value> = members
            .iter()
            .map(|member| value(member)["state_key"].clone())
            .collect();
        assert_eq!(members, [json!(ALICE), json!(BOB)]);
        let hidden = rooms.client_event(&bob, &room, &later).await;
        assert!(matches!(hidden, Err(ReadError::NotFound)));
        let joined = rooms.joined_members(&bob, &room).await;
        assert!(matches!(joined, Err(ReadError::NotInRoom)));
    }
    rooms
        .forget(&room, &user(BOB))
        .await
        .expect("a room that was left can be forgotten");
    let forgotten = rooms
        .messages(&bob, &room, query(Direction::Backward))
        .await;
    assert!(matches!(forgotten, Err(ReadError::NotInRoom)));
}

#[tokio::test]
async fn strangers_see_nothing_but_what_is_for_everybody() {
    let server = Server::new().await;
    let bob = viewer(&server, BOB).await;
    for (visibility, open) in [("shared", false), ("world_readable", true)] {
        let room = server.public_room().await;
        let content = json!({"history_visibility": visibility});
        server
            .rooms
            .send_state(state(
                &room,
                ALICE,
                "m.room.history_visibility",
                "",
                content,
            ))
            .await
            .expect("Alice may");
        let event = server.say(&room, ALICE, "x").await;
        let rooms = &server.rooms;
        assert_eq!(rooms.client_event(&bob, &room, &event).await.is_ok(), open);
        assert_eq!(
            rooms
                .context(&bob, &room, &event, None, RoomEventFilter::default())
                .await
                .is_ok(),
            open
        );
        assert_eq!(rooms.client_state(&bob, &room).await.is_ok(), open);
        let page = rooms
            .messages(&bob, &room, query(Direction::Backward))
            .await;
        match page {
            Ok(page) if open => assert_eq!(brief(&page.chunk)[0], "x"),
            Err(ReadError::NotInRoom) if !open => {}
            other => panic!("{other:?}"),
        }
        let members = rooms.members(&bob, &room, MembersQuery::default()).await;
        assert!(matches!(members, Err(ReadError::NotInRoom)));
        rooms
            .invite(crate::support::invite(&room, ALICE, BOB))
            .await
            .expect("Alice may");
        assert_eq!(
            rooms.client_state(&bob, &room).await.is_ok(),
            open,
            "being invited is not being in"
        );
    }
    let nowhere = <&RoomId>::try_from("!nowhere:here.org").expect("a room id");
    let page = server
        .rooms
        .messages(&bob, nowhere, query(Direction::Backward))
        .await;
    assert!(matches!(page, Err(ReadError::RoomNotFound)));
}

#[tokio::test]
async fn history_before_joining_follows_the_visibility() {
    for (visibility, before, between) in [
        ("shared", true, true),
        ("invited", false, true),
        ("joined", false, false),
        ("world_readable", true, true),
    ] {
        let server = Server::new().await;
        let room = server.public_room().await;
        let content = json!({"history_visibility": visibility});
        server
            .rooms
            .send_state(state(
                &room,
                ALICE,
                "m.room.history_visibility",
                "",
                content,
            ))
            .await
            .expect("Alice may");
        let first = server.say(&room, ALICE, "before").await;
        server
            .rooms
            .invite(crate::support::invite(&room, ALICE, BOB))
            .await
            .expect("Alice may");
        let second = server.say(&room, ALICE, "between").await;
        server.join(&room, BOB).await;
        let third = server.say(&room, ALICE, "after").await;
        let bob = viewer(&server, BOB).await;
        for (event, seen) in [(first, before), (second, between), (third, true)] {
            let found = server.rooms.client_event(&bob, &room, &event).await;
            assert_eq!(found.is_ok(), seen, "{visibility} {event}");
        }
    }
}

#[tokio::test]
async fn context_lies_around_the_event() {
    let server = Server::new().await;
    let room = server.public_room().await;
    says(&server, &room, 0, 4).await;
    let event = server.say(&room, ALICE, "here").await;
    says(&server, &room, 4, 9).await;
    let alice = viewer(&server, ALICE).await;
    let filter: RoomEventFilter =
        serde_json::from_value(json!({"lazy_load_members": true})).expect("a filter");
    let context = server
        .rooms
        .context(&alice, &room, &event, Some(5), filter)
        .await
        .expect("a context");
    assert_eq!(value(&context.event)["event_id"], event.as_str());
    assert_eq!(brief(&context.events_before), ["3", "2"]);
    assert_eq!(brief(&context.events_after), ["4", "5", "6"]);
    assert!(brief(&context.state).contains(&"m.room.create".to_owned()));
    for (token, direction, expected) in [
        (&context.start, Direction::Backward, "1"),
        (&context.end, Direction::Forward, "7"),
    ] {
        let page = MessagesQuery {
            from: Some(token.parse().expect("tokens can be read")),
            limit: Some(1),
            ..query(direction)
        };
        let page = server
            .rooms
            .messages(&alice, &room, page)
            .await
            .expect("a page");
        assert_eq!(brief(&page.chunk), [expected]);
    }
}

#[tokio::test]
async fn members_at_a_point_and_by_membership() {
    let server = Server::new().await;
    let room = server.public_room().await;
    let token = |place: Place, pos: Pos| {
        format!("t{pos}_{}_{}", place.segment, place.index).parse::<Token>()
    };
    // The point before everything, as the first sync of a young room gives it.
    let start = token(Place::START, server.store.watermark()).expect("a token");
    server.join(&room, BOB).await;
    let point = Token::Sync(SyncToken {
        pos: server.store.watermark(),
        typing: 0,
        presence: 0,
        to_device: None,
    });
    server.join(&room, CHARLIE).await;
    server
        .rooms
        .leave(&room, &user(BOB), None)
        .await
        .expect("Bob may leave");
    let alice = viewer(&server, ALICE).await;
    let join = Some(Membership::Join);
    for (at, membership, not_membership, expected) in [
        (None, None, None, vec![ALICE, BOB, CHARLIE]),
        (None, join, None, vec![ALICE, CHARLIE]),
        (None, None, join, vec![BOB]),
        (Some(point), None, None, vec![ALICE, BOB]),
        (Some(start), None, None, vec![ALICE]),
    ] {
        let query = MembersQuery {
            at,
            membership,
            not_membership,
        };
        let members = server
            .rooms
            .members(&alice, &room, query)
            .await
            .expect("members");
        let mut keys: Vec<String> = members
            .iter()
            .map(|member| {
                value(member)["state_key"]
                    .as_str()
                    .expect("a user")
                    .to_owned()
            })
            .collect();
        keys.sort();
        assert_eq!(keys, expected);
    }
    let joined = server
        .rooms
        .joined_members(&alice, &room)
        .await
        .expect("members");
    let body = serde_json::to_value(&joined).expect("JSON");
    assert_eq!(
        body["joined"][CHARLIE],
        json!({"display_name": CHARLIE, "avatar_url": null})
    );
}

async fn one(rooms: &Rooms, viewer: &Viewer, room: &RoomId, event: &OwnedEventId) -> Value {
    value(
        &rooms
            .client_event(viewer, room, event)
            .await
            .expect("the event is seen"),
    )
}

#[tokio::test]
async fn unsigned_says_what_the_server_knows() {
    for version in [RoomVersion::V10, RoomVersion::V11] {
        let server = Server::new().await;
        let room = server.room(Preset::PublicChat, version).await;
        let (rooms, alice) = (&server.rooms, viewer(&server, ALICE).await);
        let mut other = alice.clone();
        other.device_id = Some("OTHER".to_owned());
        let mut sent = message(&room, ALICE, "secret");
        sent.transaction = Some(transaction("DEVICE", "txn"));
        let event = rooms.send_message(sent).await.expect("Alice may");
        server.clock.advance(Duration::from_secs(5));
        let shown = one(rooms, &alice, &room, &event).await;
        assert_eq!(
            shown["unsigned"],
            json!({"age": 5000, "membership": "join", "transaction_id": "txn"})
        );
        assert_eq!(shown["room_id"], room.as_str());
        assert!(shown["hashes"].is_null() && shown["auth_events"].is_null());
        assert!(one(rooms, &other, &room, &event).await["unsigned"]["transaction_id"].is_null());

        let topic = |text: &str| state(&room, ALICE, "m.room.topic", "", json!({"topic": text}));
        let old = rooms.send_state(topic("old")).await.expect("Alice may");
        let new = rooms.send_state(topic("new")).await.expect("Alice may");
        let shown = one(rooms, &alice, &room, &new).await;
        assert_eq!(shown["unsigned"]["prev_content"], json!({"topic": "old"}));
        assert_eq!(shown["unsigned"]["replaces_state"], old.as_str());

        let redaction = rooms
            .redact(Redact {
                room_id: room.clone(),
                sender: user(ALICE),
                event_id: event.clone(),
                content: crate::support::object(json!({"reason": "oops"})),
                transaction: None,
            })
            .await
            .expect("Alice may");
        let shown = one(rooms, &alice, &room, &event).await;
        assert_eq!(shown["content"], json!({}));
        let because = &shown["unsigned"]["redacted_because"];
        for redaction in [because.clone(), one(rooms, &alice, &room, &redaction).await] {
            assert_eq!(redaction["redacts"], event.as_str());
            assert_eq!(
                redaction["content"],
                json!({"reason": "oops", "redacts": event})
            );
        }
    }
}

#[tokio::test]
async fn times_lead_to_events() {
    let server = Server::new().await;
    let room = server.public_room().await;
    let alice = viewer(&server, ALICE).await;
    let mut events = Vec::new();
    for number in 0..12 {
        server.clock.advance(Duration::from_secs(10));
        events.push(server.say(&room, ALICE, &number.to_string()).await);
    }
    let start = 1_700_000_000_000;
    for (at, direction, expected) in [
        (start + 25_000, Direction::Forward, Some(2)),
        (start + 25_000, Direction::Backward, Some(1)),
        (start + 30_000, Direction::Backward, Some(2)),
        (start + 30_000, Direction::Forward, Some(2)),
        (start + 999_999, Direction::Forward, None),
        (start - 1, Direction::Backward, None),
    ] {
        let found = server
            .rooms
            .timestamp_to_event(&alice, &room, Millis(at), direction)
            .await;
        match (found, expected) {
            (Ok(found), Some(index)) => assert_eq!(found.event_id, events[index].as_str()),
            (Err(ReadError::NotFound), None) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn positions_are_found_in_the_timeline() {
    let server = Server::new().await;
    let room = server.public_room().await;
    let other = server.public_room().await;
    for number in 0..40 {
        let room = if number % 3 == 0 { &other } else { &room };
        server.say(room, ALICE, &number.to_string()).await;
    }
    let view = server.view();
    let timeline = server.timeline(&room);
    let room = RoomView::find(&server.rooms, &view, &room)
        .expect("readable")
        .expect("there");
    for pos in 0..=server.store.watermark().0 {
        let expected = timeline.iter().rfind(|(_, entry, _)| entry.pos.0 <= pos);
        let found = room
            .last_through(Pos(pos))
            .expect("the timeline can be read");
        assert_eq!(
            found.map(|(place, _)| place),
            expected.map(|(place, ..)| *place)
        );
        let state = room.state_at(Pos(pos)).expect("the state can be read");
        let after = expected.map(|(_, _, event): &(_, _, Arc<_>)| event.header.after());
        assert_eq!(state, after.unwrap_or_default());
    }
}
