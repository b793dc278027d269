//! Inviting, joining, knocking, leaving, kicking, banning, forgetting.

use myelin_data::{
    RawJson, Shown,
    rooms::{Membership, RoomMembers, StrippedStates, UserRoom, UserRooms},
};
use myelin_rooms::{
    AppendError, ForgetError, InviteError, JoinError, JsonObject, KnockError, LeaveError,
    ModerateError, Preset, Redact, SendError,
};
use myelin_rules::RoomVersion;
use myelin_store::{Batch, Scan};
use myelin_types::{RoomNum, UserNum};
use ruma::{OwnedRoomId, RoomId, owned_room_id};
use serde_json::{Value, json};

use crate::support::{ALICE, BOB, CHARLIE, Server, enter, invite, moderate, object, state, user};

fn num(server: &Server, who: &str) -> UserNum {
    server
        .rooms
        .interner()
        .find_user(&server.view(), &user(who))
        .expect("read")
        .expect("the user was met")
}

fn row(server: &Server, room: &RoomId, who: &str) -> UserRoom {
    let room = server.handle(room).num;
    server
        .view()
        .get::<UserRooms>(&(num(server, who), room))
        .expect("read")
        .expect("there is a row")
}

fn members(server: &Server, room: &RoomId, membership: Membership) -> Vec<UserNum> {
    let room = server.handle(room).num;
    server
        .view()
        .scan::<RoomMembers>(Scan::prefix(&(room, membership)))
        .map(|row| row.expect("read").0.2)
        .collect()
}

fn stripped(server: &Server, room: &RoomId, who: &str) -> Option<Vec<Value>> {
    let (view, room, user) = (server.view(), server.handle(room).num, num(server, who));
    view.get::<StrippedStates>(&(user, room)).expect("read")?;
    let shown = server.rooms.shown_to(&view, user, &[RoomNum::NONE, room]);
    let mut shown = shown.expect("read");
    assert_eq!(shown[0].len(), 0, "there is no such room");
    let events = shown.pop().expect("one list for each room");
    let events = events.iter();
    Some(
        events
            .map(|event| serde_json::from_str(event.get()).expect("an event"))
            .collect(),
    )
}

async fn private_room(server: &Server) -> OwnedRoomId {
    server.room(Preset::PrivateChat, RoomVersion::V11).await
}

#[tokio::test]
async fn joining_twice_is_one_join() {
    let server = Server::new().await;
    let room = server.public_room().await;
    let first = server.join(&room, BOB).await;
    let entered = row(&server, &room, BOB).pos;
    assert_eq!(server.join(&room, BOB).await, first);
    assert_eq!(server.head(&room).joined, 2);
    assert_eq!(
        members(&server, &room, Membership::Join),
        [num(&server, ALICE), num(&server, BOB)]
    );
    assert_eq!(row(&server, &room, BOB).pos, entered);
    let nowhere = owned_room_id!("!nowhere:here.org");
    assert!(matches!(
        server.rooms.join(enter(&nowhere, BOB)).await,
        Err(JoinError::RoomNotFound)
    ));
}

#[tokio::test]
async fn a_join_may_say_more() {
    let server = Server::new().await;
    let room = server.public_room().await;
    let mut request = enter(&room, BOB);
    request.reason = Some("curious".to_owned());
    request.extra = object(json!({
        "foo": "bar",
        "membership": "ban",
        "join_authorised_via_users_server": ALICE,
    }));
    server.rooms.join(request).await.expect("may join");
    let expected = json!({
        "membership": "join",
        "displayname": BOB,
        "reason": "curious",
        "foo": "bar",
    });
    assert_eq!(server.content(&room, "m.room.member", BOB), expected);
}

