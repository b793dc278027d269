//! Making rooms.

use myelin_data::rooms::{Membership, UserRooms};
use myelin_rooms::{
    CanonicalAliasError, CreateRoom, CreateRoomError, Preset, StateDraft, Visibility,
};
use myelin_rules::RoomVersion;
use ruma::room_alias_id;
use serde_json::json;

use crate::support::{ALICE, BOB, CHARLIE, Server, invitee, object, profile, user};

fn request() -> CreateRoom {
    CreateRoom::new(user(ALICE), profile("Alice"))
}

#[tokio::test]
async fn every_version_and_preset_makes_a_room_that_works() {
    let server = Server::new().await;
    for version in RoomVersion::ALL {
        for (preset, join_rule) in [
            (Preset::PublicChat, "public"),
            (Preset::PrivateChat, "invite"),
            (Preset::TrustedPrivateChat, "invite"),
        ] {
            let mut request = request();
            request.preset = Some(preset);
            request.room_version = Some(version.to_string());
            request.invite = vec![invitee(BOB)];
            let batches = server.settled().await.batches;
            let room = server
                .rooms
                .create_room(request)
                .await
                .expect("the room is made");
            assert!(
                server.settled().await.batches <= batches + 5,
                "one batch for the room, few for new numbers"
            );
            let events = server.timeline(&room);
            assert!(
                events
                    .iter()
                    .all(|(_, entry, _)| entry.pos == events[0].1.pos)
            );
            let content = server.content(&room, "m.room.join_rules", "");
            assert_eq!(content["join_rule"], join_rule);
            let create = server.content(&room, "m.room.create", "");
            assert_eq!(create["room_version"], version.as_str());
            let equal = preset == Preset::TrustedPrivateChat;
            let levels = server.content(&room, "m.room.power_levels", "");
            if version.rules().privileged_creators {
                assert_eq!(levels["users"], json!({}));
                assert_eq!(levels["events"]["m.room.tombstone"], 150);
                assert_eq!(
                    create.get("additional_creators"),
                    equal.then(|| json!([BOB])).as_ref()
                );
            } else {
                assert_eq!(levels["users"][ALICE], 100);
                assert_eq!(levels["users"].get(BOB), equal.then(|| json!(100)).as_ref());
            }
            server.join(&room, BOB).await;
            server.say(&room, BOB, "hello").await;
            server.check_chain(&room);
            let head = server.head(&room);
            assert_eq!((head.joined, head.invited), (2, 0));
        }
    }
}

#[tokio::test]
async fn events_come_in_the_order_of_the_specification() {
    let server = Server::new().await;
    let mut request = request();
    request.visibility = Visibility::Public;
    request.room_version = Some("11".to_owned());
    request.room_alias_name = Some("pub".to_owned());
    request.name = Some("The Grand Duke".to_owned());
    request.topic = Some("happy hour".to_owned());
    request.is_direct = true;
    request.invite = vec![invitee(BOB), invitee(CHARLIE), invitee(BOB)];
    request.creation_content = object(json!({"room_version": "nonsense", "extra": 1}));
    request.initial_state = vec![
        StateDraft {
            event_type: "m.room.guest_access".to_owned(),
            state_key: String::new(),
            content: object(json!({"guest_access": "can_join"})),
        },
        StateDraft {
            event_type: "m.room.topic".to_owned(),
            state_key: String::new(),
            content: object(json!({"topic": "overwritten"})),
        },
        StateDraft {
            event_type: "m.room.encryption".to_owned(),
            state_key: String::new(),
            content: object(json!({"algorithm": "m.megolm.v1.aes-sha2"})),
        },
    ];
    let room = server
        .rooms
        .create_room(request)
        .await
        .expect("the room is made");
    assert_eq!(
        server.types(&room),
        [
            "m.room.create",
            "m.room.member",
            "m.room.power_levels",
            "m.room.canonical_alias",
            "m.room.join_rules",
            "m.room.history_visibility",
            "m.room.guest_access",
            "m.room.encryption",
            "m.room.name",
            "m.room.topic",
            "m.room.member",
            "m.room.member",
        ]
    );
    let create = server.content(&room, "m.room.create", "");
    assert_eq!(create, json!({"room_version": "11", "extra": 1}));
    let topic = server.content(&room, "m.room.topic", "");
    assert_eq!(topic["topic"], "happy hour");
    assert_eq!(topic["m.topic"]["m.text"][0]["body"], "happy hour");
    let invitation = server.content(&room, "m.room.member", BOB);
    assert_eq!(invitation["is_direct"], true);
    let view = server.view();
    let handle = server.handle(&room);
    assert_eq!(
        server.rooms.visibility(&view, handle.num).expect("read"),
        Visibility::Public
    );
    let alias = server
        .rooms
        .resolve_alias(&view, room_alias_id!("#pub:here.org"))
        .expect("read");
    assert_eq!(alias.map(|handle| handle.num), Some(handle.num));
    let alice = server.rooms.interner().find_user(&view, &user(ALICE));
    let row = view
        .get::<UserRooms>(&(alice.expect("read").expect("known"), handle.num))
        .expect("read")
        .expect("Alice has a row");
    assert_eq!(row.membership, Membership::Join);
    assert_eq!(row.pos, server.timeline(&room)[1].1.pos);
}

