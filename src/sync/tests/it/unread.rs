//! Unread counts.

use std::time::Duration;

use myelin_data::{rooms::ReceiptKind, unread::UnreadCounts};
use myelin_rooms::{Profile, Thread};
use myelin_rules::push::{Kind, NewRule};
use myelin_store::{Batch, Scan};
use myelin_sync::UnreadNotifications;
use myelin_types::RoomNum;
use ruma::{EventId, RoomId};
use serde_json::{Value, json};

use crate::support::{ALICE, BOB, CHARLIE, Client, Server, of, user};

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

/// What a client without a memory of its own is told by a server that has none either.
async fn afresh(server: &Server, client: &Client, room: &RoomId) -> UnreadNotifications {
    // What the last answer saved is durable before this is.
    let settled = server.store.commit(Batch::new()).await;
    settled.expect("batches are written");
    let sync = server.other_sync();
    let mut request = client.request(Duration::ZERO);
    request.since = None;
    let response = sync.sync(request).await.expect("syncs are answered");
    let joined = response.rooms.join.get(room).expect("the room is there");
    joined.unread_notifications.expect("there is a count")
}

/// Sends many messages to a room at once.
async fn chatter(server: &Server, room: &RoomId, number: usize) {
    let mut sending = Vec::new();
    for _ in 0..number {
        let (rooms, message) = (
            server.rooms.clone(),
            Server::message(room, ALICE, "chatter"),
        );
        sending.push(tokio::spawn(
            async move { rooms.send_message(message).await },
        ));
    }
    for sending in sending {
        let sent = sending.await.expect("no panic");
        sent.expect("the message may be sent");
    }
}

fn mention(who: &str) -> Value {
    json!({"msgtype": "m.text", "body": "you!", "m.mentions": {"user_ids": [who]}})
}

#[tokio::test]
async fn long_gaps_are_counted_exactly_and_not_walked() {
    let server = Server::new().await;
    let room = server.room().await;
    server.join(&room, BOB).await;
    server.join(&room, CHARLIE).await;
    let mut bob = server.client(BOB).await;
    let mut threaded = server.client(BOB).await;
    threaded.filter = json!({"room": {"timeline": {"unread_thread_notifications": true}}});
    let (message, root) = ("m.room.message", server.say(&room, ALICE, "root").await);
    let in_thread = |who: &str| {
        let mut content = mention(who);
        content["m.relates_to"] = json!({"rel_type": "m.thread", "event_id": root});
        content
    };

    chatter(&server, &room, 1_000).await;
    server.send(&room, ALICE, message, mention(BOB)).await;
    server.send(&room, ALICE, message, mention(CHARLIE)).await;
    server.send(&room, ALICE, message, in_thread(BOB)).await;
    server.say(&room, BOB, "has read the main timeline").await;
    server.send(&room, ALICE, message, mention(BOB)).await;
    let regretted = server.send(&room, ALICE, message, mention(BOB)).await;
    chatter(&server, &room, 2_500).await;
    server.send(&room, ALICE, message, in_thread(CHARLIE)).await;
    server.send(&room, BOB, message, in_thread(ALICE)).await;
    server.send(&room, ALICE, message, in_thread(BOB)).await;
    server.redact(&room, ALICE, &regretted).await;
    let unremarkable = server.say(&room, ALICE, "never mind").await;
    server.redact(&room, ALICE, &unremarkable).await;
    let notice = json!({"msgtype": "m.notice", "body": "a bot", "m.mentions": {}});
    server.send(&room, CHARLIE, message, notice).await;
    chatter(&server, &room, 2_500).await;
    server.send(&room, CHARLIE, message, mention(BOB)).await;

    let before = server.store.counters();
    assert_eq!(counts(&mut bob, &room, "").await[0], (5_003, 3));
    let after = server.store.counters();
    let rows = after.rows_scanned - before.rows_scanned;
    assert!(rows < 150, "{rows} rows were walked");
    let gets = after.gets - before.gets;
    assert!(gets < 500, "{gets} rows were looked up");
    assert_eq!(
        counts(&mut threaded, &room, &root).await,
        [(5_002, 2), (1, 1)]
    );
    let of = |notification_count, highlight_count| UnreadNotifications {
        notification_count,
        highlight_count,
    };
    assert_eq!(afresh(&server, &bob, &room).await, of(5_003, 3));

    // Whoever ignores Charlie does not hear him, however long ago it was.
    let list = json!({"ignored_users": {CHARLIE: {}}});
    let list = server.account_data(&bob, RoomNum::NONE, "m.ignored_user_list", list);
    list.await;
    assert_eq!(counts(&mut bob, &room, "").await[0], (5_002, 2));
    let list = json!({"ignored_users": {}});
    let list = server.account_data(&bob, RoomNum::NONE, "m.ignored_user_list", list);
    list.await;
    assert_eq!(counts(&mut bob, &room, "").await[0], (5_003, 3));

    // Rules for whole rooms need no event to be read, and those for words need all of them, once.
    let user = bob.viewer.user;
    let keyword = NewRule {
        actions: vec![json!("notify"), json!({"set_tweak": "highlight"})],
        pattern: Some("chatter".to_owned()),
        ..NewRule::default()
    };
    let put = server
        .accounts
        .put_push_rule(user, Kind::Content, "word", keyword, None, None);
    put.await.expect("the rule may be set");
    assert_eq!(counts(&mut bob, &room, "").await[0], (5_003, 5_003));
    let before = server.store.counters();
    assert_eq!(counts(&mut bob, &room, "").await[0], (5_003, 5_003));
    assert_eq!(afresh(&server, &bob, &room).await, of(5_003, 5_003));
    let after = server.store.counters();
    let rows = after.rows_scanned - before.rows_scanned;
    assert!(
        rows < 300,
        "{rows} rows were walked though the count is saved"
    );
    let gone = server
        .accounts
        .delete_push_rule(user, Kind::Content, "word");
    gone.await.expect("the rule goes");
    let only_mentions = NewRule::default();
    let put =
        server
            .accounts
            .put_push_rule(user, Kind::Room, room.as_str(), only_mentions, None, None);
    put.await.expect("the rule may be set");
    let before = server.store.counters();
    assert_eq!(counts(&mut bob, &room, "").await[0], (3, 3));
    let after = server.store.counters();
    let rows = after.rows_scanned - before.rows_scanned;
    assert!(rows < 150, "{rows} rows were walked");
}

