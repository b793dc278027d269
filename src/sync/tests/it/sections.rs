//! What stands in which section of a response.

use myelin_data::rooms::ReceiptKind;
use myelin_rooms::{Preset, Thread};
use myelin_types::RoomNum;
use serde_json::{Value, json};

use crate::support::{ALICE, BOB, CHARLIE, Server, brief, of};

fn limit(limit: u64) -> Value {
    json!({"room": {"timeline": {"limit": limit}}})
}

#[tokio::test]
async fn a_room_comes_whole_then_in_steps() {
    let server = Server::new().await;
    let mut alice = server.client(ALICE).await;
    let room = server.room().await;
    let first = alice.sync().await;
    let joined = of(&first, "join", &room);
    let events = brief(&joined["timeline"]["events"]);
    assert_eq!(events[..2], ["m.room.create", "join @alice"]);
    assert_eq!(joined["timeline"]["limited"], false);
    assert_eq!(joined["state"]["events"], json!([]));
    assert_eq!(
        joined["summary"],
        json!({"m.heroes": [], "m.joined_member_count": 1, "m.invited_member_count": 0})
    );
    assert_eq!(
        joined["unread_notifications"],
        json!({"highlight_count": 0, "notification_count": 0})
    );
    assert!(first["account_data"]["events"][0]["content"]["global"].is_object());

    let nothing = alice.sync().await;
    assert_eq!(nothing["rooms"], json!({}));
    assert_eq!(nothing["account_data"]["events"], json!([]));

    server.say(&room, ALICE, "one").await;
    let second = alice.sync().await;
    let joined = of(&second, "join", &room);
    assert_eq!(brief(&joined["timeline"]["events"]), ["one"]);
    let event = &joined["timeline"]["events"][0];
    assert_eq!(event["unsigned"]["membership"], "join");
    assert_eq!(event["room_id"], Value::Null);
    assert_eq!(joined["summary"], Value::Null);
}

#[tokio::test]
async fn a_gap_is_bridged_by_state() {
    let server = Server::new().await;
    let room = server.room().await;
    let mut alice = server.client(ALICE).await.filter(limit(2));
    alice.sync().await;
    server
        .set(&room, ALICE, "m.room.topic", "", json!({"topic": "old"}))
        .await;
    server
        .set(&room, ALICE, "m.room.name", "", json!({"name": "n"}))
        .await;
    server.join(&room, BOB).await;
    server.say(&room, BOB, "hello").await;
    server
        .set(&room, ALICE, "m.room.topic", "", json!({"topic": "new"}))
        .await;

    for (state_after, key, expected) in [
        (false, "state", ["old", "n", "join"]),
        (true, "state_after", ["new", "n", "join"]),
    ] {
        let mut client = server.client(ALICE).await.filter(limit(2));
        client.since = alice.since;
        client.state_after = state_after;
        let response = client.sync().await;
        let joined = of(&response, "join", &room);
        assert_eq!(
            brief(&joined["timeline"]["events"]),
            ["hello", "m.room.topic"]
        );
        assert_eq!(joined["timeline"]["limited"], true);
        let state = joined[key]["events"].as_array().expect("there is state");
        let mut told: Vec<&str> = state
            .iter()
            .filter_map(|event| {
                let content = &event["content"];
                content["topic"]
                    .as_str()
                    .or(content["name"].as_str())
                    .or(content["membership"].as_str())
            })
            .collect();
        told.sort_unstable();
        let mut expected = expected.to_vec();
        expected.sort_unstable();
        assert_eq!(told, expected, "{key}");
        assert_eq!(joined["summary"]["m.joined_member_count"], 2);
        assert_eq!(
            joined["summary"]["m.heroes"],
            Value::Null,
            "the room has a name"
        );
        assert!(joined["timeline"]["prev_batch"].is_string());
    }
}

#[tokio::test]
async fn rooms_joined_since_are_told_from_their_beginning() {
    let server = Server::new().await;
    let room = server.room().await;
    server.say(&room, ALICE, "before").await;
    let mut bob = server.client(BOB).await;
    bob.sync().await;
    server.join(&room, BOB).await;
    let response = bob.sync().await;
    let joined = of(&response, "join", &room);
    let events = brief(&joined["timeline"]["events"]);
    assert_eq!(events[events.len() - 2..], ["before", "join @bob"]);
    assert_eq!(joined["timeline"]["limited"], true);
    assert_eq!(joined["summary"]["m.heroes"], json!([ALICE]));
    let memberships: Vec<&Value> = joined["timeline"]["events"]
        .as_array()
        .expect("events")
        .iter()
        .map(|event| &event["unsigned"]["membership"])
        .collect();
    assert_eq!(memberships[memberships.len() - 2..], ["leave", "join"]);
}

