//! The form of events: what is read, what is refused, what clients get.

use myelin_rules::{
    BuildError, ParseError, Pdu, RoomVersion,
    auth::{self, AuthError},
    canonical::CanonicalError,
};
use serde_json::{Value, json};

use crate::support::{CREATOR, Room, USER, object, signer};

/// A well-formed event of the version, with a change.
fn read(version: RoomVersion, change: impl FnOnce(&mut Value)) -> Result<Pdu, ParseError> {
    let references = if version <= RoomVersion::V2 {
        json!([["$a:a.org", { "sha256": "aGFzaA" }]])
    } else {
        json!(["$a"])
    };
    let mut event = json!({
        "room_id": "!r:a.org", "sender": USER, "type": "m.x", "content": {}, "depth": 5,
        "origin_server_ts": 7, "hashes": { "sha256": "aGFzaA" }, "signatures": {},
        "prev_events": references, "auth_events": references,
    });
    if version <= RoomVersion::V2 {
        event["event_id"] = json!("$e:a.org");
    }
    change(&mut event);
    Pdu::parse(version, event.to_string().as_bytes())
}

#[test]
fn well_formed_events_are_read() {
    for version in RoomVersion::ALL {
        let event = read(version, |event| {
            event["unsigned"] = json!({ "age": 1 });
            event["state_key"] = json!("k");
        })
        .expect("it is well formed");
        assert_eq!(event.version(), version);
        assert_eq!(event.room_id(), "!r:a.org");
        assert_eq!(event.sender(), USER);
        assert_eq!(event.event_type(), "m.x");
        assert_eq!(event.state_key(), Some("k"));
        assert_eq!(event.depth(), 5);
        assert_eq!(event.origin_server_ts().0, 7);
        let id = if version <= RoomVersion::V2 {
            "$a:a.org"
        } else {
            "$a"
        };
        assert!(event.prev_events().eq([id]));
        assert!(event.auth_events().eq([id]));
        assert!(!event.json().contains("unsigned"));

        let stored = Pdu::from_stored(version, event.event_id(), event.json()).expect("just read");
        assert_eq!(stored.json(), event.json());
        assert_eq!(stored.room_id(), event.room_id());
    }
}

#[test]
fn long_names_are_counted_in_code_points_until_version_11() {
    let of = |length: usize| "\u{1f4a5}".repeat(length);
    for version in RoomVersion::ALL {
        for key in ["type", "state_key"] {
            let named = |length| read(version, |event| event[key] = json!(of(length)));
            assert_eq!(named(63).map(drop), Ok(()), "252 bytes");
            let long = named(70);
            assert_eq!(long.is_ok(), version < RoomVersion::V11, "{version}");
            if let Ok(long) = long {
                // It is there for what builds on it, and allowed nowhere.
                let state = auth::AuthEvents::default();
                assert_eq!(auth::check(&long, &state), Err(AuthError::TooLong));
            }
            assert_eq!(named(256).map(drop), Err(ParseError::TooLong(key)));
        }
    }
}

