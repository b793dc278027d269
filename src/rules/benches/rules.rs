//! What the rules cost an event: `cargo bench -p myelin-rules`.

use std::{collections::BTreeMap, hint::black_box};

use criterion::{Criterion, criterion_group, criterion_main};
use myelin_rules::{
    AuthState, EventBuilder, EventRef, Object, Pdu, PowerLevels, RoomVersion, Signer, SigningKey,
    auth::{self, AuthEvents},
    canonical::{self, Numbers},
    push::{Kind, NewRule, Placement, PushContext, PushEvent, Ruleset, evaluate},
    sign::{self, VerifyKey, VerifyKeys},
};
use myelin_types::{Millis, SeededRandom};
use serde_json::{Value, json};

const VERSION: RoomVersion = RoomVersion::V12;
const CREATOR: &str = "@creator:example.org";
const USER: &str = "@user:example.org";

fn object(value: Value) -> Object {
    match value {
        Value::Object(object) => object,
        _ => Object::new(),
    }
}

fn builder(
    state: &AuthEvents,
    event_type: &str,
    state_key: Option<&str>,
    content: Value,
) -> EventBuilder {
    let content = object(content);
    let sender = if event_type == "m.room.message" {
        USER
    } else {
        state_key.filter(|key| !key.is_empty()).unwrap_or(CREATOR)
    };
    let auth_events = auth::auth_types(VERSION, event_type, sender, state_key, &content)
        .iter()
        .filter_map(|(event_type, state_key)| state.get(event_type, state_key))
        .map(EventRef::from)
        .collect();
    EventBuilder {
        room_id: state.create().map(|create| create.room_id().to_owned()),
        sender: sender.to_owned(),
        event_type: event_type.to_owned(),
        state_key: state_key.map(str::to_owned),
        content,
        redacts: None,
        prev_events: vec![EventRef::id("$h29iv0s8_j5Q-NaT1d2M4Jt4Y7l9Hn6hhuKdnCUxKVg")],
        auth_events,
        depth: 1_000,
        origin_server_ts: Millis(1_700_000_000_000),
    }
}

fn message(state: &AuthEvents) -> EventBuilder {
    let body = "Dear all, the train to Sheath leaves at nine from platform four. ".repeat(4);
    builder(
        state,
        "m.room.message",
        None,
        json!({ "msgtype": "m.text", "body": body, "m.mentions": {} }),
    )
}

/// A room whose power levels name a hundred users.
fn room(signer: &Signer) -> AuthEvents {
    let users: BTreeMap<String, i64> = (0..100)
        .map(|user| (format!("@user{user}:example.org"), 50))
        .collect();
    let mut state = AuthEvents::default();
    for (event_type, state_key, content) in [
        ("m.room.create", "", json!({ "room_version": VERSION })),
        ("m.room.member", CREATOR, json!({ "membership": "join" })),
        (
            "m.room.power_levels",
            "",
            json!({ "users": users, "events": { "m.room.name": 50 } }),
        ),
        ("m.room.join_rules", "", json!({ "join_rule": "public" })),
        ("m.room.member", USER, json!({ "membership": "join" })),
    ] {
        let mut event = builder(&state, event_type, Some(state_key), content);
        if event_type == "m.room.create" {
            event.prev_events.clear();
        }
        state.insert(
            event
                .sign(VERSION, signer)
                .expect("the event is well formed"),
        );
    }
    state
}

fn rules(criterion: &mut Criterion) {
    let key = SigningKey::generate(&SeededRandom::new(1));
    let signer = Signer::new("example.org", key);
    let state = room(&signer);
    let event = message(&state)
        .sign(VERSION, &signer)
        .expect("the event is well formed");
    let key = VerifyKey {
        key: signer.key().public_key_bytes(),
        valid_until: None,
        expired: None,
    };
    let keys = VerifyKeys::from([(
        "example.org".to_owned(),
        BTreeMap::from([(signer.key().id().to_owned(), key)]),
    )]);
    let whole: Value = serde_json::from_str(event.json()).expect("events are JSON");

    criterion.bench_function("canonical JSON: encode", |bench| {
        bench.iter(|| canonical::to_string(black_box(&whole), Numbers::Strict));
    });
    criterion.bench_function("canonical JSON: read", |bench| {
        bench.iter(|| canonical::parse_object(black_box(event.json().as_bytes()), Numbers::Strict));
    });
    criterion.bench_function("event: build, hash, sign", |bench| {
        bench.iter_batched(
            || message(&state),
            |event| event.sign(VERSION, &signer),
            criterion::BatchSize::SmallInput,
        );
    });
    criterion.bench_function("event: parse from federation", |bench| {
        bench.iter(|| Pdu::parse(VERSION, black_box(event.json().as_bytes())));
    });
    criterion.bench_function("event: read from the store", |bench| {
        bench.iter(|| Pdu::from_stored(VERSION, event.event_id(), black_box(event.json())));
    });
    criterion.bench_function("event: for clients", |bench| {
        bench.iter(|| black_box(&event).client_json(false, Some("{\"age\":1}")));
    });
    criterion.bench_function("event: verify", |bench| {
        bench.iter(|| sign::verify(black_box(&event), &keys));
    });
    criterion.bench_function("authorisation: a message", |bench| {
        bench.iter(|| auth::check(black_box(&event), &state));
    });
    let join = json!({ "membership": "join", "displayname": "Newcomer" });
    let join = builder(&state, "m.room.member", Some("@newcomer:example.org"), join)
        .sign(VERSION, &signer)
        .expect("the event is well formed");
    auth::check(&join, &state).expect("the room is public");
    criterion.bench_function("authorisation: a join", |bench| {
        bench.iter(|| auth::check(black_box(&join), &state));
    });
    push(criterion, &state, &event);
}

fn push(criterion: &mut Criterion, state: &AuthEvents, event: &Pdu) {
    let ruleset = Ruleset::server_default("@someone:example.org");
    let mut keywords = ruleset.clone();
    for word in [
        "matrix", "release", "urgent", "rust", "database", "outage", "pizza", "standup", "review",
        "deadline",
    ] {
        let rule = NewRule {
            pattern: Some(word.to_owned()),
            ..NewRule::default()
        };
        keywords
            .put(Kind::Content, word, rule, Placement::default())
            .expect("the rule is well formed");
    }
    let levels = PowerLevels::of(state).expect("the room has a create event");
    let context = PushContext {
        user_id: "@someone:example.org",
        display_name: Some("Someone"),
        member_count: 100,
        power_levels: Some(&levels),
    };
    criterion.bench_function("push: default rules on a message", |bench| {
        bench.iter(|| evaluate(&ruleset, &PushEvent::from(black_box(event)), &context).notify);
    });
    criterion.bench_function("push: ten keywords on a message", |bench| {
        bench.iter(|| evaluate(&keywords, &PushEvent::from(black_box(event)), &context).notify);
    });
}

criterion_group!(benches, rules);
criterion_main!(benches);