#[tokio::test]
async fn invitations_are_told_once_and_their_refusal_too() {
    let server = Server::new().await;
    let hidden = [(
        "m.room.history_visibility",
        json!({"history_visibility": "joined"}),
    )];
    let room = server.room_with(Preset::PrivateChat, &hidden).await;
    let mut bob = server.client(BOB).await;
    bob.sync().await;
    server.invite(&room, ALICE, BOB).await;
    let response = bob.sync().await;
    let state = brief(&of(&response, "invite", &room)["invite_state"]["events"]);
    assert!(state.contains(&"invite @bob".to_owned()), "{state:?}");
    assert!(state.contains(&"m.room.join_rules".to_owned()), "{state:?}");
    assert_eq!(bob.sync().await["rooms"], json!({}));

    server.leave(&room, BOB).await;
    let response = bob.sync().await;
    let left = of(&response, "leave", &room);
    assert_eq!(brief(&left["timeline"]["events"]), ["leave @bob"]);
    assert_eq!(left["state"]["events"], json!([]), "he was never in");
    assert_eq!(bob.sync().await["rooms"], json!({}));
}

#[tokio::test]
async fn what_was_redacted_is_not_shown_to_those_outside() {
    let server = Server::new().await;
    let open = [("m.room.join_rules", json!({"join_rule": "knock"}))];
    let room = server.room_with(Preset::PrivateChat, &open).await;
    let name = json!({"name": "slander"});
    let name = server.set(&room, ALICE, "m.room.name", "", name).await;
    let invitation = json!({"membership": "invite", "reason": "an insult"});
    let invitation = server
        .set(&room, ALICE, "m.room.member", BOB, invitation)
        .await;
    let knock = myelin_rooms::Enter {
        reason: Some("a threat".to_owned()),
        ..Server::enter(&room, CHARLIE)
    };
    let knock = server.rooms.knock(knock).await.expect("he may knock");

    let mut told = Vec::new();
    for redacted in [false, true] {
        if redacted {
            for event in [&name, &invitation, knock.as_str()] {
                server.redact(&room, ALICE, event).await;
            }
        }
        for (who, section, state) in [
            (BOB, "invite", "invite_state"),
            (CHARLIE, "knock", "knock_state"),
        ] {
            let response = server.client(who).await.sync().await;
            let events = &of(&response, section, &room)[state]["events"];
            let events = events.as_array().expect("the room is shown");
            assert_eq!(events[0]["type"], "m.room.create");
            let content = |kind: &str| {
                let event = events.iter().find(|event| event["type"] == kind);
                event.expect("it is shown")["content"].clone()
            };
            told.push(content("m.room.name"));
            told.push(content("m.room.member"));
        }
    }
    let name = json!({"name": "slander"});
    let knock = json!({"membership": "knock", "reason": "a threat", "displayname": CHARLIE});
    let expected = [
        name.clone(),
        json!({"membership": "invite", "reason": "an insult"}),
        name,
        knock,
        json!({}),
        json!({"membership": "invite"}),
        json!({}),
        json!({"membership": "knock"}),
    ];
    assert_eq!(told, expected);
}

#[tokio::test]
async fn each_of_many_invitations_shows_its_own_room() {
    let server = Server::new().await;
    let mut rooms = Vec::new();
    for number in 0..20 {
        let name = [("m.room.name", json!({"name": number.to_string()}))];
        let room = server.room_with(Preset::PrivateChat, &name).await;
        server.invite(&room, ALICE, BOB).await;
        rooms.push(room);
    }
    let mut bob = server.client(BOB).await;
    // An invitation that he took up is among them.
    server.join(&rooms[7], BOB).await;
    let response = bob.sync().await;
    for (number, room) in rooms.iter().enumerate().filter(|(number, _)| *number != 7) {
        let events = &of(&response, "invite", room)["invite_state"]["events"];
        let mut events = events.as_array().expect("the room is shown").iter();
        let name = events.find(|event| event["type"] == "m.room.name");
        assert_eq!(
            name.expect("the name")["content"]["name"],
            number.to_string()
        );
    }
    assert!(of(&response, "invite", &rooms[7]).is_null());
}

