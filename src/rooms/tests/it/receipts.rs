//! Receipts, positions, typing.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use myelin_data::{
    rooms::{Receipt, ReceiptKind, Receipts, ReceiptsByPos},
    topic::Changed,
};
use myelin_rooms::{NewReceipt, ReceiptError, Thread, TypingError};
use myelin_store::{Observer, Scan, Topic};
use myelin_types::Pos;
use ruma::{EventId, OwnedEventId, RoomId, owned_event_id};
use serde_json::json;

use crate::support::{ALICE, BOB, CHARLIE, Server, message, user};

fn receipt(event: &EventId, thread: Thread) -> NewReceipt {
    NewReceipt {
        kind: ReceiptKind::Read,
        thread,
        event_id: event.to_owned(),
    }
}

fn rows(server: &Server, room: &RoomId) -> Vec<(String, Receipt)> {
    let num = server.handle(room).num;
    let view = server.view();
    let rows: Vec<_> = view
        .scan::<Receipts>(Scan::prefix(&num))
        .map(|row| row.expect("read"))
        .collect();
    let by_pos: Vec<_> = view
        .scan::<ReceiptsByPos>(Scan::prefix(&num))
        .map(|row| row.expect("read").0)
        .collect();
    assert_eq!(rows.len(), by_pos.len(), "one row by position for each");
    for ((room, user, kind, thread), receipt) in &rows {
        assert!(by_pos.contains(&(*room, receipt.pos, *user, *kind, thread.clone())));
    }
    rows.into_iter()
        .map(|((_, _, _, thread), receipt)| (thread, receipt))
        .collect()
}

async fn reply(server: &Server, room: &RoomId, root: &EventId) -> OwnedEventId {
    let mut request = message(room, ALICE, "in the thread");
    request.content.insert(
        "m.relates_to".to_owned(),
        json!({"rel_type": "m.thread", "event_id": root}),
    );
    server.rooms.send_message(request).await.expect("sent")
}

#[tokio::test]
async fn receipts_move_forwards_only() {
    let server = Server::new().await;
    let room = server.public_room().await;
    let bob = user(BOB);
    let first = server.say(&room, ALICE, "1").await;
    let set = |receipts| server.rooms.set_receipts(&room, &bob, receipts);
    assert!(matches!(
        set(vec![receipt(&first, Thread::Unthreaded)]).await,
        Err(ReceiptError::NotInRoom)
    ));
    server.join(&room, BOB).await;
    let second = server.say(&room, ALICE, "2").await;
    for (event, expected) in [(&first, &first), (&second, &second), (&first, &second)] {
        set(vec![receipt(event, Thread::Unthreaded)])
            .await
            .expect("set");
        let rows = rows(&server, &room);
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0].1.event_id, expected.as_str());
    }
    let unknown = owned_event_id!("$unknown");
    set(vec![receipt(&unknown, Thread::Unthreaded)])
        .await
        .expect("left out");
    let private = NewReceipt {
        kind: ReceiptKind::ReadPrivate,
        ..receipt(&second, Thread::Unthreaded)
    };
    set(vec![receipt(&second, Thread::Main), private])
        .await
        .expect("set");
    assert_eq!(rows(&server, &room).len(), 3);
}

#[tokio::test]
async fn a_receipt_names_an_event_of_its_thread() {
    let server = Server::new().await;
    let room = server.public_room().await;
    let alice = user(ALICE);
    let root = server.say(&room, ALICE, "root").await;
    let reply = reply(&server, &room, &root).await;
    let mut reaction = message(&room, ALICE, "");
    reaction.event_type = "m.reaction".to_owned();
    reaction.content.insert(
        "m.relates_to".to_owned(),
        json!({"rel_type": "m.annotation", "event_id": reply, "key": "+"}),
    );
    let reaction = server.rooms.send_message(reaction).await.expect("sent");
    let set = |event: &EventId, thread| {
        server
            .rooms
            .set_receipts(&room, &alice, vec![receipt(event, thread)])
    };
    let thread = || Thread::Root(root.clone());
    for (event, thread) in [
        (&root, thread()),
        (&reply, thread()),
        (&reaction, thread()),
        (&root, Thread::Main),
    ] {
        set(event, thread).await.expect("it is in that thread");
    }
    for (event, thread) in [
        (&reply, Thread::Main),
        (&reaction, Thread::Main),
        (&reply, Thread::Root(reply.clone())),
    ] {
        let set = set(event, thread.clone()).await;
        let own = thread == Thread::Root(reply.clone());
        assert_eq!(matches!(set, Err(ReceiptError::NotInThread)), !own);
    }
}

#[tokio::test]
async fn concurrent_receipts_leave_the_newest() {
    let server = Server::new().await;
    let room = server.public_room().await;
    let mut events = Vec::new();
    for text in 0..12 {
        events.push(server.say(&room, ALICE, &text.to_string()).await);
    }
    let mut setting = Vec::new();
    for event in &events {
        let (rooms, room) = (server.rooms.clone(), room.clone());
        let receipts = vec![receipt(event, Thread::Unthreaded)];
        setting.push(tokio::spawn(async move {
            rooms.set_receipts(&room, &user(ALICE), receipts).await
        }));
    }
    for setting in setting {
        setting.await.expect("no panic").expect("set");
    }
    let rows = rows(&server, &room);
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].1.event_id, events[11].as_str());
}

