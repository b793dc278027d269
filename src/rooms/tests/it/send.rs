//! Sending message and state events, and transactions.

use myelin_rooms::{AppendError, CanonicalAliasError, Preset, SendError};
use myelin_rules::RoomVersion;
use ruma::{owned_room_id, room_alias_id};
use serde_json::json;

use crate::support::{ALICE, BOB, Server, message, object, state, transaction, user};

#[tokio::test]
async fn messages_are_sent_by_members_only() {
    let server = Server::new().await;
    let room = server.public_room().await;
    server.say(&room, ALICE, "hello").await;
    let outsider = server.rooms.send_message(message(&room, BOB, "no")).await;
    assert!(matches!(
        outsider,
        Err(SendError::Append(AppendError::Forbidden(_)))
    ));
    let nowhere = message(&owned_room_id!("!nowhere:here.org"), ALICE, "no");
    assert!(matches!(
        server.rooms.send_message(nowhere).await,
        Err(SendError::RoomNotFound)
    ));
    server.check_chain(&room);
}

#[tokio::test]
async fn malformed_and_oversized_messages_are_refused() {
    let server = Server::new().await;
    let room = server.public_room().await;
    for content in [
        json!({}),
        json!({"body": "x"}),
        json!({"msgtype": "m.text", "body": 1}),
    ] {
        let mut request = message(&room, ALICE, "");
        request.content = object(content);
        assert!(matches!(
            server.rooms.send_message(request).await,
            Err(SendError::BadContent(_))
        ));
    }
    let huge = message(&room, ALICE, &"x".repeat(70_000));
    assert!(matches!(
        server.rooms.send_message(huge).await,
        Err(SendError::Append(AppendError::TooLarge(_)))
    ));
    server.say(&room, ALICE, "still works").await;
    server.check_chain(&room);
}

#[tokio::test]
async fn equal_state_is_sent_once() {
    let server = Server::new().await;
    let room = server.public_room().await;
    let name = |text: &str| state(&room, ALICE, "m.room.name", "", json!({"name": text}));
    let first = server.rooms.send_state(name("A")).await.expect("allowed");
    let again = server.rooms.send_state(name("A")).await.expect("allowed");
    let other = server.rooms.send_state(name("B")).await.expect("allowed");
    assert_eq!(first, again);
    assert_ne!(first, other);
    let replaced = server.state(&room, "m.room.name", "").expect("set");
    assert!(replaced.header.replaces.is_some());
    server.check_chain(&room);
}

#[tokio::test]
async fn state_needs_power() {
    let server = Server::new().await;
    let room = server.public_room().await;
    server.join(&room, BOB).await;
    let request = state(&room, BOB, "m.room.name", "", json!({"name": "Bob's"}));
    assert!(matches!(
        server.rooms.send_state(request).await,
        Err(SendError::Append(AppendError::Forbidden(_)))
    ));
}

#[tokio::test]
async fn empty_power_levels_take_the_power_of_everybody() {
    let server = Server::new().await;
    let room = server.room(Preset::PrivateChat, RoomVersion::V10).await;
    let levels = |content| state(&room, ALICE, "m.room.power_levels", "", content);
    for content in [json!({"users": {ALICE: 100}}), json!({})] {
        server
            .rooms
            .send_state(levels(content))
            .await
            .expect("Alice has the power");
    }
    let refused = server.rooms.send_state(levels(json!({"users": {}}))).await;
    assert!(matches!(
        refused,
        Err(SendError::Append(AppendError::Forbidden(_)))
    ));
    assert_eq!(server.content(&room, "m.room.power_levels", ""), json!({}));
}

