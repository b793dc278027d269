//! Rules and rulesets, in the form of the API.

use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, ser::SerializeMap};
use serde_json::{Value, json};

use super::RuleError;
use crate::Object;

/// The kinds of rules, in the order of precedence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "each variant is the kind of that name")]
pub enum Kind {
    Override,
    Content,
    Room,
    Sender,
    Underride,
}

impl Kind {
    /// All kinds, in the order of precedence.
    pub const ALL: [Self; 5] = [
        Self::Override,
        Self::Content,
        Self::Room,
        Self::Sender,
        Self::Underride,
    ];

    /// The name in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Override => "override",
            Self::Content => "content",
            Self::Room => "room",
            Self::Sender => "sender",
            Self::Underride => "underride",
        }
    }
}

impl FromStr for Kind {
    type Err = RuleError;

    fn from_str(name: &str) -> Result<Self, RuleError> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.as_str() == name)
            .ok_or(RuleError::UnknownKind)
    }
}

/// What to do when a rule matches.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// `notify`.
    Notify,
    /// `set_tweak`, with its value.
    Tweak {
        /// The tweak: `sound`, `highlight`, or one that clients agreed upon.
        name: String,
        /// Its value, if any.
        value: Option<Value>,
    },
    /// `dont_notify` or `coalesce`: shown as they were set, without any meaning.
    Historical(String),
}

impl Action {
    /// Reads an action.
    pub fn from_value(action: &Value) -> Result<Self, RuleError> {
        match action {
            Value::String(name) if name == "notify" => Ok(Self::Notify),
            Value::String(name) if name == "dont_notify" || name == "coalesce" => {
                Ok(Self::Historical(name.clone()))
            }
            Value::Object(action) => {
                let name = action.get("set_tweak").and_then(Value::as_str);
                Ok(Self::Tweak {
                    name: name.ok_or(RuleError::InvalidAction)?.to_owned(),
                    value: action.get("value").cloned(),
                })
            }
            _ => Err(RuleError::InvalidAction),
        }
    }
}

impl Serialize for Action {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Notify => serializer.serialize_str("notify"),
            Self::Historical(name) => serializer.serialize_str(name),
            Self::Tweak { name, value } => {
                let mut map = serializer.serialize_map(None)?;
                map.serialize_entry("set_tweak", name)?;
                if let Some(value) = value {
                    map.serialize_entry("value", value)?;
                }
                map.end()
            }
        }
    }
}

/// When a rule matches.
#[derive(Clone, Debug, PartialEq)]
#[expect(
    missing_docs,
    reason = "fields as in the spec's definitions of the conditions"
)]
pub enum Condition {
    EventMatch {
        key: String,
        pattern: String,
    },
    EventPropertyIs {
        key: String,
        value: Value,
    },
    EventPropertyContains {
        key: String,
        value: Value,
    },
    ContainsDisplayName,
    RoomMemberCount {
        is: String,
    },
    SenderNotificationPermission {
        key: String,
    },
    /// One this server does not know, or lacking what its kind needs; never holds. Kept as it came.
    Unknown(Object),
}

impl Condition {
    /// Reads a condition; it must be an object with a `kind`.
    pub fn from_value(condition: &Value) -> Result<Self, RuleError> {
        let object = condition.as_object().ok_or(RuleError::InvalidCondition)?;
        let string = |key: &str| object.get(key).and_then(Value::as_str).map(str::to_owned);
        let kind = string("kind").ok_or(RuleError::InvalidCondition)?;
        let value = || object.get("value").cloned();
        let known = match kind.as_str() {
            "event_match" => string("key")
                .zip(string("pattern"))
                .map(|(key, pattern)| Self::EventMatch { key, pattern }),
            "event_property_is" => string("key")
                .zip(value())
                .map(|(key, value)| Self::EventPropertyIs { key, value }),
            "event_property_contains" => string("key")
                .zip(value())
                .map(|(key, value)| Self::EventPropertyContains { key, value }),
            "contains_display_name" => Some(Self::ContainsDisplayName),
            "room_member_count" => string("is").map(|is| Self::RoomMemberCount { is }),
            "sender_notification_permission" => {
                string("key").map(|key| Self::SenderNotificationPermission { key })
            }
            _ => None,
        };
        Ok(known.unwrap_or_else(|| Self::Unknown(object.clone())))
    }

