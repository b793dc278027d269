//! Push rules: who is notified of an event, and how. Spec: client-server API, "Push rules".
//!
//! The evaluation is our own: it runs for every local member of a room on every event, over decoded contents that are
//! at hand, and with a glob matcher whose time is bounded. The rules' form is that of the API, so that a [`Ruleset`]
//! can be stored and served as it is.

mod change;
mod condition;
mod default;
mod glob;
mod rule;

pub use change::{NewRule, Placement, RuleError};
pub use glob::matches_whole as glob_matches;
pub use rule::{Action, Condition, Kind, Rule, Ruleset};

use serde_json::Value;

use crate::{Object, Pdu, PowerLevels};

/// What push rules look at in an event.
#[derive(Clone, Copy, Debug)]
pub struct PushEvent<'a> {
    /// The event's ID.
    pub event_id: &'a str,
    /// Its room.
    pub room_id: &'a str,
    /// Its sender.
    pub sender: &'a str,
    /// Its type.
    pub event_type: &'a str,
    /// Its state key, for state events.
    pub state_key: Option<&'a str>,
    /// Its content.
    pub content: &'a Object,
}

impl<'a> From<&'a Pdu> for PushEvent<'a> {
    fn from(event: &'a Pdu) -> Self {
        Self {
            event_id: event.event_id(),
            room_id: event.room_id(),
            sender: event.sender(),
            event_type: event.event_type(),
            state_key: event.state_key(),
            content: event.content(),
        }
    }
}

/// What push rules look at besides the event.
#[derive(Clone, Copy, Debug)]
pub struct PushContext<'a> {
    /// The user whose rules are evaluated.
    pub user_id: &'a str,
    /// His display name in the room.
    pub display_name: Option<&'a str>,
    /// How many members have joined the room.
    pub member_count: u64,
    /// The room's power levels. None makes `sender_notification_permission` fail.
    pub power_levels: Option<&'a PowerLevels>,
}

/// What the rules say of an event.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Outcome<'r> {
    /// Whether to notify.
    pub notify: bool,
    /// Whether it counts as a highlight. Only ever true together with `notify`.
    pub highlight: bool,
    /// The sound to play.
    pub sound: Option<&'r str>,
    /// The actions of the rule that matched; for push gateways and `/notifications`.
    pub actions: &'r [Action],
}

impl<'r> Outcome<'r> {
    /// What a rule with these actions says of the events that it matches.
    pub fn of(actions: &'r [Action]) -> Self {
        let notify = actions.contains(&Action::Notify);
        let tweak = |wanted: &str| {
            actions.iter().find_map(|action| match action {
                Action::Tweak { name, value } if name == wanted => Some(value.as_ref()),
                Action::Tweak { .. } | Action::Notify | Action::Historical(_) => None,
            })
        };
        // Without a value it means true.
        let highlight = tweak("highlight").is_some_and(|value| value != Some(&Value::Bool(false)));
        Self {
            notify,
            highlight: notify && highlight,
            sound: tweak("sound").flatten().and_then(Value::as_str),
            actions,
        }
    }
}

/// What `rules` say of `event`: the actions of the first enabled rule that matches. Nothing for the user's own events.
pub fn evaluate<'r>(
    rules: &'r Ruleset,
    event: &PushEvent<'_>,
    context: &PushContext<'_>,
) -> Outcome<'r> {
    if event.sender == context.user_id {
        return Outcome::default();
    }
    Kind::ALL
        .into_iter()
        .flat_map(|kind| rules.of_kind(kind).iter().map(move |rule| (kind, rule)))
        .find(|(kind, rule)| rule.enabled && matches(*kind, rule, event, context))
        .map_or_else(Outcome::default, |(_, rule)| Outcome::of(&rule.actions))
}

fn matches(kind: Kind, rule: &Rule, event: &PushEvent<'_>, context: &PushContext<'_>) -> bool {
    match kind {
        Kind::Override | Kind::Underride => rule
            .conditions
            .iter()
            .flatten()
            .all(|condition| condition.holds(event, context)),
        Kind::Content => rule.pattern.as_deref().is_some_and(|pattern| {
            let body = event.content.get("body").and_then(Value::as_str);
            body.is_some_and(|body| glob::matches_words(pattern, body))
        }),
        Kind::Room => rule.rule_id == event.room_id,
        Kind::Sender => rule.rule_id == event.sender,
    }
}
