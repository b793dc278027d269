//! What users do that matters only now.

use std::time::Duration;

use myelin_data::rooms::ReceiptKind;
use myelin_rooms::{NewReceipt, PresenceState, Thread};
use ruma::{OwnedEventId, RoomId};
use serde_json::{Value, json};

use super::support::{World, alice, server, until};
use crate::outbound::{Edu, EphemeralKey};
use myelin_types::UserNum;

fn last_event(world: &World, room: &RoomId) -> OwnedEventId {
    let view = world.here.store.view();
    let num = world.num(room);
    let last = view.prefix_last::<myelin_data::rooms::Timeline>(&num);
    let (_, entry) = last.expect("it is read").expect("there are events");
    let event = world.here.rooms.event(&view, num, entry.event);
    let event = event.expect("it is read").expect("it is there");
    OwnedEventId::try_from(event.header.event_id.clone()).expect("an event id")
}

#[tokio::test]
async fn others_see_that_a_user_of_ours_types() {
    let world = World::new().await;
    let room = world.room(2).await;
    let process = world.start().await;
    let set = |timeout| world.here.rooms.set_typing(&room, user(), timeout);
    set(Some(Duration::from_secs(30)))
        .await
        .expect("she is there");
    let edu = |typing: bool| {
        json!({
            "edu_type": "m.typing",
            "content": { "room_id": room, "user_id": alice(), "typing": typing },
        })
    };
    for number in 0..2 {
        until(|| world.elsewhere.edus(&server(number)) == [edu(true)]).await;
    }
    set(None).await.expect("she is there");
    for number in 0..2 {
        until(|| world.elsewhere.edus(&server(number)) == [edu(true), edu(false)]).await;
    }
    process.stop().await;
}

fn user() -> &'static ruma::UserId {
    ruma::user_id!("@alice:here.example")
}

#[tokio::test]
async fn others_see_public_receipts_with_their_threads() {
    let world = World::new().await;
    let room = world.room(1).await;
    world.say(&room, "hello".to_owned()).await;
    let event_id = last_event(&world, &room);
    let process = world.start().await;
    let receipt = |kind, thread| NewReceipt {
        kind,
        thread,
        event_id: event_id.clone(),
    };
    let receipts = vec![
        receipt(ReceiptKind::Read, Thread::Unthreaded),
        receipt(ReceiptKind::Read, Thread::Main),
        receipt(ReceiptKind::ReadPrivate, Thread::Unthreaded),
    ];
    let set = world.here.rooms.set_receipts(&room, user(), receipts).await;
    set.expect("she is there");
    until(|| world.elsewhere.edus(&server(0)).len() >= 2).await;
    process.stop().await;
    let edu = |data: Value| {
        let said = json!({ "data": data, "event_ids": [event_id] });
        json!({
            "edu_type": "m.receipt",
            "content": { room.as_str(): { "m.read": { user().as_str(): said } } },
        })
    };
    let now = crate::testing::NOW.0;
    let mut edus = world.elsewhere.edus(&server(0));
    edus.sort_by_key(|edu| edu.to_string().len());
    let expected = [
        edu(json!({ "ts": now })),
        edu(json!({ "ts": now, "thread_id": "main" })),
    ];
    assert_eq!(edus, expected);
}

#[tokio::test]
async fn a_server_that_does_not_answer_gets_no_stale_news() {
    let world = World::new().await;
    let there = server(0);
    let process = world.start().await;
    let tell = |text: &str| {
        let key = EphemeralKey::Presence(UserNum(1));
        let edu = Edu::new("m.presence", json!({ "text": text }));
        process.outbound.ephemeral(&there, key, edu);
    };
    world.elsewhere.refuse(&there, 502);
    tell("lost");
    until(|| process.outbound.with(|book| book.census().waiting) == Some(1)).await;
    tell("lost too");
    world.elsewhere.answer(&there);
    process.outbound.heard(&there);
    tell("an old one");
    tell("the newest");
    until(|| !world.elsewhere.edus(&there).is_empty()).await;
    process.stop().await;
    let edus = world.elsewhere.edus(&there);
    assert_eq!(
        edus.last().map(|edu| &edu["content"]["text"]),
        Some(&json!("the newest"))
    );
    assert!(edus.iter().all(|edu| edu["content"]["text"] != "lost too"));
    // Names of what does not last are never used twice.
    let came = world.elsewhere.came(&there);
    let mut names: Vec<_> = came.iter().map(|came| &came.id).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), came.len());
}

#[tokio::test]
async fn a_server_that_was_down_hears_what_was_read_meanwhile() {
    let world = World::new().await;
    let room = world.room(1).await;
    let there = server(0);
    let process = world.start().await;
    world.elsewhere.refuse(&there, 502);
    world.say(&room, "1".to_owned()).await;
    until(|| process.outbound.with(|book| book.census().waiting) == Some(1)).await;
    for text in ["2", "3"] {
        world.say(&room, text.to_owned()).await;
        let receipt = NewReceipt {
            kind: ReceiptKind::Read,
            thread: Thread::Unthreaded,
            event_id: last_event(&world, &room),
        };
        let set = world.here.rooms.set_receipts(&room, user(), vec![receipt]);
        set.await.expect("she is there");
    }
    until(|| process.outbound.with(|book| book.has_unread(&there)) == Some(true)).await;
    let newest = last_event(&world, &room);
    world.elsewhere.answer(&there);
    process.outbound.heard(&there);
    let receipts = || {
        let edus = world.elsewhere.edus(&there).into_iter();
        let receipts = edus.filter(|edu| edu["edu_type"] == "m.receipt");
        receipts.collect::<Vec<_>>()
    };
    until(|| !receipts().is_empty()).await;
    process.stop().await;
    let told = receipts();
    let of_room = &told[told.len() - 1]["content"][room.as_str()]["m.read"];
    assert_eq!(of_room[user().as_str()]["event_ids"], json!([newest]));
    // Not before the event that it speaks of.
    let taken = world.elsewhere.taken(&there);
    let with = |what: &str| {
        let has = |content: &Value| {
            content[what]
                .as_array()
                .is_some_and(|list| !list.is_empty())
        };
        taken.iter().position(|came| has(&came.content))
    };
    assert!(with("pdus") < with("edus"));
    assert_eq!(world.elsewhere.texts(&there), ["1", "2", "3"]);
}

#[tokio::test]
async fn others_see_how_a_user_of_ours_is() {
    let world = World::new().await;
    world.room(2).await;
    let process = world.start().await;
    let rooms = &world.here.rooms;
    let view = world.here.store.view();
    let found = rooms
        .interner()
        .find_user(&view, user())
        .expect("it is read");
    let num = found.expect("she is known");
    let status = Some("Across servers".to_owned());
    let set = rooms.set_presence(num, "D", PresenceState::Online, status);
    set.await.expect("she may");
    world.here.clock.advance(Duration::from_millis(200));
    rooms.presence().step().await;
    for number in 0..2 {
        let there = server(number);
        until(|| !world.elsewhere.edus(&there).is_empty()).await;
        let push = json!({
            "user_id": user(),
            "presence": "online",
            "last_active_ago": 200,
            "currently_active": true,
            "status_msg": "Across servers",
        });
        let edu = json!({ "edu_type": "m.presence", "content": { "push": [push] } });
        assert_eq!(world.elsewhere.edus(&there), [edu]);
    }
    process.stop().await;
}