#[tokio::test]
async fn invitations_of_ignored_users_and_their_messages_are_not_told() {
    let server = Server::new().await;
    let room = server.room().await;
    server.join(&room, BOB).await;
    let private = server.room_with(Preset::PrivateChat, &[]).await;
    let mut bob = server.client(BOB).await;
    let ignore = json!({"ignored_users": {ALICE: {}}});
    server
        .account_data(&bob, RoomNum::NONE, "m.ignored_user_list", ignore)
        .await;
    bob.sync().await;
    server.invite(&private, ALICE, BOB).await;
    server.say(&room, ALICE, "noise").await;
    server
        .set(&room, ALICE, "m.room.topic", "", json!({"topic": "kept"}))
        .await;
    let response = bob.sync().await;
    assert_eq!(of(&response, "invite", &private), &Value::Null);
    let joined = of(&response, "join", &room);
    assert_eq!(brief(&joined["timeline"]["events"]), ["m.room.topic"]);

    let nobody = json!({"ignored_users": {}});
    server
        .account_data(&bob, RoomNum::NONE, "m.ignored_user_list", nobody)
        .await;
    server.say(&room, ALICE, "heard").await;
    let response = bob.sync().await;
    assert_eq!(
        brief(&of(&response, "join", &room)["timeline"]["events"]),
        ["heard"]
    );
}

#[tokio::test]
async fn left_rooms_show_the_stay_and_nothing_later() {
    let server = Server::new().await;
    let room = server.room().await;
    server.join(&room, BOB).await;
    let mut bob = server.client(BOB).await;
    bob.sync().await;
    let kind = "a.madeup.test.state";
    server.say(&room, ALICE, "before").await;
    server
        .set(&room, ALICE, kind, "", json!({"my_key": "before"}))
        .await;
    server.leave(&room, BOB).await;
    server.say(&room, ALICE, "after").await;
    server
        .set(&room, ALICE, kind, "", json!({"my_key": "after"}))
        .await;

    let since = bob.since;
    let types = json!({"room": {
        "timeline": {"types": ["m.room.message", kind]}, "state": {"types": [kind]}, "include_leave": true,
    }});
    for since in [None, since] {
        let mut client = server.client(BOB).await.filter(types.clone());
        client.since = since;
        let response = client.sync().await;
        let left = of(&response, "leave", &room);
        assert_eq!(brief(&left["timeline"]["events"]), ["before", kind]);
        assert_eq!(left["timeline"]["events"][1]["content"]["my_key"], "before");
        assert_eq!(left["state"]["events"], json!([]));
    }

    let empty = json!({"room": {"timeline": {"limit": 0}, "include_leave": true}});
    let mut client = server.client(BOB).await.filter(empty);
    let response = client.sync().await;
    let left = of(&response, "leave", &room);
    assert_eq!(left["timeline"]["events"], json!([]));
    let state = left["state"]["events"].as_array().expect("there is state");
    let of_type = |wanted: &str| {
        state
            .iter()
            .filter(|event| event["type"] == wanted)
            .collect::<Vec<_>>()
    };
    assert_eq!(of_type(kind)[0]["content"]["my_key"], "before");
    assert!(
        of_type("m.room.member")
            .iter()
            .any(|event| event["content"]["membership"] == "leave")
    );

    let response = bob.sync().await;
    let left = of(&response, "leave", &room);
    assert_eq!(
        brief(&left["timeline"]["events"]),
        ["before", kind, "leave @bob"]
    );
    assert_eq!(left["state"]["events"], json!([]));
    assert_eq!(bob.sync().await["rooms"], json!({}));

    let ban = Server::moderate(&room, ALICE, BOB);
    server.rooms.ban(ban).await.expect("Alice may ban");
    let response = bob.sync().await;
    assert_eq!(
        brief(&of(&response, "leave", &room)["timeline"]["events"]),
        ["ban @bob"]
    );

    let mut fresh = server.client(BOB).await;
    assert_eq!(fresh.sync().await["rooms"], json!({}), "not asked for");
}

