//! One writer at a time, many batches on their way, failures that take nothing else with them.

use std::collections::HashSet;

use myelin_data::rooms::Heads;
use myelin_rooms::{Options, Preset};
use myelin_rules::RoomVersion;
use myelin_store::Batch;
use serde_json::json;

use crate::support::{ALICE, BOB, Server, message, state, transaction, user};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_writers_make_one_chain() {
    let server = Server::new().await;
    let room = server.public_room().await;
    let before = server.timeline(&room).len();
    let commits = server.store.counters().group_commits;
    let mut writing = Vec::new();
    for writer in 0..32 {
        let (server_rooms, room) = (server.rooms.clone(), room.clone());
        writing.push(tokio::spawn(async move {
            let mut ids = Vec::new();
            for turn in 0..10 {
                // Some write state, so that later events build on states which are not on disk yet.
                let id = if writer % 8 == 0 {
                    let name = json!({"name": format!("{writer} {turn}")});
                    server_rooms
                        .send_state(state(&room, ALICE, "m.room.name", "", name))
                        .await
                        .expect("allowed")
                } else {
                    server_rooms
                        .send_message(message(&room, ALICE, &format!("{writer} {turn}")))
                        .await
                        .expect("allowed")
                };
                ids.push(id);
            }
            ids
        }));
    }
    let mut ids = HashSet::new();
    for writing in writing {
        ids.extend(writing.await.expect("no panic"));
    }
    assert_eq!(ids.len(), 320);
    assert_eq!(server.timeline(&room).len(), before + 320);
    server.check_chain(&room);
    let commits = server.store.counters().group_commits - commits;
    assert!(commits < 320, "{commits} writes for 320 events of one room");

    let server = server.restart().await;
    assert_eq!(server.timeline(&room).len(), before + 320);
    server.say(&room, ALICE, "after the restart").await;
    server.check_chain(&room);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_joins_are_all_counted() {
    let server = Server::new().await;
    let room = server.public_room().await;
    let mut joining = Vec::new();
    for user in 0..40 {
        let (rooms, room) = (server.rooms.clone(), room.clone());
        joining.push(tokio::spawn(async move {
            let who = format!("@user{user}:here.org");
            rooms
                .join(crate::support::enter(&room, &who))
                .await
                .expect("may join");
            rooms
                .send_message(message(&room, &who, "hello"))
                .await
                .expect("may speak");
        }));
    }
    for joining in joining {
        joining.await.expect("no panic");
    }
    assert_eq!(server.head(&room).joined, 41);
    server.check_chain(&room);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_failed_batch_takes_what_was_built_on_it_and_nothing_else() {
    let server = Server::new().await;
    let room = server.public_room().await;
    let num = server.handle(&room).num;
    server.say(&room, ALICE, "before").await;
    // Another writer moves the head on behind our back, as a second node would.
    let mut head = server.head(&room);
    head.sequence += 1_000;
    let mut batch = Batch::new();
    batch.put::<Heads>(&num, &head);
    server.store.commit(batch).await.expect("committed");
    let before = server.timeline(&room).len();

    let mut writing = Vec::new();
    for writer in 0..16 {
        let (rooms, room) = (server.rooms.clone(), room.clone());
        writing.push(tokio::spawn(async move {
            let mut request = message(&room, ALICE, "perhaps");
            request.transaction = Some(transaction("PHONE", &writer.to_string()));
            let first = rooms.send_message(request.clone()).await;
            let failed = first.is_err();
            // The client tries again with the same transaction id.
            let id = match first {
                Ok(id) => id,
                Err(_) => loop {
                    if let Ok(id) = rooms.send_message(request.clone()).await {
                        break id;
                    }
                },
            };
            (failed, id)
        }));
    }
    let mut failures = 0;
    let mut ids = HashSet::new();
    for writing in writing {
        let (failed, id) = writing.await.expect("no panic");
        failures += usize::from(failed);
        ids.insert(id);
    }
    assert!(failures >= 1, "the first batch expected another head");
    assert_eq!(ids.len(), 16);
    assert_eq!(
        server.timeline(&room).len(),
        before + 16,
        "each is there once"
    );
    server.check_chain(&room);
}

#[tokio::test]
async fn a_message_costs_the_same_in_every_room() {
    let server = Server::new().await;
    let mut costs = Vec::new();
    let small = server.public_room().await;
    server.join(&small, BOB).await;
    let large = server.public_room().await;
    server.join(&large, BOB).await;
    let users: Vec<String> = (0..10_000)
        .map(|user| format!("@user{user}:here.org"))
        .collect();
    // Numbered in one batch, since that is not what is measured.
    let interner = server.rooms.interner();
    let ids: Vec<_> = users.iter().map(|id| user(id)).collect();
    interner.users(&ids).await.expect("numbered");
    let keys: Vec<_> = users
        .iter()
        .map(|id| ("m.room.member".to_owned(), id.clone()))
        .collect();
    interner.state_keys(&keys).await.expect("numbered");
    let mut joining = Vec::new();
    for who in users {
        let (rooms, room) = (server.rooms.clone(), large.clone());
        joining.push(tokio::spawn(async move {
            rooms
                .join(crate::support::enter(&room, &who))
                .await
                .expect("may join");
        }));
    }
    for joining in joining {
        joining.await.expect("no panic");
    }
    for room in [&small, &large] {
        server.say(room, ALICE, "warm").await;
        let before = server.settled().await;
        let mut request = message(room, ALICE, "hello");
        request.transaction = Some(transaction("PHONE", room.as_str()));
        server.rooms.send_message(request).await.expect("sent");
        let after = server.settled().await;
        costs.push((after.puts - before.puts, after.batches - before.batches));
    }
    assert_eq!(
        costs[0],
        (8, 1),
        "event, id, timeline, head, log, the sender's last message, two for the transaction"
    );
    assert_eq!(costs[1], costs[0]);
    assert_eq!(server.head(&large).joined, 10_002);
}

#[tokio::test]
async fn idle_rooms_are_evicted_and_come_back() {
    let options = Options {
        idle_rooms: 4,
        ..Options::default()
    };
    let server = Server::with(options).await;
    let mut rooms = Vec::new();
    for version in [RoomVersion::V2, RoomVersion::V11] {
        for _ in 0..8 {
            rooms.push(server.room(Preset::PublicChat, version).await);
        }
    }
    for turn in 0..3 {
        for room in &rooms {
            server.say(room, ALICE, &turn.to_string()).await;
        }
    }
    for room in &rooms {
        server.check_chain(room);
    }
}
