//! What can be known of an event's notifications before any user's rules are looked at.
//!
//! Follows the server-default push rules (client-server specification, "Push notifications"). `notifies` is what they
//! say for everybody in the room alike; `special` marks what may turn out otherwise for some.

use myelin_data::rooms::EventTraits;
use myelin_rules::Pdu;
use serde_json::Value;

/// The traits of an event that was accepted into a room.
pub(super) fn of(event: &Pdu) -> EventTraits {
    let content = event.content();
    let is_state = event.state_key().is_some();
    let relation = content
        .get("m.relates_to")
        .and_then(|relation| relation.get("rel_type"))
        .and_then(Value::as_str);
    let is_edit = relation == Some("m.replace");
    let is_notice = content.get("msgtype").and_then(Value::as_str) == Some("m.notice");
    let message = matches!(
        event.event_type(),
        "m.room.message" | "m.room.encrypted" | "m.poll.start" | "org.matrix.msc3381.poll.start"
    ) && !is_state;
    EventTraits {
        state: is_state,
        notifies: message && !is_edit && !is_notice,
        special: special(event, message),
        threaded: relation == Some("m.thread"),
    }
}

fn special(event: &Pdu, message: bool) -> bool {
    let mentions = event.content().get("m.mentions");
    let mentions_somebody = mentions.is_some_and(|mentions| {
        mentions.get("room") == Some(&Value::Bool(true))
            || mentions
                .get("user_ids")
                .and_then(Value::as_array)
                .is_some_and(|users| !users.is_empty())
    });
    // Without `m.mentions`, names and `@room` in the body count as mentions.
    let may_mention = message && mentions.is_none();
    mentions_somebody
        || may_mention
        || matches!(
            event.event_type(),
            "m.room.member" | "m.room.tombstone" | "m.call.invite" | "m.rtc.notification"
        )
}

#[cfg(test)]
mod tests {
    use myelin_rules::{EventBuilder, EventRef, RoomVersion, Signer, SigningKey};
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
        let traits = of(&event);
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
        check(message, None, text(json!({})), [false, true, true, false]);
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
        let member = json!({"membership": "invite"});
        check(
            "m.room.member",
            Some("@b:x"),
            member,
            [true, false, true, false],
        );
        check(
            "m.room.encrypted",
            None,
            json!({}),
            [false, true, true, false],
        );
    }
}