#[tokio::test]
async fn what_cannot_be_is_refused_and_leaves_nothing() {
    let server = Server::new().await;
    let mut unsupported = request();
    unsupported.room_version = Some("13".to_owned());
    assert!(matches!(
        server.rooms.create_room(unsupported).await,
        Err(CreateRoomError::UnsupportedVersion(version)) if version == "13"
    ));

    let mut named = request();
    named.room_alias_name = Some("once".to_owned());
    server
        .rooms
        .create_room(named.clone())
        .await
        .expect("the alias is free");
    assert!(matches!(
        server.rooms.create_room(named.clone()).await,
        Err(CreateRoomError::AliasTaken)
    ));
    named.room_alias_name = Some("no:colon".to_owned());
    assert!(matches!(
        server.rooms.create_room(named).await,
        Err(CreateRoomError::InvalidAlias(_))
    ));

    let mut powerless = request();
    powerless.room_version = Some("10".to_owned());
    powerless.name = Some("cannot be set".to_owned());
    powerless.power_level_content_override = object(json!({"users": {ALICE: 10}}));
    assert!(matches!(
        server.rooms.create_room(powerless).await,
        Err(CreateRoomError::InvalidState(_))
    ));

    let view = server.view();
    let rooms = server.rooms.joined_rooms(&view, &user(ALICE));
    assert_eq!(rooms.expect("read").len(), 1);
}

#[tokio::test]
async fn initial_state_that_cannot_be_sent_is_refused() {
    let server = Server::new().await;
    let with = |event_type: &str, state_key: &str, content| {
        let mut request = request();
        request.initial_state = vec![StateDraft {
            event_type: event_type.to_owned(),
            state_key: state_key.to_owned(),
            content: object(content),
        }];
        server.rooms.create_room(request)
    };
    let (longest, longer) = ("a".repeat(255), "a".repeat(256));
    for (event_type, state_key) in [(longer.as_str(), ""), ("org.example", longer.as_str())] {
        assert!(matches!(
            with(event_type, state_key, json!({})).await,
            Err(CreateRoomError::TooLarge(_))
        ));
    }
    let membership = json!({"membership": "invite"});
    assert!(matches!(
        with("m.room.member", "@far:away.org", membership).await,
        Err(CreateRoomError::RemoteInvitee(user)) if user == "@far:away.org"
    ));
    let view = server.view();
    let rooms = server.rooms.joined_rooms(&view, &user(ALICE));
    assert!(rooms.expect("read").is_empty());

    let room = with(&longest, &longest, json!({"just": "fits"})).await;
    let room = room.expect("the room is made");
    assert_eq!(server.content(&room, &longest, &longest)["just"], "fits");
}

