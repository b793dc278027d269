//! Push rules: the defaults as the spec has them, evaluation, changes, and `ruma` as the oracle for globs.

use std::str::FromStr;

use myelin_rules::{
    PowerLevels, RoomVersion,
    push::{
        Kind, NewRule, Outcome, Placement, PushContext, PushEvent, RuleError, Ruleset, evaluate,
    },
};
use proptest::prelude::*;
use ruma::{
    events::AnySyncTimelineEvent,
    push::{EventMatchConditionData, PushCondition, PushConditionRoomCtx},
    serde::Raw,
};
use serde_json::{Value, json};

use crate::support::{CREATOR, MOD, OTHER, Room, USER, object};

const DEFAULTS: &str = include_str!("default_push_rules.json");

/// What the user's rules say of a message event with this content by `sender` in a room of `members`.
fn outcome<'r>(
    rules: &'r Ruleset,
    sender: &str,
    event_type: &str,
    state_key: Option<&str>,
    content: &Value,
    members: u64,
) -> Outcome<'r> {
    let room = Room::peopled(RoomVersion::V11);
    let levels = PowerLevels::of(&room.state).expect("the room was created");
    let content = object(content.clone());
    let event = PushEvent {
        event_id: "$e",
        room_id: "!r:a.org",
        sender,
        event_type,
        state_key,
        content: &content,
    };
    let context = PushContext {
        user_id: USER,
        display_name: Some("Ursula K."),
        member_count: members,
        power_levels: Some(&levels),
    };
    evaluate(rules, &event, &context)
}

fn message<'r>(rules: &'r Ruleset, content: &Value) -> Outcome<'r> {
    outcome(rules, OTHER, "m.room.message", None, content, 3)
}

/// Notify, highlight, sound.
fn said(outcome: &Outcome<'_>) -> (bool, bool, Option<String>) {
    (
        outcome.notify,
        outcome.highlight,
        outcome.sound.map(str::to_owned),
    )
}

#[test]
fn defaults_are_those_of_the_spec() {
    let rules = Ruleset::server_default("[the user's Matrix ID]");
    let expected: Value = serde_json::from_str(DEFAULTS).expect("the fixture is JSON");
    assert_eq!(
        serde_json::to_value(&rules).expect("rules are JSON"),
        expected
    );
    let again: Ruleset = serde_json::from_value(expected).expect("rules are read back");
    assert_eq!(again, rules);
}