#[tokio::test]
async fn an_invitation_opens_a_private_room_once() {
    let server = Server::new().await;
    let room = private_room(&server).await;
    assert!(matches!(
        server.rooms.join(enter(&room, BOB)).await,
        Err(JoinError::Append(AppendError::Forbidden(_)))
    ));
    server
        .rooms
        .invite(invite(&room, ALICE, BOB))
        .await
        .expect("Alice may invite");
    assert_eq!(server.head(&room).invited, 1);
    let shown = stripped(&server, &room, BOB).expect("Bob is shown the room");
    let types: Vec<&str> = shown
        .iter()
        .map(|event| event["type"].as_str().expect("a type"))
        .collect();
    assert_eq!(
        types,
        ["m.room.create", "m.room.join_rules", "m.room.member"]
    );
    assert_eq!(shown[2]["state_key"], BOB);
    assert_eq!(shown[2]["content"]["membership"], "invite");

    server.join(&room, BOB).await;
    assert_eq!(stripped(&server, &room, BOB), None);
    let head = server.head(&room);
    assert_eq!((head.joined, head.invited), (2, 0));

    assert!(matches!(
        server.rooms.invite(invite(&room, ALICE, BOB)).await,
        Err(InviteError::Append(AppendError::Forbidden(_)))
    ));
    assert!(matches!(
        server
            .rooms
            .invite(invite(&room, ALICE, "@x:away.org"))
            .await,
        Err(InviteError::RemoteTarget(_))
    ));
    server
        .rooms
        .leave(&room, &user(BOB), None)
        .await
        .expect("left");
    assert!(matches!(
        server.rooms.join(enter(&room, BOB)).await,
        Err(JoinError::Append(AppendError::Forbidden(_)))
    ));
    server.check_chain(&room);
}

#[tokio::test]
async fn whoever_is_invited_is_shown_the_room_of_that_time_without_what_was_redacted_since() {
    let server = Server::new().await;
    let room = private_room(&server).await;
    let set = async |kind: &str, content: Value| {
        let state = state(&room, ALICE, kind, "", content);
        server.rooms.send_state(state).await.expect("Alice may")
    };
    let name = set("m.room.name", json!({"name": "slander"})).await;
    set("m.room.topic", json!({"topic": "then"})).await;
    let mut request = invite(&room, ALICE, BOB);
    request.reason = Some("an insult".to_owned());
    let invitation = server.rooms.invite(request).await.expect("invited");
    let shown = || {
        let events = stripped(&server, &room, BOB).expect("Bob is shown the room");
        let mut events = events.into_iter();
        move |kind: &str| {
            let event = events.find(|event| event["type"] == kind);
            event.expect("it is shown")["content"].clone()
        }
    };
    set("m.room.topic", json!({"topic": "now"})).await;
    let mut content = shown();
    assert_eq!(content("m.room.name"), json!({"name": "slander"}));
    assert_eq!(content("m.room.topic"), json!({"topic": "then"}));
    assert_eq!(content("m.room.member")["reason"], "an insult");

    for event_id in [name, invitation] {
        let redact = Redact {
            room_id: room.clone(),
            sender: user(ALICE),
            event_id,
            content: JsonObject::new(),
            transaction: None,
        };
        server.rooms.redact(redact).await.expect("Alice may");
    }
    let mut content = shown();
    assert_eq!(content("m.room.name"), json!({}));
    assert_eq!(content("m.room.topic"), json!({"topic": "then"}));
    assert_eq!(content("m.room.member"), json!({"membership": "invite"}));
}

#[tokio::test]
async fn what_is_kept_as_text_is_shown_as_it_stands() {
    let server = Server::new().await;
    let room = private_room(&server).await;
    let invite = invite(&room, ALICE, BOB);
    server.rooms.invite(invite).await.expect("invited");
    let events =
        json!([{"type": "m.room.name", "state_key": "", "sender": "@x:away.org", "content": {}}]);
    let key = (num(&server, BOB), server.handle(&room).num);
    let mut batch = Batch::new();
    let text = RawJson::of(&events).expect("JSON");
    batch.put::<StrippedStates>(
        &key,
        &Shown::Raw {
            events: text,
            via: Vec::new(),
        },
    );
    server.store.commit(batch).await.expect("committed");
    let shown = stripped(&server, &room, BOB).expect("Bob is shown the room");
    assert_eq!(Value::from(shown), events);
}

#[tokio::test]
async fn declining_and_retracting_an_invitation() {
    let server = Server::new().await;
    let room = private_room(&server).await;
    server
        .rooms
        .invite(invite(&room, ALICE, BOB))
        .await
        .expect("invited");
    server
        .rooms
        .leave(&room, &user(BOB), Some("busy".to_owned()))
        .await
        .expect("declined");
    assert_eq!(stripped(&server, &room, BOB), None);
    assert_eq!(
        server.content(&room, "m.room.member", BOB)["reason"],
        "busy"
    );

    server
        .rooms
        .invite(invite(&room, ALICE, BOB))
        .await
        .expect("invited");
    server
        .rooms
        .kick(moderate(&room, ALICE, BOB))
        .await
        .expect("retracted");
    assert_eq!(server.membership(&room, BOB), "leave");
    assert_eq!(server.head(&room).invited, 0);
}

