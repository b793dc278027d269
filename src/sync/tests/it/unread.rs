//! Unread counts.

use myelin_data::rooms::{ReceiptKind, UnreadCounts};
use myelin_rooms::Thread;
use myelin_store::Scan;
use ruma::{EventId, RoomId};
use serde_json::{Value, json};

use crate::support::{ALICE, BOB, Client, Server, of};

/// The counts of a room as `(notifications, highlights)`, of the whole room or the main timeline, and of one thread.
async fn counts(client: &mut Client, room: &RoomId, thread: &str) -> [(u64, u64); 2] {
    client.since = None;
    let response = client.sync().await;
    let joined = of(&response, "join", room);
    let pair = |counts: &Value| {
        let number = |name: &str| counts[name].as_u64().unwrap_or(0);
        (number("notification_count"), number("highlight_count"))
    };
    [
        pair(&joined["unread_notifications"]),
        pair(&joined["unread_thread_notifications"][thread]),
    ]
}

#[tokio::test]
async fn messages_count_until_they_are_read() {
    let server = Server::new().await;
    let room = server.room().await;
    server.say(&room, ALICE, "before he came").await;
    server.join(&room, BOB).await;
    let mut bob = server.client(BOB).await;
    let mut alice = server.client(ALICE).await;
    assert_eq!(counts(&mut bob, &room, "").await[0], (0, 0));
    let one = server.say(&room, ALICE, "one").await;
    server.say(&room, ALICE, "two").await;
    let mention = json!({"msgtype": "m.text", "body": "Bob!", "m.mentions": {"user_ids": [BOB]}});
    server.send(&room, ALICE, "m.room.message", mention).await;
    assert_eq!(counts(&mut bob, &room, "").await[0], (3, 1));
    assert_eq!(
        counts(&mut alice, &room, "").await[0],
        (0, 0),
        "her own do not count"
    );

    server
        .read(
            &room,
            BOB,
            &one,
            ReceiptKind::ReadPrivate,
            Thread::Unthreaded,
        )
        .await;
    assert_eq!(counts(&mut bob, &room, "").await[0], (2, 1));
    server
        .set(
            &room,
            ALICE,
            "m.room.topic",
            "",
            json!({"topic": "state does not notify"}),
        )
        .await;
    assert_eq!(counts(&mut bob, &room, "").await[0], (2, 1));
    server.say(&room, BOB, "he answers, and so has read").await;
    assert_eq!(counts(&mut bob, &room, "").await[0], (0, 0));
    server.say(&room, ALICE, "three").await;
    assert_eq!(counts(&mut bob, &room, "").await[0], (1, 0));

    // An incremental sync that brings the receipt brings the count.
    let last = server.say(&room, ALICE, "four").await;
    bob.sync().await;
    server
        .read(&room, BOB, &last, ReceiptKind::Read, Thread::Unthreaded)
        .await;
    bob.filter = json!({"room": {"ephemeral": {"types": []}}});
    let response = bob.sync().await;
    assert_eq!(
        of(&response, "join", &room)["unread_notifications"]["notification_count"],
        0
    );
    assert!(of(&alice.sync().await, "join", &room).is_object());
}

#[tokio::test]
async fn threads_are_counted_apart() {
    let server = Server::new().await;
    let room = server.room().await;
    server.join(&room, BOB).await;
    let mut bob = server.client(BOB).await;
    let mut threaded = server.client(BOB).await;
    threaded.filter = json!({"room": {"timeline": {"unread_thread_notifications": true}}});
    let root = server.say(&room, ALICE, "root").await;
    let reply = |body: &str, mention: bool| {
        let users = if mention { json!([BOB]) } else { json!([]) };
        json!({
            "msgtype": "m.text", "body": body, "m.mentions": {"user_ids": users},
            "m.relates_to": {"rel_type": "m.thread", "event_id": root},
        })
    };
    let first = server
        .send(&room, ALICE, "m.room.message", reply("a", false))
        .await;
    server
        .send(&room, ALICE, "m.room.message", reply("b", true))
        .await;
    let mention = json!({"msgtype": "m.text", "body": "Bob!", "m.mentions": {"user_ids": [BOB]}});
    let main = server.send(&room, ALICE, "m.room.message", mention).await;
    server
        .send(&room, ALICE, "m.room.message", reply("c", false))
        .await;
    let related = json!({
        "msgtype": "m.text", "body": "d", "m.mentions": {},
        "m.relates_to": {"rel_type": "m.reference", "event_id": root},
    });
    server.send(&room, ALICE, "m.room.message", related).await;
    let in_thread = Thread::Root(EventId::parse(&root).expect("an event id"));

    assert_eq!(counts(&mut bob, &room, &root).await, [(6, 2), (0, 0)]);
    assert_eq!(counts(&mut threaded, &room, &root).await, [(3, 1), (3, 1)]);
    server
        .read(&room, BOB, &root, ReceiptKind::Read, Thread::Main)
        .await;
    assert_eq!(counts(&mut bob, &room, &root).await[0], (5, 2));
    assert_eq!(counts(&mut threaded, &room, &root).await, [(2, 1), (3, 1)]);
    server
        .read(&room, BOB, &first, ReceiptKind::Read, in_thread)
        .await;
    assert_eq!(counts(&mut bob, &room, &root).await[0], (4, 2));
    assert_eq!(counts(&mut threaded, &room, &root).await, [(2, 1), (2, 1)]);
    server
        .read(&room, BOB, &main, ReceiptKind::Read, Thread::Unthreaded)
        .await;
    assert_eq!(counts(&mut bob, &room, &root).await[0], (2, 0));
    assert_eq!(counts(&mut threaded, &room, &root).await, [(1, 0), (1, 0)]);
    server
        .send(
            &room,
            BOB,
            "m.room.message",
            reply("he answers in the thread", false),
        )
        .await;
    assert_eq!(counts(&mut threaded, &room, &root).await, [(1, 0), (0, 0)]);
}

#[tokio::test]
async fn long_absences_are_bounded_and_counts_are_saved() {
    let server = Server::new().await;
    let room = server.room().await;
    server.join(&room, BOB).await;
    for number in 0..250 {
        server.say(&room, ALICE, &number.to_string()).await;
    }
    let mut bob = server.client(BOB).await;
    assert_eq!(counts(&mut bob, &room, "").await[0], (250, 0));
    // What was saved is what another server over the same store goes on from.
    let again = myelin_sync::Sync::new(server.rooms.clone(), server.accounts.clone());
    server.say(&room, ALICE, "one more").await;
    let response = again
        .sync(bob.request(std::time::Duration::ZERO))
        .await
        .expect("syncs are answered");
    let joined = response.rooms.join.get(&room).expect("the room is there");
    assert_eq!(
        joined
            .unread_notifications
            .map(|counts| counts.notification_count),
        Some(251)
    );
    let user = bob.viewer.user;
    let saved = || {
        let view = server.store.view();
        let rows = view.keys::<UnreadCounts>(Scan::prefix(&user));
        rows.count()
    };
    assert_eq!(saved(), 2, "of the room and of its main timeline");

    // What was saved goes when it is told that he left.
    server.leave(&room, BOB).await;
    bob.sync().await;
    for _ in 0..100 {
        if saved() == 0 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("the counts of a room that was left stay");
}