    /// The condition as the API shows it.
    pub fn to_value(&self) -> Value {
        match self {
            Self::EventMatch { key, pattern } => {
                json!({ "kind": "event_match", "key": key, "pattern": pattern })
            }
            Self::EventPropertyIs { key, value } => {
                json!({ "kind": "event_property_is", "key": key, "value": value })
            }
            Self::EventPropertyContains { key, value } => {
                json!({ "kind": "event_property_contains", "key": key, "value": value })
            }
            Self::ContainsDisplayName => json!({ "kind": "contains_display_name" }),
            Self::RoomMemberCount { is } => json!({ "kind": "room_member_count", "is": is }),
            Self::SenderNotificationPermission { key } => {
                json!({ "kind": "sender_notification_permission", "key": key })
            }
            Self::Unknown(object) => Value::Object(object.clone()),
        }
    }
}

impl Serialize for Condition {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_value().serialize(serializer)
    }
}

/// A push rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rule {
    /// Its identifier, unique within its kind.
    pub rule_id: String,
    /// Whether the server defined it.
    pub default: bool,
    /// Whether it is in force.
    pub enabled: bool,
    /// What to do when it matches.
    #[serde(deserialize_with = "stored_actions")]
    pub actions: Vec<Action>,
    /// `override` and `underride`: all of these must hold.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "stored_conditions"
    )]
    pub conditions: Option<Vec<Condition>>,
    /// `content`: the glob to look for in the body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pattern: Option<String>,
}

/// Actions of a stored rule; what cannot be read is left out, for there is nobody left to refuse it to.
fn stored_actions<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Action>, D::Error> {
    let actions = Vec::<Value>::deserialize(deserializer)?;
    let read = |action: &Value| Action::from_value(action).ok();
    Ok(actions.iter().filter_map(read).collect())
}

/// Conditions of a stored rule; what cannot be read never holds.
fn stored_conditions<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Vec<Condition>>, D::Error> {
    let conditions = Option::<Vec<Value>>::deserialize(deserializer)?;
    let read = |condition: &Value| {
        Condition::from_value(condition).unwrap_or_else(|_| Condition::Unknown(Object::new()))
    };
    Ok(conditions.map(|conditions| conditions.iter().map(read).collect()))
}

/// All rules of a user: what `GET /pushrules/` and `m.push_rules` have as `global`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Ruleset {
    /// Highest priority.
    #[serde(default, rename = "override")]
    pub override_: Vec<Rule>,
    /// By words in the body.
    #[serde(default)]
    pub content: Vec<Rule>,
    /// By room.
    #[serde(default)]
    pub room: Vec<Rule>,
    /// By sender.
    #[serde(default)]
    pub sender: Vec<Rule>,
    /// Lowest priority.
    #[serde(default)]
    pub underride: Vec<Rule>,
}

impl Ruleset {
    /// The rules of a kind, the most important first.
    pub fn of_kind(&self, kind: Kind) -> &[Rule] {
        match kind {
            Kind::Override => &self.override_,
            Kind::Content => &self.content,
            Kind::Room => &self.room,
            Kind::Sender => &self.sender,
            Kind::Underride => &self.underride,
        }
    }

    /// The rule of this kind and ID.
    pub fn get(&self, kind: Kind, rule_id: &str) -> Option<&Rule> {
        let mut rules = self.of_kind(kind).iter();
        rules.find(|rule| rule.rule_id == rule_id)
    }

    pub(super) fn of_kind_mut(&mut self, kind: Kind) -> &mut Vec<Rule> {
        match kind {
            Kind::Override => &mut self.override_,
            Kind::Content => &mut self.content,
            Kind::Room => &mut self.room,
            Kind::Sender => &mut self.sender,
            Kind::Underride => &mut self.underride,
        }
    }
}