#[tokio::test]
async fn leaving_twice_and_leaving_what_one_is_not_in() {
    let server = Server::new().await;
    let room = server.public_room().await;
    server.join(&room, BOB).await;
    server
        .rooms
        .leave(&room, &user(BOB), None)
        .await
        .expect("left");
    let before = server.timeline(&room).len();
    server
        .rooms
        .leave(&room, &user(BOB), None)
        .await
        .expect("nothing to do");
    assert_eq!(server.timeline(&room).len(), before);
    assert!(matches!(
        server.rooms.leave(&room, &user(CHARLIE), None).await,
        Err(LeaveError::NotInRoom)
    ));
}

#[tokio::test]
async fn kicking_needs_power_and_somebody_to_kick() {
    let server = Server::new().await;
    let room = server.public_room().await;
    assert!(matches!(
        server.rooms.kick(moderate(&room, ALICE, BOB)).await,
        Err(ModerateError::TargetNotInRoom)
    ));
    server.join(&room, BOB).await;
    server.join(&room, CHARLIE).await;
    assert!(matches!(
        server.rooms.kick(moderate(&room, BOB, CHARLIE)).await,
        Err(ModerateError::Append(AppendError::Forbidden(_)))
    ));
    server
        .rooms
        .kick(moderate(&room, ALICE, BOB))
        .await
        .expect("kicked");
    assert_eq!(
        server.content(&room, "m.room.member", BOB)["reason"],
        "because"
    );
    assert!(matches!(
        server.rooms.kick(moderate(&room, ALICE, BOB)).await,
        Err(ModerateError::TargetNotInRoom)
    ));
}

#[tokio::test]
async fn a_ban_holds_until_it_is_lifted() {
    let server = Server::new().await;
    let room = server.public_room().await;
    server.join(&room, BOB).await;
    assert!(matches!(
        server.rooms.ban(moderate(&room, CHARLIE, BOB)).await,
        Err(ModerateError::Append(AppendError::Forbidden(_)))
    ));
    server
        .rooms
        .ban(moderate(&room, ALICE, BOB))
        .await
        .expect("banned");
    server
        .rooms
        .ban(moderate(&room, ALICE, BOB))
        .await
        .expect("still banned");
    assert_eq!(
        members(&server, &room, Membership::Ban),
        [num(&server, BOB)]
    );
    assert!(matches!(
        server.rooms.join(enter(&room, BOB)).await,
        Err(JoinError::Append(AppendError::Forbidden(_)))
    ));
    assert!(matches!(
        server.rooms.unban(moderate(&room, ALICE, CHARLIE)).await,
        Err(ModerateError::TargetNotInRoom)
    ));
    server
        .rooms
        .unban(moderate(&room, ALICE, BOB))
        .await
        .expect("unbanned");
    server.join(&room, BOB).await;
    server.check_chain(&room);
}

#[tokio::test]
async fn knocking_waits_for_an_invitation() {
    let server = Server::new().await;
    let room = server.room(Preset::PrivateChat, RoomVersion::V10).await;
    assert!(matches!(
        server.rooms.knock(enter(&room, BOB)).await,
        Err(KnockError::Append(AppendError::Forbidden(_)))
    ));
    let rule = state(
        &room,
        ALICE,
        "m.room.join_rules",
        "",
        json!({"join_rule": "knock"}),
    );
    server.rooms.send_state(rule).await.expect("Alice may");
    server
        .rooms
        .knock(enter(&room, BOB))
        .await
        .expect("knocked");
    assert_eq!(row(&server, &room, BOB).membership, Membership::Knock);
    assert!(stripped(&server, &room, BOB).is_some());
    server
        .rooms
        .leave(&room, &user(BOB), None)
        .await
        .expect("taken back");
    server
        .rooms
        .knock(enter(&room, BOB))
        .await
        .expect("knocked");
    server
        .rooms
        .invite(invite(&room, ALICE, BOB))
        .await
        .expect("let in");
    server.join(&room, BOB).await;
    server.check_chain(&room);
}

