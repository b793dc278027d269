//! What can be known of an event's notifications before any user's rules are looked at.
//!
//! Follows the server-default push rules (client-server specification, "Push notifications"). `notifies` is what they
//! say for everybody in the room alike; `special` marks what may turn out otherwise for some. What is not special is
//! known by its class alone: it notifies everybody without highlighting and is no state event of one of
//! [`NOTIFYING_TYPES`], or it notifies nobody.

use std::sync::LazyLock;

use myelin_data::rooms::EventTraits;
use myelin_rules::{
    Pdu,
    push::{PushContext, PushEvent, Ruleset, evaluate},
};
use serde_json::Value;

/// The types of the events that notify everybody by the default rules, and that running totals count.
pub const NOTIFYING_TYPES: [&str; 3] = ["m.room.message", "m.room.encrypted", "m.call.invite"];

/// The rules of a user whom nobody mentions.
static DEFAULT: LazyLock<Ruleset> = LazyLock::new(|| Ruleset::server_default(""));

/// The traits of an event that was accepted into a room, and is in this thread.
pub(super) fn of(event: &Pdu, thread: Option<&str>) -> EventTraits {
    let nobody = PushContext {
        user_id: "",
        display_name: None,
        member_count: 0,
        power_levels: None,
    };
    let outcome = evaluate(&DEFAULT, &PushEvent::from(event), &nobody);
    let state = event.state_key().is_some();
    let unusual = outcome.notify
        && (outcome.highlight || state || !NOTIFYING_TYPES.contains(&event.event_type()));
    EventTraits {
        state,
        notifies: outcome.notify,
        special: unusual || addresses_somebody(event),
        threaded: thread.is_some(),
        // Not the event's own: it depends on how the event came here.
        outgoing: false,
    }
}

/// Whether the default rules may say something else to one user than to the others.
fn addresses_somebody(event: &Pdu) -> bool {
    let content = event.content();
    let mentions = content.get("m.mentions");
    let mentions_somebody = mentions.is_some_and(|mentions| {
        mentions.get("room") == Some(&Value::Bool(true))
            || mentions
                .get("user_ids")
                .and_then(Value::as_array)
                .is_some_and(|users| !users.is_empty())
    });
    // Case does not matter to patterns of push rules.
    let invites = event.event_type().eq_ignore_ascii_case("m.room.member")
        && content
            .get("membership")
            .and_then(Value::as_str)
            .is_some_and(|membership| membership.eq_ignore_ascii_case("invite"));
    mentions_somebody || invites
}

#[cfg(test)]
mod tests {
    use myelin_rules::{
        EventBuilder, EventRef, RoomVersion, Signer, SigningKey,
        push::{Condition, Kind},
    };
    use myelin_types::Millis;
    use serde_json::{Value, json};

    use super::of;

    fn check(event_type: &str, state_key: Option<&str>, content: Value, expected: [bool; 4]) {
        let Value::Object(content) = content else {
            panic!("the cases are objects");
        };
        let builder = EventBuilder {
            room_id: Some("!r:here.org".to_owned()),
            sender: "@alice:here.org".to_owned(),
            event_type: event_type.to_owned(),
            state_key: state_key.map(str::to_owned),
            content,
            redacts: None,
            prev_events: vec![EventRef::id("$a")],
            auth_events: Vec::new(),
            depth: 1,
            origin_server_ts: Millis(0),
        };
        let signer = Signer::new("here.org", SigningKey::from_seed("a_test", [7; 32]));
        let event = builder
            .sign(RoomVersion::V11, &signer)
            .expect("a small event");
        let thread = event
            .content()
            .get("m.relates_to")
            .and_then(|relation| (relation["rel_type"] == "m.thread").then_some("$a"));
        let traits = of(&event, thread);
        assert_eq!(
            [
                traits.state,
                traits.notifies,
                traits.special,
                traits.threaded
            ],
            expected,
            "{event_type}"
        );
    }

    #[test]
    fn notifying_types_are_those_of_the_default_rules() {
        let rules = super::Ruleset::server_default("");
        let mut types: Vec<&str> = rules
            .of_kind(Kind::Underride)
            .iter()
            .flat_map(|rule| rule.conditions.iter().flatten())
            .filter_map(|condition| match condition {
                Condition::EventMatch { key, pattern } if key == "type" => Some(pattern.as_str()),
                _ => None,
            })
            .collect();
        types.sort_unstable();
        types.dedup();
        let mut expected = super::NOTIFYING_TYPES;
        expected.sort_unstable();
        assert_eq!(types, expected);
    }

    #[test]
    fn traits_follow_the_default_rules() {
        let text = |extra: Value| {
            let mut content = json!({"msgtype": "m.text", "body": "hello"});
            for (key, value) in extra.as_object().into_iter().flatten() {
                content[key] = value.clone();
            }
            content
        };
        let message = "m.room.message";
        let quiet = json!({"m.mentions": {}});
        check(message, None, text(quiet), [false, true, false, false]);
        check(message, None, text(json!({})), [false, true, false, false]);
        let mention = json!({"m.mentions": {"user_ids": ["@bob:here.org"]}});
        check(message, None, text(mention), [false, true, true, false]);
        let everybody = json!({"m.mentions": {"room": true}});
        check(message, None, text(everybody), [false, true, true, false]);
        let notice = json!({"msgtype": "m.notice", "m.mentions": {}});
        check(message, None, text(notice), [false, false, false, false]);
        let edit = json!({
            "m.mentions": {},
            "m.relates_to": {"rel_type": "m.replace", "event_id": "$a"},
        });
        check(message, None, text(edit), [false, false, false, false]);
        let thread = json!({
            "m.mentions": {},
            "m.relates_to": {"rel_type": "m.thread", "event_id": "$a"},
        });
        check(message, None, text(thread), [false, true, false, true]);
        check("m.reaction", None, json!({}), [false, false, false, false]);
        check(
            "m.room.name",
            Some(""),
            json!({}),
            [true, false, false, false],
        );
        let member = |membership: &str| json!({"membership": membership});
        let invited = [true, false, true, false];
        check("m.room.member", Some("@b:x"), member("invite"), invited);
        let joined = [true, false, false, false];
        check("m.room.member", Some("@b:x"), member("join"), joined);
        let ended = [true, true, true, false];
        check("m.room.tombstone", Some(""), json!({}), ended);
        let plain = [false, true, false, false];
        check("m.room.encrypted", None, json!({}), plain);
        check("m.call.invite", None, json!({}), plain);
        let quiet = [false; 4];
        check("m.poll.start", None, json!({}), quiet);
        let odd = [true, true, true, false];
        check(message, Some(""), text(json!({})), odd);
        let odd = [false, true, true, false];
        check("M.Room.Message", None, text(json!({})), odd);
    }
}
