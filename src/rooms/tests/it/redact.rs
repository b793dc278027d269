//! Redactions.

use myelin_rooms::{AppendError, Preset, Redact, RedactError, SendError};
use myelin_rules::RoomVersion;
use ruma::{EventId, OwnedEventId, RoomId, owned_event_id};
use serde_json::json;

use crate::support::{ALICE, BOB, Server, message, object, transaction, user};

fn redact(room: &RoomId, who: &str, event: &EventId) -> Redact {
    Redact {
        room_id: room.to_owned(),
        sender: user(who),
        event_id: event.to_owned(),
        content: object(json!({"reason": "spam"})),
        transaction: None,
    }
}

fn find(server: &Server, room: &RoomId, id: &OwnedEventId) -> std::sync::Arc<myelin_rooms::Event> {
    let view = server.view();
    let num = server.handle(room).num;
    let event = server.rooms.event_num(&view, num, id).expect("read");
    server
        .rooms
        .event(&view, num, event.expect("known"))
        .expect("read")
        .expect("stored")
}

#[tokio::test]
async fn events_are_pruned_in_every_version() {
    let server = Server::new().await;
    for version in RoomVersion::ALL {
        let room = server.room(Preset::PublicChat, version).await;
        server.join(&room, BOB).await;
        let said = server.say(&room, BOB, "spam").await;
        let redaction = server
            .rooms
            .redact(redact(&room, ALICE, &said))
            .await
            .expect("Alice has the power");
        let pruned = find(&server, &room, &said);
        assert!(pruned.pdu.content().is_empty());
        assert_eq!(pruned.pdu.event_id(), said.as_str());
        let event = find(&server, &room, &redaction);
        assert_eq!(pruned.header.redacted_by, Some(event.num));
        assert_eq!(event.pdu.redacts(), Some(said.as_str()));
        assert_eq!(event.pdu.content()["reason"], "spam");
        assert_eq!(
            event.pdu.content().contains_key("redacts"),
            version.rules().redacts_in_content
        );
        let again = server.rooms.redact(redact(&room, ALICE, &said)).await;
        again.expect("redacting twice is allowed");
        assert_eq!(
            find(&server, &room, &said).header.redacted_by,
            Some(event.num),
            "the first redaction stays the reason"
        );
        server.say(&room, ALICE, "on").await;
        server.check_chain(&room);
    }
}

#[tokio::test]
async fn who_may_not_redact() {
    let server = Server::new().await;
    let room = server.public_room().await;
    server.join(&room, BOB).await;
    let hers = server.say(&room, ALICE, "hers").await;
    let his = server.say(&room, BOB, "his").await;
    assert!(matches!(
        server.rooms.redact(redact(&room, BOB, &hers)).await,
        Err(RedactError::NotAllowed)
    ));
    server
        .rooms
        .redact(redact(&room, BOB, &his))
        .await
        .expect("his own");
    let unknown = owned_event_id!("$unknown");
    assert!(matches!(
        server.rooms.redact(redact(&room, BOB, &unknown)).await,
        Err(RedactError::EventNotFound)
    ));
    // An event of another room is as good as unknown.
    let elsewhere = server.public_room().await;
    server
        .rooms
        .redact(redact(&elsewhere, ALICE, &hers))
        .await
        .expect("she may redact whatever comes");
    let kept = find(&server, &room, &hers);
    assert_eq!(kept.header.redacted_by, None);
    assert_eq!(kept.pdu.content()["body"], "hers");
    let create = server.state(&room, "m.room.create", "").expect("there");
    let create = OwnedEventId::try_from(create.pdu.event_id()).expect("an id");
    assert!(matches!(
        server.rooms.redact(redact(&room, ALICE, &create)).await,
        Err(RedactError::NotAllowed)
    ));
    server
        .rooms
        .leave(&room, &user(BOB), None)
        .await
        .expect("left");
    assert!(matches!(
        server.rooms.redact(redact(&room, BOB, &his)).await,
        Err(RedactError::Append(AppendError::Forbidden(_)))
    ));
}

#[tokio::test]
async fn redacted_state_counts_as_what_is_left_of_it() {
    let server = Server::new().await;
    let room = server.public_room().await;
    let rules = server
        .state(&room, "m.room.history_visibility", "")
        .expect("set");
    let id = OwnedEventId::try_from(rules.pdu.event_id()).expect("an id");
    let levels = server.state(&room, "m.room.power_levels", "").expect("set");
    let levels = OwnedEventId::try_from(levels.pdu.event_id()).expect("an id");
    for id in [&id, &levels] {
        server
            .rooms
            .redact(redact(&room, ALICE, id))
            .await
            .expect("redacted");
    }
    let left = server.content(&room, "m.room.power_levels", "");
    assert_eq!(left["users"][ALICE], 100);
    server.say(&room, ALICE, "on").await;
    let server = server.restart().await;
    server.say(&room, ALICE, "and on").await;
    server.check_chain(&room);
}

#[tokio::test]
async fn redactions_by_send_and_by_transaction() {
    let server = Server::new().await;
    let room = server.public_room().await;
    let said = server.say(&room, ALICE, "spam").await;
    let mut request = message(&room, ALICE, "");
    request.event_type = "m.room.redaction".to_owned();
    request.content = object(json!({"redacts": said, "reason": "r"}));
    request.transaction = Some(transaction("PHONE", "1"));
    let first = server
        .rooms
        .send_message(request.clone())
        .await
        .expect("sent");
    let again = server
        .rooms
        .send_message(request.clone())
        .await
        .expect("sent");
    assert_eq!(first, again);
    assert!(find(&server, &room, &said).pdu.content().is_empty());
    request.content = object(json!({}));
    assert!(matches!(
        server.rooms.send_message(request).await,
        Err(SendError::BadContent(_))
    ));
}