#[tokio::test]
async fn members_of_an_allowed_room_may_join() {
    let server = Server::new().await;
    for version in [RoomVersion::V8, RoomVersion::V10, RoomVersion::V12] {
        let club = server.public_room().await;
        let room = server.room(Preset::PrivateChat, version).await;
        let rule = json!({
            "join_rule": "restricted",
            "allow": [
                {"type": "m.unknown"},
                {"type": "m.room_membership", "room_id": "!unknown:away.org"},
                {"type": "m.room_membership", "room_id": club},
            ],
        });
        let rule = state(&room, ALICE, "m.room.join_rules", "", rule);
        server.rooms.send_state(rule).await.expect("Alice may");
        assert!(matches!(
            server.rooms.join(enter(&room, BOB)).await,
            Err(JoinError::Append(AppendError::Forbidden(_)))
        ));
        server.join(&club, BOB).await;
        server.join(&room, BOB).await;
        let content = server.content(&room, "m.room.member", BOB);
        assert_eq!(content["join_authorised_via_users_server"], ALICE);

        server
            .rooms
            .invite(invite(&room, ALICE, CHARLIE))
            .await
            .expect("invited");
        server.join(&room, CHARLIE).await;
        let content = server.content(&room, "m.room.member", CHARLIE);
        assert_eq!(content.get("join_authorised_via_users_server"), None);

        // When nobody here who may invite is left, members of the club must ask another server.
        server
            .rooms
            .leave(&room, &user(BOB), None)
            .await
            .expect("left");
        let levels = json!({"invite": 100, "users": {}});
        let levels = state(&room, ALICE, "m.room.power_levels", "", levels);
        server.rooms.send_state(levels).await.expect("Alice may");
        server
            .rooms
            .leave(&room, &user(ALICE), None)
            .await
            .expect("left");
        assert!(matches!(
            server.rooms.join(enter(&room, BOB)).await,
            Err(JoinError::UnableToGrant)
        ));
        server.check_chain(&room);
    }
}

#[tokio::test]
async fn only_what_was_left_is_forgotten() {
    let server = Server::new().await;
    let room = server.public_room().await;
    server.join(&room, BOB).await;
    assert!(matches!(
        server.rooms.forget(&room, &user(BOB)).await,
        Err(ForgetError::StillInRoom)
    ));
    server
        .rooms
        .leave(&room, &user(BOB), None)
        .await
        .expect("left");
    let left = row(&server, &room, BOB);
    for _ in 0..2 {
        server
            .rooms
            .forget(&room, &user(BOB))
            .await
            .expect("forgotten");
    }
    let forgotten = row(&server, &room, BOB);
    assert!(forgotten.forgotten);
    assert_eq!(forgotten.pos, left.pos, "the membership is what it was");
    server.join(&room, BOB).await;
    assert!(!row(&server, &room, BOB).forgotten);
    assert!(matches!(
        server
            .rooms
            .forget(&owned_room_id!("!nowhere:here.org"), &user(BOB))
            .await,
        Err(ForgetError::RoomNotFound)
    ));
}

#[tokio::test]
async fn memberships_may_be_sent_as_state() {
    let server = Server::new().await;
    let room = private_room(&server).await;
    let set = |sender: &str, target: &str, membership: &str| {
        let content = json!({"membership": membership});
        server
            .rooms
            .send_state(state(&room, sender, "m.room.member", target, content))
    };
    set(ALICE, BOB, "invite").await.expect("invited");
    assert!(stripped(&server, &room, BOB).is_some());
    set(BOB, BOB, "join").await.expect("joined");
    set(ALICE, BOB, "ban").await.expect("banned");
    set(ALICE, BOB, "leave").await.expect("unbanned");
    assert_eq!(server.membership(&room, BOB), "leave");
    assert!(matches!(
        set(ALICE, "@x:away.org", "invite").await,
        Err(SendError::RemoteTarget(_))
    ));
    for (target, membership) in [("not a user", "invite"), (BOB, "guest")] {
        assert!(matches!(
            set(ALICE, target, membership).await,
            Err(SendError::BadContent(_))
        ));
    }
    server.check_chain(&room);
}

#[tokio::test]
async fn deactivation_leaves_everything() {
    let server = Server::new().await;
    let joined = server.public_room().await;
    let invited = private_room(&server).await;
    let left = server.public_room().await;
    server.join(&joined, BOB).await;
    server
        .rooms
        .invite(invite(&invited, ALICE, BOB))
        .await
        .expect("invited");
    server.join(&left, BOB).await;
    server
        .rooms
        .leave(&left, &user(BOB), None)
        .await
        .expect("left");
    server
        .rooms
        .leave_all(&user(BOB))
        .await
        .expect("left everything");
    for room in [&joined, &invited, &left] {
        assert_eq!(server.membership(room, BOB), "leave");
        server.check_chain(room);
    }
    server
        .rooms
        .leave_all(&user(BOB))
        .await
        .expect("nothing to do");
    server
        .rooms
        .leave_all(&user(CHARLIE))
        .await
        .expect("nothing to do");
}