#[test]
fn what_the_defaults_say() {
    let rules = Ruleset::server_default(USER);
    let nothing = (false, false, None);
    let plain = (true, false, None);
    let loud = (true, false, Some("default".to_owned()));
    let text = json!({ "msgtype": "m.text", "body": "hi" });
    assert_eq!(said(&message(&rules, &text)), plain);
    assert_eq!(
        said(&outcome(&rules, OTHER, "m.room.message", None, &text, 2)),
        loud
    );
    assert_eq!(
        said(&outcome(&rules, USER, "m.room.message", None, &text, 2)),
        nothing
    );
    assert_eq!(
        said(&outcome(
            &rules,
            OTHER,
            "m.room.encrypted",
            None,
            &json!({}),
            2
        )),
        loud
    );
    assert_eq!(
        said(&outcome(
            &rules,
            OTHER,
            "m.room.encrypted",
            None,
            &json!({}),
            9
        )),
        plain
    );
    assert_eq!(
        said(&message(
            &rules,
            &json!({ "msgtype": "m.notice", "body": "hi" })
        )),
        nothing
    );
    assert_eq!(
        said(&outcome(&rules, OTHER, "m.reaction", None, &json!({}), 2)),
        nothing
    );
    assert_eq!(
        said(&outcome(
            &rules,
            OTHER,
            "m.room.topic",
            Some(""),
            &json!({}),
            2
        )),
        nothing
    );
    let ring = (true, false, Some("ring".to_owned()));
    assert_eq!(
        said(&outcome(
            &rules,
            OTHER,
            "m.call.invite",
            None,
            &json!({}),
            9
        )),
        ring
    );

    let member = |user: &str, membership: &str| {
        said(&outcome(
            &rules,
            OTHER,
            "m.room.member",
            Some(user),
            &json!({ "membership": membership }),
            9,
        ))
    };
    assert_eq!(member(USER, "invite"), loud);
    assert_eq!(member(MOD, "invite"), nothing);
    assert_eq!(member(USER, "ban"), nothing);

    let mention = json!({ "body": "hi", "m.mentions": { "user_ids": [MOD, USER] } });
    assert_eq!(
        said(&message(&rules, &mention)),
        (true, true, Some("default".to_owned()))
    );
    let other_mention = json!({ "body": "hi", "m.mentions": { "user_ids": [MOD] } });
    assert_eq!(said(&message(&rules, &other_mention)), plain);
    let edit =
        json!({ "body": "* hi", "m.relates_to": { "rel_type": "m.replace", "event_id": "$x" } });
    assert_eq!(said(&message(&rules, &edit)), nothing);

    let everyone = json!({ "body": "@room", "m.mentions": { "room": true } });
    let by = |sender: &str| {
        said(&outcome(
            &rules,
            sender,
            "m.room.message",
            None,
            &everyone,
            9,
        ))
    };
    assert_eq!(by(MOD), (true, true, None));
    assert_eq!(by(CREATOR), (true, true, None));
    assert_eq!(by(OTHER), plain);

    let tombstone = |state_key| {
        said(&outcome(
            &rules,
            OTHER,
            "m.room.tombstone",
            state_key,
            &json!({}),
            9,
        ))
    };
    assert_eq!(tombstone(Some("")), (true, true, None));
    assert_eq!(tombstone(None), nothing);
    // The rules that looked into bodies are gone.
    assert_eq!(
        said(&message(&rules, &json!({ "body": "Ursula K. @room user" }))),
        plain
    );
}

#[test]
fn the_master_rule_silences_everything() {
    let mut rules = Ruleset::server_default(USER);
    let rule = NewRule {
        actions: vec![json!("notify")],
        ..NewRule::default()
    };
    rules
        .put(Kind::Override, "loud", rule, Placement::default())
        .expect("a fine rule");
    let text = json!({ "body": "hi" });
    assert!(message(&rules, &text).notify);
    rules
        .set_enabled(Kind::Override, ".m.rule.master", true)
        .expect("it exists");
    assert!(!message(&rules, &text).notify);
}

#[test]
fn kinds_in_their_order() {
    let mut rules = Ruleset::default();
    let mut put = |kind, id: &str, sound: &str| {
        let rule = NewRule {
            actions: vec![
                json!("notify"),
                json!({ "set_tweak": "sound", "value": sound }),
            ],
            pattern: Some("cake".to_owned()),
            ..NewRule::default()
        };
        rules
            .put(kind, id, rule, Placement::default())
            .expect("a fine rule");
        rules.clone()
    };
    let hears = |rules: &Ruleset| {
        message(rules, &json!({ "body": "CAKE!" }))
            .sound
            .map(str::to_owned)
    };
    for (kind, id) in [
        (Kind::Underride, "u"),
        (Kind::Sender, OTHER),
        (Kind::Room, "!r:a.org"),
        (Kind::Content, "c"),
        (Kind::Override, "o"),
    ] {
        let rules = put(kind, id, kind.as_str());
        assert_eq!(hears(&rules).as_deref(), Some(kind.as_str()));
        assert_eq!(Kind::from_str(kind.as_str()), Ok(kind));
    }
    put(Kind::Sender, MOD, "nobody's");
    assert_eq!(Kind::from_str("global"), Err(RuleError::UnknownKind));
}

fn with_conditions(conditions: Value) -> Ruleset {
    let rule = NewRule {
        actions: vec![json!("notify")],
        conditions: conditions.as_array().expect("a list").clone(),
        pattern: None,
    };
    let mut rules = Ruleset::default();
    rules
        .put(Kind::Override, "r", rule, Placement::default())
        .expect("a fine rule");
    rules
}