#[test]
fn malformed_events_are_refused() {
    use ParseError::{Malformed, Missing, TooLong, TooMany};

    let long = "x".repeat(256);
    for (name, value, expected) in [
        ("room_id", Value::Null, Malformed("room_id")),
        ("room_id", json!("r:a.org"), Malformed("room_id")),
        ("room_id", json!(format!("!{long}")), TooLong("room_id")),
        ("sender", json!("user"), Malformed("sender")),
        ("sender", json!("@user"), Malformed("sender")),
        ("sender", json!(["@user:a.org"]), Malformed("sender")),
        ("sender", json!(format!("@{long}:a.org")), TooLong("sender")),
        ("type", json!(long), TooLong("type")),
        ("type", json!(1), Malformed("type")),
        ("state_key", json!(long), TooLong("state_key")),
        ("state_key", json!(null), Malformed("state_key")),
        ("content", json!([]), Malformed("content")),
        ("content", json!("{}"), Malformed("content")),
        ("depth", json!(-1), Malformed("depth")),
        ("depth", json!("1"), Malformed("depth")),
        (
            "origin_server_ts",
            json!("1"),
            Malformed("origin_server_ts"),
        ),
        ("hashes", json!({}), Malformed("hashes")),
        ("hashes", json!({ "sha256": 1 }), Malformed("hashes")),
        ("signatures", json!([]), Malformed("signatures")),
        (
            "signatures",
            json!({ "a.org": "x" }),
            Malformed("signatures"),
        ),
        ("prev_events", json!({}), Malformed("prev_events")),
        ("prev_events", json!(["a"]), Malformed("prev_events")),
        ("prev_events", json!([["$a", {}]]), Malformed("prev_events")),
        ("prev_events", json!(vec!["$a"; 21]), TooMany("prev_events")),
        ("auth_events", json!(vec!["$a"; 11]), TooMany("auth_events")),
        ("auth_events", json!([1]), Malformed("auth_events")),
    ] {
        let event = read(RoomVersion::V11, |event| event[name] = value.clone());
        assert_eq!(event.err(), Some(expected), "{name}: {value}");
    }
    for name in [
        "room_id",
        "sender",
        "type",
        "content",
        "depth",
        "origin_server_ts",
        "hashes",
        "signatures",
        "prev_events",
        "auth_events",
    ] {
        let event = read(RoomVersion::V11, |event| {
            event.as_object_mut().expect("an object").remove(name);
        });
        assert_eq!(event.err(), Some(Missing(name)));
    }
    let without_id = read(RoomVersion::V1, |event| {
        event.as_object_mut().expect("an object").remove("event_id");
    });
    assert_eq!(without_id.err(), Some(Missing("event_id")));
    let unpaired = read(RoomVersion::V1, |event| {
        event["prev_events"] = json!(["$a:a.org"]);
    });
    assert_eq!(unpaired.err(), Some(Malformed("prev_events")));
}

#[test]
fn limits_are_inclusive() {
    let largest = read(RoomVersion::V11, |event| {
        event["prev_events"] = json!(vec!["$a"; 20]);
        event["auth_events"] = json!(vec!["$a"; 10]);
        event["type"] = json!("ä".repeat(127));
        event["depth"] = json!((1_i64 << 53) - 1);
    });
    assert!(largest.is_ok());
    let with_size = |bytes: usize| {
        read(RoomVersion::V11, |event| {
            let rest = event.to_string().len() + r#""body":"""#.len();
            event["content"] = json!({ "body": "x".repeat(bytes - rest) });
        })
    };
    assert_eq!(
        with_size(65_536).expect("just small enough").json().len(),
        65_536
    );
    assert_eq!(with_size(65_537).err(), Some(ParseError::TooLarge));
    let padded = read(RoomVersion::V11, |event| {
        event["unsigned"] = json!("x".repeat(70_000));
    });
    assert!(padded.is_ok(), "what is not kept does not count");
}

#[test]
fn numbers_and_depths_by_version() {
    let float = |version| read(version, |event| event["content"] = json!({ "a": 1.5 }));
    let deep = |version| read(version, |event| event["depth"] = json!(1_i64 << 53));
    for version in RoomVersion::ALL {
        let strict = version >= RoomVersion::V6;
        assert_eq!(float(version).is_err(), strict, "{version}");
        assert_eq!(deep(version).is_err(), strict, "{version}");
    }
    let error = ParseError::Json(CanonicalError::Float);
    assert_eq!(float(RoomVersion::V6).err(), Some(error));
}

#[test]
fn the_create_event_of_v12_makes_the_room_id() {
    let room = Room::created(RoomVersion::V12);
    let create = room
        .state
        .iter()
        .find(|event| event.event_type() == "m.room.create");
    let create = create.expect("it was just created");
    assert_eq!(create.room_id()[1..], create.event_id()[1..]);
    assert!(!create.json().contains("room_id"));
    let mut json: Value = serde_json::from_str(create.json()).expect("events are JSON");
    json["room_id"] = json!(create.room_id());
    let with_room_id = Pdu::from_object(RoomVersion::V12, object(json));
    assert_eq!(with_room_id.err(), Some(ParseError::Malformed("room_id")));
}