#[tokio::test]
async fn forgotten_rooms_are_gone_but_their_leaving_is_told() {
    let server = Server::new().await;
    let room = server.room().await;
    server.join(&room, BOB).await;
    let mut bob = server
        .client(BOB)
        .await
        .filter(json!({"room": {"include_leave": true}}));
    bob.sync().await;
    server.leave(&room, BOB).await;
    server
        .rooms
        .forget(&room, &bob.viewer.user_id)
        .await
        .expect("a room that was left can be forgotten");
    let response = bob.sync().await;
    assert!(of(&response, "leave", &room).is_object());
    bob.since = None;
    assert_eq!(bob.sync().await["rooms"], json!({}));
}

#[tokio::test]
async fn leaving_and_joining_again_is_no_leaving() {
    let server = Server::new().await;
    let room = server.room().await;
    let mut bob = server.client(BOB).await;
    bob.sync().await;
    let before = bob.since;
    server.join(&room, BOB).await;
    bob.sync().await;
    server.leave(&room, BOB).await;
    bob.sync().await;
    server.join(&room, BOB).await;
    assert!(of(&bob.sync().await, "join", &room).is_object());
    bob.since = before;
    let response = bob.sync().await;
    assert!(of(&response, "join", &room).is_object());
    assert!(of(&response, "leave", &room).is_null());
}

#[tokio::test]
async fn full_state_brings_everything_without_repeating_the_timeline() {
    let server = Server::new().await;
    let room = server.room().await;
    let mut alice = server.client(ALICE).await;
    alice.sync().await;
    alice.full_state = true;
    let response = alice.sync().await;
    let joined = of(&response, "join", &room);
    assert_eq!(joined["timeline"]["events"], json!([]));
    let state = brief(&joined["state"]["events"]);
    assert!(
        state.contains(&"m.room.create".to_owned()) && state.contains(&"join @alice".to_owned())
    );
}

#[tokio::test]
async fn account_data_is_told_when_it_changes() {
    let server = Server::new().await;
    let room = server.room().await;
    let mut alice = server.client(ALICE).await;
    alice.sync().await;
    server
        .account_data(&alice, RoomNum::NONE, "a.b", json!({"x": 1}))
        .await;
    server
        .account_data(
            &alice,
            server.num(&room),
            "m.tag",
            json!({"tags": {"u.work": {}}}),
        )
        .await;
    let response = alice.sync().await;
    assert_eq!(
        response["account_data"]["events"],
        json!([{"type": "a.b", "content": {"x": 1}}])
    );
    let joined = of(&response, "join", &room);
    assert_eq!(
        joined["account_data"]["events"],
        json!([{"type": "m.tag", "content": {"tags": {"u.work": {}}}}])
    );
    assert_eq!(joined["timeline"]["events"], json!([]));
    let nothing = alice.sync().await;
    assert_eq!(nothing["rooms"], json!({}));

    alice.since = None;
    alice.filter =
        json!({"account_data": {"types": ["a.*"]}, "room": {"account_data": {"types": []}}});
    let response = alice.sync().await;
    assert_eq!(
        response["account_data"]["events"].as_array().map(Vec::len),
        Some(1)
    );
    assert_eq!(
        of(&response, "join", &room)["account_data"]["events"],
        json!([])
    );
}

#[tokio::test]
async fn receipts_and_typing_are_told() {
    let server = Server::new().await;
    let room = server.room().await;
    server.join(&room, BOB).await;
    let event = server.say(&room, ALICE, "x").await;
    let mut alice = server.client(ALICE).await;
    let mut bob = server.client(BOB).await;
    alice.sync().await;
    bob.sync().await;
    server
        .read(&room, BOB, &event, ReceiptKind::Read, Thread::Unthreaded)
        .await;
    server
        .read(&room, BOB, &event, ReceiptKind::ReadPrivate, Thread::Main)
        .await;
    let response = alice.sync().await;
    assert_eq!(
        of(&response, "join", &room)["ephemeral"]["events"],
        json!([{"type": "m.receipt", "content": {&event: {"m.read": {BOB: {"ts": 1_700_000_000_000_u64}}}}}])
    );
    let response = bob.sync().await;
    let events = of(&response, "join", &room)["ephemeral"]["events"]
        .as_array()
        .cloned();
    let private = json!({&event: {"m.read.private": {BOB: {"ts": 1_700_000_000_000_u64, "thread_id": "main"}}}});
    assert!(events.is_some_and(|events| events.iter().any(|event| event["content"] == private)));

    server
        .rooms
        .set_typing(
            &room,
            &bob.viewer.user_id,
            Some(std::time::Duration::from_secs(30)),
        )
        .await
        .expect("members may type");
    let since = alice.since;
    let response = alice.sync().await;
    let typing = json!([{"type": "m.typing", "content": {"user_ids": [BOB]}}]);
    assert_eq!(of(&response, "join", &room)["ephemeral"]["events"], typing);
    assert_eq!(alice.sync().await["rooms"], json!({}));
    server
        .rooms
        .set_typing(&room, &bob.viewer.user_id, None)
        .await
        .expect("members may stop");
    let nobody = json!([{"type": "m.typing", "content": {"user_ids": []}}]);
    for since in [since, alice.since] {
        alice.since = since;
        let response = alice.sync().await;
        assert_eq!(of(&response, "join", &room)["ephemeral"]["events"], nobody);
    }
    let mut charlie = server.client(CHARLIE).await;
    assert_eq!(charlie.sync().await["rooms"], json!({}));
}