#[test]
fn conditions() {
    let content = json!({
        "body": "An example for ursula k.", "n": 5, "f": 1.5, "yes": true, "none": null, "list": ["a", 1, null, [2]],
        "m.odd": { "a\\b": "x" }, "deep": { "er": { "topic": "Lunch plans" } },
    });
    for (condition, expected) in [
        (
            json!({ "kind": "event_match", "key": "content.body", "pattern": "ex*ple" }),
            true,
        ),
        (
            json!({ "kind": "event_match", "key": "content.body", "pattern": "exam" }),
            false,
        ),
        (
            json!({ "kind": "event_match", "key": "content.deep.er.topic", "pattern": "lunc?*" }),
            true,
        ),
        (
            json!({ "kind": "event_match", "key": "content.deep.er", "pattern": "*" }),
            false,
        ),
        (
            json!({ "kind": "event_match", "key": "content.n", "pattern": "*" }),
            false,
        ),
        (
            json!({ "kind": "event_match", "key": "content.absent", "pattern": "*" }),
            false,
        ),
        (
            json!({ "kind": "event_match", "key": "content", "pattern": "*" }),
            false,
        ),
        (
            json!({ "kind": "event_match", "key": "state_key", "pattern": "*" }),
            false,
        ),
        (
            json!({ "kind": "event_match", "key": "sender", "pattern": "@OTHER:*" }),
            true,
        ),
        (
            json!({ "kind": "event_match", "key": "room_id", "pattern": "!r:a.org" }),
            true,
        ),
        (
            json!({ "kind": "event_match", "key": "type", "pattern": "m.room.*" }),
            true,
        ),
        (
            json!({ "kind": "event_match", "key": r"content.m\.odd.a\\b", "pattern": "x" }),
            true,
        ),
        (
            json!({ "kind": "event_match", "key": "content.m.odd", "pattern": "*" }),
            false,
        ),
        (
            json!({ "kind": "event_property_is", "key": "content.n", "value": 5 }),
            true,
        ),
        (
            json!({ "kind": "event_property_is", "key": "content.n", "value": "5" }),
            false,
        ),
        (
            json!({ "kind": "event_property_is", "key": "content.yes", "value": true }),
            true,
        ),
        (
            json!({ "kind": "event_property_is", "key": "content.none", "value": null }),
            true,
        ),
        (
            json!({ "kind": "event_property_is", "key": "content.absent", "value": null }),
            false,
        ),
        (
            json!({ "kind": "event_property_is", "key": "content.f", "value": 1.5 }),
            false,
        ),
        (
            json!({ "kind": "event_property_is", "key": "content.list", "value": ["a", 1, null, [2]] }),
            false,
        ),
        (
            json!({ "kind": "event_property_is", "key": "type", "value": "m.room.message" }),
            true,
        ),
        (
            json!({ "kind": "event_property_contains", "key": "content.list", "value": "a" }),
            true,
        ),
        (
            json!({ "kind": "event_property_contains", "key": "content.list", "value": 1 }),
            true,
        ),
        (
            json!({ "kind": "event_property_contains", "key": "content.list", "value": null }),
            true,
        ),
        (
            json!({ "kind": "event_property_contains", "key": "content.list", "value": [2] }),
            false,
        ),
        (
            json!({ "kind": "event_property_contains", "key": "content.body", "value": "a" }),
            false,
        ),
        (json!({ "kind": "contains_display_name" }), true),
        (json!({ "kind": "room_member_count", "is": ">2" }), true),
        (json!({ "kind": "room_member_count", "is": "2" }), false),
        (
            json!({ "kind": "sender_notification_permission", "key": "room" }),
            false,
        ),
        (json!({ "kind": "org.example.unheard_of" }), false),
        (
            json!({ "kind": "event_match", "key": "content.body" }),
            false,
        ),
    ] {
        let rules = with_conditions(json!([condition]));
        let matched = message(&rules, &content).notify;
        assert_eq!(matched, expected, "{condition}");
        let shown = serde_json::to_value(&rules.override_[0].conditions).expect("rules are JSON");
        assert_eq!(
            shown,
            json!([condition]),
            "conditions are shown as they were set"
        );
    }
    assert!(message(&with_conditions(json!([])), &content).notify);
    let contradiction = json!([{ "kind": "contains_display_name" }, { "kind": "unheard_of" }]);
    assert!(!message(&with_conditions(contradiction), &content).notify);
}