#[test]
fn building_keeps_to_the_limits() {
    let build = |change: &dyn Fn(&mut myelin_rules::EventBuilder)| {
        let mut builder = myelin_rules::EventBuilder {
            room_id: Some("!r:a.org".to_owned()),
            sender: USER.to_owned(),
            event_type: "m.x".to_owned(),
            state_key: None,
            content: object(json!({})),
            redacts: None,
            prev_events: vec![],
            auth_events: vec![],
            depth: 1,
            origin_server_ts: myelin_types::Millis(1),
        };
        change(&mut builder);
        builder.sign(RoomVersion::V11, &signer("a.org"))
    };
    assert!(build(&|_| {}).is_ok());
    let refused = |change: &dyn Fn(&mut myelin_rules::EventBuilder)| build(change).err();
    assert_eq!(
        refused(&|event| event.event_type = "x".repeat(256)),
        Some(BuildError::Format(ParseError::TooLong("type")))
    );
    assert_eq!(
        refused(&|event| event.content = object(json!({ "a": "x".repeat(66_000) }))),
        Some(BuildError::Format(ParseError::TooLarge))
    );
    assert_eq!(
        refused(&|event| event.content = object(json!({ "a": 1.5 }))),
        Some(BuildError::Format(ParseError::Json(CanonicalError::Float)))
    );
    assert_eq!(
        refused(&|event| event.content = object(json!({ "a": 1_i64 << 53 }))),
        Some(BuildError::Format(ParseError::Json(
            CanonicalError::OutOfRange
        )))
    );
    assert_eq!(
        refused(&|event| event.room_id = None),
        Some(BuildError::Format(ParseError::Missing("room_id")))
    );
    let deepest = build(&|event| event.depth = i64::MAX).expect("the depth is set to the limit");
    assert_eq!(deepest.depth(), (1 << 53) - 1);
}

#[test]
fn clients_get_redactions_in_both_places() {
    for version in RoomVersion::ALL {
        let mut room = Room::peopled(version);
        let target = room
            .last
            .as_ref()
            .expect("a peopled room has events")
            .event_id()
            .to_owned();
        let redaction = room.build(
            USER,
            "m.room.redaction",
            None,
            json!({ "reason": "r" }),
            |event| {
                event.redacts = Some(target.clone());
            },
        );
        assert_eq!(redaction.redacts(), Some(&*target));
        let raw: Value = serde_json::from_str(redaction.json()).expect("events are JSON");
        assert_eq!(raw["redacts"].is_string(), version < RoomVersion::V11);
        let client: Value =
            serde_json::from_str(&redaction.client_json(true, Some(r#"{"age":4}"#)))
                .expect("client events are JSON");
        assert_eq!(
            client,
            json!({
                "content": { "reason": "r", "redacts": target }, "event_id": redaction.event_id(),
                "origin_server_ts": redaction.origin_server_ts().0, "redacts": target,
                "room_id": redaction.room_id(), "sender": USER, "type": "m.room.redaction",
                "unsigned": { "age": 4 },
            })
        );
    }
}

#[test]
fn clients_do_not_get_what_servers_need() {
    let mut room = Room::created(RoomVersion::V12);
    let event = room.event(CREATOR, "m.room.topic", Some(""), json!({ "topic": "t" }));
    let client: Value =
        serde_json::from_str(&event.client_json(false, None)).expect("client events are JSON");
    assert_eq!(
        client,
        json!({
            "content": { "topic": "t" }, "event_id": event.event_id(), "state_key": "", "sender": CREATOR,
            "origin_server_ts": event.origin_server_ts().0, "type": "m.room.topic",
        })
    );
}