#[tokio::test]
async fn reading_is_told_to_those_who_want_no_receipts() {
    let server = Server::new().await;
    let room = server.room().await;
    server.join(&room, BOB).await;
    for ephemeral in [
        json!({"not_rooms": [room]}),
        json!({"types": []}),
        json!({"not_types": ["m.receipt"]}),
    ] {
        let event = server.say(&room, ALICE, "x").await;
        let filter = json!({"room": {"ephemeral": ephemeral}});
        let mut bob = server.client(BOB).await.filter(filter);
        let response = bob.sync().await;
        let count = |response: &Value| {
            of(response, "join", &room)["unread_notifications"]["notification_count"].clone()
        };
        assert_eq!(count(&response), 1);
        for kind in [ReceiptKind::Read, ReceiptKind::ReadPrivate] {
            let thread = Thread::Unthreaded;
            server.read(&room, BOB, &event, kind, thread).await;
            let response = bob.sync().await;
            assert_eq!(count(&response), 0);
            let joined = of(&response, "join", &room);
            assert_eq!(joined["ephemeral"]["events"], json!([]));
        }
        let (kind, thread) = (ReceiptKind::Read, Thread::Unthreaded);
        server.read(&room, ALICE, &event, kind, thread).await;
        assert_eq!(bob.sync().await["rooms"], json!({}), "another's is nothing");
    }
}

#[tokio::test]
async fn rooms_and_events_are_filtered() {
    let server = Server::new().await;
    let room = server.room().await;
    let other = server.room().await;
    server.say(&room, ALICE, "x").await;
    let mut alice = server.client(ALICE).await.filter(json!({
        "event_fields": ["type", "content.body"],
        "room": {"not_rooms": [other], "timeline": {"types": ["m.room.mess*"]}, "state": {"types": []}},
    }));
    let response = alice.sync().await;
    assert!(of(&response, "join", &other).is_null());
    let joined = of(&response, "join", &room);
    assert_eq!(
        joined["timeline"]["events"],
        json!([{"type": "m.room.message", "content": {"body": "x"}}])
    );
    assert_eq!(joined["state"]["events"], json!([]));

    let mut alice = server
        .client(ALICE)
        .await
        .filter(json!({"event_format": "federation"}));
    let response = alice.sync().await;
    let events = of(&response, "join", &room)["timeline"]["events"].clone();
    assert!(events[1]["hashes"].is_object() && events[1]["room_id"] == room.as_str());
}

#[tokio::test]
async fn hidden_history_stays_hidden_and_state_is_whole() {
    let server = Server::new().await;
    let hidden = [(
        "m.room.history_visibility",
        json!({"history_visibility": "joined"}),
    )];
    let room = server.room_with(Preset::PublicChat, &hidden).await;
    server.say(&room, ALICE, "secret").await;
    server
        .set(&room, ALICE, "m.room.topic", "", json!({"topic": "t"}))
        .await;
    server.join(&room, BOB).await;
    server.say(&room, ALICE, "open").await;
    let mut bob = server.client(BOB).await;
    let response = bob.sync().await;
    let joined = of(&response, "join", &room);
    let events = brief(&joined["timeline"]["events"]);
    assert_eq!(events[events.len() - 2..], ["join @bob", "open"]);
    assert!(!events.contains(&"secret".to_owned()), "{events:?}");
    let state = brief(&joined["state"]["events"]);
    assert!(state.contains(&"m.room.topic".to_owned()), "{state:?}");
    assert!(!state.contains(&"join @bob".to_owned()), "{state:?}");
}