#[tokio::test]
async fn laborious_counts_are_saved() {
    let server = Server::new().await;
    let room = server.room().await;
    server.join(&room, BOB).await;
    for _ in 0..250 {
        server
            .send(&room, ALICE, "m.room.message", mention(BOB))
            .await;
    }
    let mut bob = server.client(BOB).await;
    assert_eq!(counts(&mut bob, &room, "").await[0], (250, 250));
    // What was saved is what another server over the same store goes on from.
    server.say(&room, ALICE, "one more").await;
    let before = server.store.counters();
    let count = afresh(&server, &bob, &room).await;
    assert_eq!(
        (count.notification_count, count.highlight_count),
        (251, 250)
    );
    let after = server.store.counters();
    assert!(after.rows_scanned - before.rows_scanned < 150);
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
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the counts of a room that was left stay");
}

#[tokio::test]
async fn what_is_redacted_does_not_count() {
    let server = Server::new().await;
    let room = server.room().await;
    server.join(&room, BOB).await;
    let mut bob = server.client(BOB).await;
    let one = server.say(&room, ALICE, "one").await;
    let two = server
        .send(&room, ALICE, "m.room.message", mention(BOB))
        .await;
    assert_eq!(counts(&mut bob, &room, "").await[0], (2, 1));
    server.redact(&room, ALICE, &two).await;
    assert_eq!(counts(&mut bob, &room, "").await[0], (1, 0));
    server.redact(&room, ALICE, &one).await;
    assert_eq!(counts(&mut bob, &room, "").await[0], (0, 0));
    // Nor does it count twice that something is redacted.
    server.redact(&room, ALICE, &one).await;
    server.say(&room, ALICE, "three").await;
    assert_eq!(counts(&mut bob, &room, "").await[0], (1, 0));
    // What he wrote is read however little is left of it.
    let own = server.say(&room, BOB, "I see").await;
    server.redact(&room, ALICE, &own).await;
    assert_eq!(counts(&mut bob, &room, "").await[0], (0, 0));
}

#[tokio::test]
async fn a_new_name_does_not_begin_a_stay() {
    let server = Server::new().await;
    let room = server.room().await;
    server.say(&room, ALICE, "before he came").await;
    server.join(&room, BOB).await;
    let mut bob = server.client(BOB).await;
    server.say(&room, ALICE, "one").await;
    for number in 0..3 {
        let profile = Profile {
            displayname: Some(number.to_string()),
            avatar_url: None,
        };
        let updated = server.rooms.update_profile(&user(BOB), &profile).await;
        updated.expect("the profile may be set");
    }
    assert_eq!(counts(&mut bob, &room, "").await[0], (1, 0));
    server.leave(&room, BOB).await;
    server.say(&room, ALICE, "while he was away").await;
    server.join(&room, BOB).await;
    assert_eq!(counts(&mut bob, &room, "").await[0], (0, 0));
}
