//! Redaction, against `ruma` in every version.

use myelin_rules::{RoomVersion, canonical, redact};
use proptest::prelude::*;
use ruma::{
    CanonicalJsonObject, RoomVersionId,
    canonical_json::{redact as oracle, redact_content_in_place},
};
use serde_json::{Value, json};

use crate::{canonical_json, support::object};

const TYPES: [&str; 9] = [
    "m.room.member",
    "m.room.create",
    "m.room.join_rules",
    "m.room.power_levels",
    "m.room.aliases",
    "m.room.history_visibility",
    "m.room.redaction",
    "m.room.message",
    "m.room.third_party_invite",
];

const TOP_LEVEL: [&str; 18] = [
    "event_id",
    "room_id",
    "sender",
    "state_key",
    "hashes",
    "signatures",
    "depth",
    "prev_events",
    "prev_state",
    "auth_events",
    "origin",
    "origin_server_ts",
    "membership",
    "redacts",
    "unsigned",
    "age_ts",
    "x",
    "contents",
];

const CONTENT: [&str; 24] = [
    "membership",
    "creator",
    "join_rule",
    "ban",
    "events",
    "events_default",
    "kick",
    "redact",
    "state_default",
    "users",
    "users_default",
    "aliases",
    "history_visibility",
    "allow",
    "join_authorised_via_users_server",
    "third_party_invite",
    "signed",
    "invite",
    "notifications",
    "redacts",
    "room_version",
    "body",
    "m.federate",
    "displayname",
];

fn keyed(keys: &'static [&'static str]) -> impl Strategy<Value = Value> {
    let value = prop_oneof![
        canonical_json::value(),
        Just(json!({ "signed": { "token": "t" }, "display_name": "d" })),
    ];
    let subset = prop::sample::subsequence(keys, 0..=keys.len());
    (subset, prop::collection::vec(value, keys.len())).prop_map(|(keys, values)| {
        let entries = keys.into_iter().map(str::to_owned).zip(values);
        Value::Object(entries.collect())
    })
}

fn version() -> impl Strategy<Value = RoomVersion> {
    prop::sample::select(&RoomVersion::ALL[..])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn redacts_as_ruma_does(
        version in version(),
        event_type in prop::sample::select(&TYPES[..]),
        event in keyed(&TOP_LEVEL),
        content in keyed(&CONTENT),
    ) {
        let (mut event, mut content) = (event, content);
        // The oracle keeps a third-party invite that is no object, of which there is no `signed` to keep.
        if content.get("third_party_invite").is_some_and(|invite| !invite.is_object()) {
            content["third_party_invite"] = json!({});
        }
        event["type"] = json!(event_type);
        event["content"] = content.clone();
        let text = canonical::to_string(&event, canonical::Numbers::Strict).expect("canonical numbers");
        let redacted = redact::redact(version, &text).expect("it has a type and a content");

        let id = RoomVersionId::try_from(version.as_str()).expect("ruma knows the version");
        let rules = id.rules().expect("ruma knows its rules").redaction;
        let known: CanonicalJsonObject = serde_json::from_str(&text).expect("canonical numbers");
        let expected = oracle(known, &rules, None).expect("it has a type and a content");
        let expected = serde_json::to_string(&expected).expect("it is JSON");
        prop_assert_eq!(&redacted, &expected);

        let left = redact::redact_content(version, event_type, &object(content.clone()));
        let mut expected: CanonicalJsonObject =
            serde_json::from_value(content).expect("canonical numbers");
        redact_content_in_place(&mut expected, &rules, event_type);
        prop_assert_eq!(
            serde_json::to_string(&left).expect("it is JSON"),
            serde_json::to_string(&expected).expect("it is JSON")
        );
    }
}

#[test]
fn of_a_third_party_invite_only_what_is_signed_is_left() {
    let left = |invite: Value| {
        let content = json!({ "membership": "invite", "third_party_invite": invite });
        Value::Object(redact::redact_content(
            RoomVersion::V11,
            "m.room.member",
            &object(content),
        ))
    };
    let signed = json!({ "signed": { "token": "t" }, "display_name": "d" });
    let expected =
        json!({ "membership": "invite", "third_party_invite": { "signed": { "token": "t" } } });
    assert_eq!(left(signed), expected);
    assert_eq!(left(json!([])), json!({ "membership": "invite" }));
}

#[test]
fn what_is_no_event_is_refused() {
    for text in [
        "",
        "[]",
        "{}",
        r#"{"type":1}"#,
        r#"{"content":[],"type":"x"}"#,
    ] {
        assert!(redact::redact(RoomVersion::V11, text).is_err(), "{text:?}");
    }
}