#[test]
fn actions() {
    let mut rules = with_conditions(json!([]));
    let text = json!({ "body": "hi" });
    let mut set = |actions: Value| {
        rules
            .set_actions(Kind::Override, "r", actions.as_array().expect("a list"))
            .map(|()| said(&message(&rules, &text)))
    };
    assert_eq!(set(json!([])), Ok((false, false, None)));
    assert_eq!(
        set(json!(["notify", { "set_tweak": "highlight" }])),
        Ok((true, true, None))
    );
    assert_eq!(
        set(json!(["notify", { "set_tweak": "highlight", "value": false }])),
        Ok((true, false, None))
    );
    assert_eq!(set(json!(["dont_notify"])), Ok((false, false, None)));
    assert_eq!(set(json!(["coalesce", "notify"])), Ok((true, false, None)));
    for wrong in [json!(["shout"]), json!([1]), json!([{ "tweak": "sound" }])] {
        assert_eq!(set(wrong), Err(RuleError::InvalidAction));
    }
    set(json!(["dont_notify"])).expect("historical, but legal");
    let shown = serde_json::to_value(&rules).expect("rules are JSON");
    assert_eq!(shown["override"][0]["actions"], json!(["dont_notify"]));
}

#[test]
fn rules_are_placed_where_asked() {
    let mut rules = Ruleset::server_default(USER);
    let mut put = |kind, id: &str, before: Option<&str>, after: Option<&str>| {
        let rule = NewRule {
            pattern: Some("p".to_owned()),
            ..NewRule::default()
        };
        rules.put(kind, id, rule, Placement { before, after })?;
        let ids = rules.of_kind(kind).iter().filter(|rule| !rule.default);
        Ok(ids
            .map(|rule| rule.rule_id.clone())
            .collect::<Vec<_>>()
            .join(" "))
    };
    let ok = |order: &str| Ok(order.to_owned());
    let content = Kind::Content;
    assert_eq!(put(content, "a", None, None), ok("a"));
    assert_eq!(put(content, "b", None, None), ok("b a"));
    assert_eq!(put(content, "c", None, Some("b")), ok("b c a"));
    assert_eq!(put(content, "d", Some("a"), None), ok("b c d a"));
    assert_eq!(put(content, "e", Some("a"), Some("b")), ok("b c d e a"));
    assert_eq!(put(content, "d", None, None), ok("b c d e a"));
    assert_eq!(put(content, "a", Some("b"), None), ok("a b c d e"));
    assert_eq!(put(content, "a", None, Some("e")), ok("b c d e a"));
    for neighbour in ["x", "a"] {
        let refused = Err(RuleError::NoSuchNeighbour(neighbour.to_owned()));
        assert_eq!(put(content, "a", Some(neighbour), None), refused);
        assert_eq!(put(content, "a", None, Some(neighbour)), refused);
    }
    let server_rule = ".m.rule.member_event";
    let refused = Err(RuleError::NoSuchNeighbour(server_rule.to_owned()));
    assert_eq!(put(Kind::Override, "o", Some(server_rule), None), refused);
    assert_eq!(put(Kind::Override, "o", None, None), ok("o"));
    assert_eq!(rules.override_[0].rule_id, ".m.rule.master");
    assert_eq!(rules.override_[1].rule_id, "o");
}