#[tokio::test]
async fn fully_read_markers_name_events_of_the_room() {
    let server = Server::new().await;
    let room = server.public_room().await;
    let event = server.say(&room, ALICE, "1").await;
    let rooms = &server.rooms;
    let unknown = owned_event_id!("$unknown");
    assert!(
        rooms
            .event_in_room(&room, &user(ALICE), &event)
            .await
            .expect("read")
    );
    assert!(
        !rooms
            .event_in_room(&room, &user(ALICE), &unknown)
            .await
            .expect("read")
    );
    assert!(matches!(
        rooms.event_in_room(&room, &user(BOB), &event).await,
        Err(ReceiptError::NotInRoom)
    ));
}

#[tokio::test]
async fn positions_follow_events_and_receipts() {
    let server = Server::new().await;
    let room = server.public_room().await;
    let num = server.handle(&room).num;
    let at = |server: &Server| server.rooms.positions(&server.view(), num).expect("read");
    let event = server.say(&room, ALICE, "1").await;
    let said = at(&server);
    assert_eq!(said.timeline, server.store.watermark());
    server
        .rooms
        .set_receipts(
            &room,
            &user(ALICE),
            vec![receipt(&event, Thread::Unthreaded)],
        )
        .await
        .expect("set");
    let read = at(&server);
    assert_eq!(read.timeline, said.timeline);
    assert_eq!(read.receipts, server.store.watermark());
    let server = server.restart().await;
    assert_eq!(at(&server), read);
    server.say(&room, ALICE, "2").await;
    assert!(at(&server).timeline > read.timeline);
}

/// What batches touch.
#[derive(Default)]
struct Touched(Mutex<Vec<Changed>>);

impl Observer for Touched {
    fn committed(&self, _: Pos, topics: &[Topic]) {
        let topics = topics.iter().copied().filter_map(Changed::from_topic);
        self.0.lock().expect("nobody panics").extend(topics);
    }
}

#[tokio::test]
async fn a_receipt_concerns_those_who_are_shown_it_and_no_memberships() {
    let server = Server::new().await;
    let room = server.public_room().await;
    server.join(&room, BOB).await;
    let num = server.handle(&room).num;
    let bob = server
        .rooms
        .interner()
        .find_user(&server.view(), &user(BOB));
    let bob = bob.expect("read").expect("Bob was met");
    let touched = Arc::new(Touched::default());
    server.store.observe(Arc::clone(&touched) as _);
    let public = [Changed::Receipts(num)];
    let private = [Changed::PrivateReceipts(num), Changed::OwnReceipts(bob)];
    for (kinds, expected) in [
        (&[ReceiptKind::Read][..], &public[..]),
        (&[ReceiptKind::ReadPrivate], &private),
        (&[ReceiptKind::ReadPrivate, ReceiptKind::Read], &public),
    ] {
        let event = server.say(&room, ALICE, "x").await;
        touched.0.lock().expect("nobody panics").clear();
        let receipts = kinds.iter().map(|kind| NewReceipt {
            kind: *kind,
            ..receipt(&event, Thread::Unthreaded)
        });
        server
            .rooms
            .set_receipts(&room, &user(BOB), receipts.collect())
            .await
            .expect("set");
        let touched = touched.0.lock().expect("nobody panics").clone();
        assert_eq!(touched, expected, "{kinds:?}");
        let positions = server.rooms.positions(&server.view(), num).expect("read");
        assert_eq!(positions.receipts, server.store.watermark());
    }
}

#[tokio::test]
async fn members_may_be_seen_typing() {
    let server = Server::new().await;
    let room = server.public_room().await;
    server.join(&room, BOB).await;
    let num = server.handle(&room).num;
    let typing = server.rooms.typing().clone();
    let serial = typing.serial();
    let timeout = Some(Duration::from_secs(10));
    server
        .rooms
        .set_typing(&room, &user(BOB), timeout)
        .await
        .expect("noted");
    assert_eq!(
        typing.since(num, serial).map(|typing| typing.users.len()),
        Some(1)
    );
    server
        .rooms
        .set_typing(&room, &user(BOB), None)
        .await
        .expect("noted");
    assert_eq!(
        typing.since(num, serial).map(|typing| typing.users.len()),
        Some(0)
    );
    server
        .rooms
        .set_typing(&room, &user(BOB), timeout)
        .await
        .expect("noted");
    server
        .rooms
        .leave(&room, &user(BOB), None)
        .await
        .expect("left");
    assert_eq!(
        typing.since(num, serial).map(|typing| typing.users.len()),
        Some(0),
        "who leaves does not type any more"
    );
    assert!(matches!(
        server
            .rooms
            .set_typing(&room, &user(CHARLIE), timeout)
            .await,
        Err(TypingError::NotInRoom)
    ));
}
