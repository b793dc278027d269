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