#[test]
fn refusals() {
    let mut rules = Ruleset::server_default(USER);
    let before = rules.clone();
    let mut put =
        |id: &str, rule: NewRule| rules.put(Kind::Content, id, rule, Placement::default());
    let rule = || NewRule {
        pattern: Some("p".to_owned()),
        ..NewRule::default()
    };
    assert_eq!(put(".mine", rule()), Err(RuleError::ServerDefault));
    for id in ["", "a/b", r"a\b"] {
        assert_eq!(put(id, rule()), Err(RuleError::InvalidId), "{id:?}");
    }
    assert_eq!(put("a", NewRule::default()), Err(RuleError::MissingPattern));
    let long = NewRule {
        pattern: Some("x".repeat(513)),
        ..NewRule::default()
    };
    assert_eq!(put("a", long), Err(RuleError::PatternTooLong));
    let odd = NewRule {
        conditions: vec![json!("x")],
        ..NewRule::default()
    };
    assert_eq!(
        rules.put(Kind::Override, "a", odd, Placement::default()),
        Err(RuleError::InvalidCondition)
    );
    assert_eq!(rules.delete(Kind::Content, "a"), Err(RuleError::NotFound));
    assert_eq!(
        rules.delete(Kind::Override, ".m.rule.master"),
        Err(RuleError::ServerDefault)
    );
    assert_eq!(
        rules.set_enabled(Kind::Content, "a", true),
        Err(RuleError::NotFound)
    );
    assert_eq!(
        rules.set_actions(Kind::Content, "a", &[]),
        Err(RuleError::NotFound)
    );
    assert_eq!(rules, before, "a refusal changes nothing");
}

#[test]
fn changes_keep_rules_disabled_and_deleting_removes_them() {
    let mut rules = Ruleset::default();
    let rule = |pattern: &str| NewRule {
        pattern: Some(pattern.to_owned()),
        ..NewRule::default()
    };
    rules
        .put(Kind::Content, "a", rule("p"), Placement::default())
        .expect("a fine rule");
    assert!(rules.get(Kind::Content, "a").expect("just added").enabled);
    rules
        .set_enabled(Kind::Content, "a", false)
        .expect("just added");
    rules
        .put(Kind::Content, "a", rule("q"), Placement::default())
        .expect("a fine rule");
    let changed = rules.get(Kind::Content, "a").expect("still there");
    assert_eq!(
        (changed.enabled, changed.pattern.as_deref()),
        (false, Some("q"))
    );
    rules.delete(Kind::Content, "a").expect("still there");
    assert_eq!(rules, Ruleset::default());
}

#[test]
fn stored_rules_follow_the_defaults() {
    let mut rules = Ruleset::server_default(USER);
    rules
        .set_enabled(Kind::Override, ".m.rule.master", true)
        .expect("it exists");
    rules
        .set_actions(Kind::Underride, ".m.rule.message", &[])
        .expect("it exists");
    rules
        .put(
            Kind::Override,
            "mine",
            NewRule::default(),
            Placement::default(),
        )
        .expect("a fine rule");
    let expected = rules.clone();
    rules
        .override_
        .retain(|rule| rule.rule_id != ".m.rule.reaction");
    let mut gone = rules.override_[0].clone();
    gone.rule_id = ".m.rule.of_old".to_owned();
    rules.override_.push(gone);
    rules.refresh_defaults(USER);
    assert_eq!(rules, expected);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    /// In ASCII, as the oracle's boundaries are those of bytes, and without two wildcards in a row, of which it takes
    /// the second for a character.
    #[test]
    fn globs_match_as_in_ruma(
        key in prop::sample::select(vec!["content.body", "content.topic"]),
        pattern in "[*?]?([aAb_ .]{1,2}[*?]?){1,3}",
        value in "[aAbB_ .!]{0,9}",
    ) {
        let ours = with_conditions(json!([{ "kind": "event_match", "key": key, "pattern": pattern }]));
        let property = key.trim_start_matches("content.");
        let content = json!({ property: value });
        let matched = message(&ours, &content).notify;

        let theirs = PushCondition::EventMatch(EventMatchConditionData::new(key.to_owned(), pattern.clone()));
        let event = json!({ "type": "m.room.message", "sender": OTHER, "content": content });
        let event: Raw<AnySyncTimelineEvent> = serde_json::from_value(event).expect("raw JSON");
        let flat = ruma::push::FlattenedJson::from_raw(&event);
        let context = PushConditionRoomCtx::new(
            "!r:a.org".try_into().expect("a room ID"), 3_u32.into(), USER.try_into().expect("a user ID"), String::new(),
        );
        let expected = futures_util::FutureExt::now_or_never(theirs.applies(&flat, &context));
        prop_assert_eq!(Some(matched), expected, "{:?} on {:?}", pattern, value);
    }
}