#[tokio::test]
async fn canonical_aliases_must_point_to_the_room() {
    let server = Server::new().await;
    let room = server.public_room().await;
    let elsewhere = server.public_room().await;
    for (alias, room) in [
        (room_alias_id!("#here:here.org"), &room),
        (room_alias_id!("#there:here.org"), &elsewhere),
    ] {
        server
            .rooms
            .create_alias(alias, room, &user(ALICE))
            .await
            .expect("the alias is free");
    }
    let set = |content| state(&room, ALICE, "m.room.canonical_alias", "", content);
    for (content, bad) in [
        (json!({"alias": "#missing:here.org"}), true),
        (json!({"alias": "#there:here.org"}), true),
        (
            json!({"alias": "#here:here.org", "alt_aliases": ["#there:here.org"]}),
            true,
        ),
        (json!({"alias": "%here:here.org"}), false),
        (
            json!({"alias": "#here:here.org", "alt_aliases": ["here"]}),
            false,
        ),
    ] {
        match server.rooms.send_state(set(content)).await {
            Err(SendError::CanonicalAlias(CanonicalAliasError::BadAlias(_))) => assert!(bad),
            Err(SendError::CanonicalAlias(CanonicalAliasError::InvalidAlias(_))) => assert!(!bad),
            other => panic!("{other:?}"),
        }
    }
    server
        .rooms
        .send_state(set(
            json!({"alias": "#here:here.org", "alt_aliases": ["#here:here.org"]}),
        ))
        .await
        .expect("the alias points here");
}

#[tokio::test]
async fn a_transaction_is_done_once() {
    let server = Server::new().await;
    let room = server.public_room().await;
    let send = |device: &str, id: &str, text: &str| {
        let mut request = message(&room, ALICE, text);
        request.transaction = Some(transaction(device, id));
        server.rooms.send_message(request)
    };
    let first = send("PHONE", "1", "a").await.expect("sent");
    assert_eq!(send("PHONE", "1", "other").await.expect("sent"), first);
    assert_ne!(send("PHONE", "2", "a").await.expect("sent"), first);
    assert_ne!(send("LAPTOP", "1", "a").await.expect("sent"), first);
    let (_, _, event) = &server.timeline(&room)[6 - 1];
    let sent_by = event
        .header
        .transaction
        .as_ref()
        .expect("it came by a request");
    assert_eq!(sent_by.device_id, "PHONE");
    assert_eq!(sent_by.transaction_id, "1");

    let server = server.restart().await;
    let mut request = message(&room, ALICE, "after a restart");
    request.transaction = Some(transaction("PHONE", "1"));
    let again = server.rooms.send_message(request).await.expect("sent");
    assert_eq!(again, first);
    server.check_chain(&room);
}

#[tokio::test]
async fn concurrent_repetitions_are_one_transaction() {
    let server = Server::new().await;
    let room = server.public_room().await;
    let before = server.timeline(&room).len();
    let mut sending = Vec::new();
    for _ in 0..16 {
        let rooms = server.rooms.clone();
        let mut request = message(&room, ALICE, "once");
        request.transaction = Some(transaction("PHONE", "x"));
        sending.push(tokio::spawn(
            async move { rooms.send_message(request).await },
        ));
    }
    let mut ids = std::collections::HashSet::new();
    for sending in sending {
        ids.insert(sending.await.expect("no panic").expect("sent"));
    }
    assert_eq!(ids.len(), 1);
    assert_eq!(server.timeline(&room).len(), before + 1);
}

#[tokio::test]
async fn a_request_completes_though_nobody_waits() {
    let server = Server::new().await;
    let room = server.public_room().await;
    let before = server.timeline(&room).len();
    let rooms = server.rooms.clone();
    let request = message(&room, ALICE, "fire and forget");
    let asking = tokio::spawn(async move { rooms.send_message(request).await });
    tokio::task::yield_now().await;
    asking.abort();
    let _ = asking.await;
    server.say(&room, ALICE, "after it").await;
    server.rooms.drain().await;
    let after = server.timeline(&room).len();
    assert!(after == before + 2 || after == before + 1);
    server.check_chain(&room);
}

#[tokio::test]
async fn power_levels_that_nobody_could_set_are_not_a_question_of_power() {
    let server = Server::new().await;
    let room = server.room(Preset::PublicChat, RoomVersion::V12).await;
    server.join(&room, BOB).await;
    let levels = |who: &str, users: serde_json::Value| {
        let content = json!({ "users": users });
        server
            .rooms
            .send_state(state(&room, who, "m.room.power_levels", "", content))
    };
    // A creator has no level in this version.
    let refused = levels(ALICE, json!({ ALICE: 100 })).await;
    assert!(
        matches!(
            refused,
            Err(SendError::Append(AppendError::Unacceptable(_)))
        ),
        "{refused:?}"
    );
    let refused = levels(BOB, json!({ BOB: 100 })).await;
    assert!(
        matches!(refused, Err(SendError::Append(AppendError::Forbidden(_)))),
        "{refused:?}"
    );
    levels(ALICE, json!({ BOB: 100 })).await.expect("she may");
}