#[tokio::test]
async fn an_initial_canonical_alias_must_point_to_the_room() {
    let server = Server::new().await;
    let other = server.public_room().await;
    let taken = room_alias_id!("#taken:here.org");
    server
        .rooms
        .create_alias(taken, &other, &user(ALICE))
        .await
        .expect("made");
    let with = |name: Option<&str>, state_key: &str, content| {
        let mut request = request();
        request.room_alias_name = name.map(str::to_owned);
        request.initial_state = vec![StateDraft {
            event_type: "m.room.canonical_alias".to_owned(),
            state_key: state_key.to_owned(),
            content: object(content),
        }];
        server.rooms.create_room(request)
    };
    for (content, expected) in [
        (
            json!({"alias": taken}),
            CanonicalAliasError::BadAlias(taken.to_owned()),
        ),
        (
            json!({"alias": "#mine:here.org", "alt_aliases": [taken]}),
            CanonicalAliasError::BadAlias(taken.to_owned()),
        ),
        (
            json!({"alias": "mine"}),
            CanonicalAliasError::InvalidAlias("mine".to_owned()),
        ),
        (
            json!({"alt_aliases": "#mine:here.org"}),
            CanonicalAliasError::BadContent("`alt_aliases` must be a list"),
        ),
    ] {
        match with(Some("mine"), "", content).await {
            Err(CreateRoomError::CanonicalAlias(error)) => assert_eq!(error, expected),
            other => panic!("{other:?} in the place of {expected}"),
        }
    }
    let nowhere = with(None, "", json!({"alias": "#mine:here.org"})).await;
    assert!(matches!(nowhere, Err(CreateRoomError::CanonicalAlias(_))));

    let content = json!({"alias": "#mine:here.org", "alt_aliases": ["#mine:here.org"]});
    let room = with(Some("mine"), "", content.clone()).await;
    let room = room.expect("the room is made, and nothing of those that were refused is left");
    assert_eq!(server.content(&room, "m.room.canonical_alias", ""), content);
    let elsewhere = with(None, "a key", json!({"alias": taken})).await;
    elsewhere.expect("under another key it says nothing about the room");
}

#[tokio::test]
async fn one_alias_is_given_to_one_of_many_rooms() {
    let server = Server::new().await;
    let mut made = Vec::new();
    for _ in 0..8 {
        let rooms = server.rooms.clone();
        let mut request = request();
        request.room_alias_name = Some("wanted".to_owned());
        made.push(tokio::spawn(
            async move { rooms.create_room(request).await },
        ));
    }
    let mut won = 0;
    for made in made {
        match made.await.expect("no panic") {
            Ok(_) => won += 1,
            Err(CreateRoomError::AliasTaken) => {}
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(won, 1);
}

#[tokio::test]
async fn rooms_of_version_12_made_at_the_same_time_differ() {
    let server = Server::new().await;
    let mut ids = std::collections::HashSet::new();
    for _ in 0..20 {
        let room = server.room(Preset::PrivateChat, RoomVersion::V12).await;
        assert!(ids.insert(room));
    }
}

#[tokio::test]
async fn levels_may_be_overridden() {
    let server = Server::new().await;
    let mut request = request();
    request.room_version = Some("10".to_owned());
    request.power_level_content_override =
        object(json!({"users_default": 100, "users": {ALICE: 100}, "events": {}}));
    let room = server
        .rooms
        .create_room(request)
        .await
        .expect("the room is made");
    let levels = server.content(&room, "m.room.power_levels", "");
    assert_eq!(levels["users_default"], 100);
    assert_eq!(levels["events"], json!({}));
    assert_eq!(levels["ban"], 50);
}

#[tokio::test]
async fn an_open_room_does_not_say_what_holds_anyway() {
    let server = Server::new().await;
    for (preset, said) in [(Preset::PublicChat, false), (Preset::PrivateChat, true)] {
        let room = server.room(preset, RoomVersion::V11).await;
        let types = server.types(&room);
        assert_eq!(types.contains(&"m.room.guest_access".to_owned()), said);
        assert!(types.contains(&"m.room.history_visibility".to_owned()));
    }
}
