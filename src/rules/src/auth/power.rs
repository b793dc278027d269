//! Power levels. Spec: `m.room.power_levels`, and the deprecated formats of room versions 1 to 9.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::Value;

use super::{AuthError, AuthState, Create, Decoded, LevelsField};
use crate::{
    Object, Pdu, limits,
    version::{PowerLevelFormat, Rules},
};

/// How much a user may do, or must be able to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PowerLevel {
    /// A number.
    Level(i64),
    /// v12: creators stand above every number.
    Infinite,
}

/// The power levels in force in a room: those of `m.room.power_levels`, or the defaults, and the creators' privilege.
/// Cheap to clone.
#[derive(Clone, Debug)]
pub struct PowerLevels {
    levels: Option<Arc<Levels>>,
    create: Arc<Create>,
    /// v12: creators stand above every level; before, they are 100 while there are no power levels.
    privileged: bool,
}

impl PowerLevels {
    /// The levels in a room with this create event and power levels event. A power levels event that cannot be read
    /// (which no room accepts) counts as absent.
    pub fn new(create: &Pdu, power_levels: Option<&Pdu>) -> Self {
        let levels = power_levels.and_then(|event| match event.decoded() {
            Decoded::PowerLevels(levels) => levels.clone(),
            Decoded::Create(_) | Decoded::Nothing => None,
        });
        let create_content = match create.decoded() {
            Decoded::Create(content) => Arc::clone(content),
            Decoded::PowerLevels(_) | Decoded::Nothing => Arc::new(Create::of(create)),
        };
        Self {
            levels,
            create: create_content,
            privileged: create.version().rules().privileged_creators,
        }
    }

    /// The levels in the room with this state. None without a create event.
    pub fn of(state: &impl AuthState) -> Option<Self> {
        let create = state.create()?;
        Some(Self::new(create, state.get("m.room.power_levels", "")))
    }

    /// What the create event says.
    pub fn create(&self) -> &Create {
        &self.create
    }

    /// The level of a user.
    pub fn user(&self, user_id: &str) -> PowerLevel {
        if self.privileged && self.create.is_creator(user_id) {
            return PowerLevel::Infinite;
        }
        PowerLevel::Level(match &self.levels {
            Some(levels) => levels
                .users
                .get(user_id)
                .copied()
                .or(levels.users_default)
                .unwrap_or(0),
            None if !self.privileged && self.create.is_creator(user_id) => 100,
            None => 0,
        })
    }

    /// The level required to send an event of this type. (Membership events are not governed by it.)
    pub fn event(&self, event_type: &str, is_state: bool) -> PowerLevel {
        let set = self.levels.as_ref().and_then(|levels| {
            let default = if is_state {
                levels.state_default
            } else {
                levels.events_default
            };
            levels.events.get(event_type).copied().or(default)
        });
        PowerLevel::Level(set.unwrap_or(if is_state { 50 } else { 0 }))
    }

    /// The level required to invite.
    pub fn invite(&self) -> PowerLevel {
        self.set(|levels| levels.invite, 0)
    }

    /// The level required to kick.
    pub fn kick(&self) -> PowerLevel {
        self.set(|levels| levels.kick, 50)
    }

    /// The level required to ban.
    pub fn ban(&self) -> PowerLevel {
        self.set(|levels| levels.ban, 50)
    }

    /// The level required to redact the events of others.
    pub fn redact(&self) -> PowerLevel {
        self.set(|levels| levels.redact, 50)
    }

    /// The level required to trigger notifications of this kind, such as `room`.
    pub fn notification(&self, key: &str) -> PowerLevel {
        self.set(|levels| levels.notifications.get(key).copied(), 50)
    }

    /// Whether the user may send events of this type.
    pub fn may_send(&self, user_id: &str, event_type: &str, is_state: bool) -> bool {
        self.user(user_id) >= self.event(event_type, is_state)
    }

    fn set(&self, get: impl Fn(&Levels) -> Option<i64>, default: i64) -> PowerLevel {
        let level = self.levels.as_deref().and_then(get);
        PowerLevel::Level(level.unwrap_or(default))
    }

    /// The content of the power levels event.
    pub(super) fn levels(&self) -> Option<&Levels> {
        self.levels.as_deref()
    }
}

/// The content of `m.room.power_levels`, as far as it is given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Levels {
    users_default: Option<i64>,
    events_default: Option<i64>,
    state_default: Option<i64>,
    ban: Option<i64>,
    redact: Option<i64>,
    kick: Option<i64>,
    invite: Option<i64>,
    pub(super) users: BTreeMap<String, i64>,
    pub(super) events: BTreeMap<String, i64>,
    pub(super) notifications: BTreeMap<String, i64>,
}

impl Levels {
    /// Reads the content; rules 10.1 to 10.3.
    pub(crate) fn decode(rules: &Rules, content: &Object) -> Result<Self, AuthError> {
        let level = |field| level(rules, content, field);
        let map = |field| map(rules, content, field);
        let users = map(LevelsField::Users)?;
        if !users.keys().all(|user| limits::is_user_id(user)) {
            return Err(AuthError::MalformedPowerLevels(LevelsField::Users));
        }
        Ok(Self {
            users_default: level(LevelsField::UsersDefault)?,
            events_default: level(LevelsField::EventsDefault)?,
            state_default: level(LevelsField::StateDefault)?,
            ban: level(LevelsField::Ban)?,
            redact: level(LevelsField::Redact)?,
            kick: level(LevelsField::Kick)?,
            invite: level(LevelsField::Invite)?,
            users,
            events: map(LevelsField::Events)?,
            notifications: if rules.notifications_checked {
                map(LevelsField::Notifications)?
            } else {
                // v1-5: no rule looks at them, so they are no reason to reject the event either.
                map(LevelsField::Notifications).unwrap_or_default()
            },
        })
    }

    /// The single levels, for comparison.
    pub(super) fn single(&self) -> [(LevelsField, Option<i64>); 7] {
        [
            (LevelsField::UsersDefault, self.users_default),
            (LevelsField::EventsDefault, self.events_default),
            (LevelsField::StateDefault, self.state_default),
            (LevelsField::Ban, self.ban),
            (LevelsField::Redact, self.redact),
            (LevelsField::Kick, self.kick),
            (LevelsField::Invite, self.invite),
        ]
    }
}

fn level(rules: &Rules, content: &Object, field: LevelsField) -> Result<Option<i64>, AuthError> {
    content
        .get(field.as_str())
        .map(|value| number(rules, value).ok_or(AuthError::MalformedPowerLevels(field)))
        .transpose()
}

fn map(
    rules: &Rules,
    content: &Object,
    field: LevelsField,
) -> Result<BTreeMap<String, i64>, AuthError> {
    let malformed = AuthError::MalformedPowerLevels(field);
    let Some(value) = content.get(field.as_str()) else {
        return Ok(BTreeMap::new());
    };
    let entries = value.as_object().ok_or(malformed.clone())?;
    entries
        .iter()
        .map(|(key, value)| {
            let level = number(rules, value).ok_or(malformed.clone())?;
            Ok((key.clone(), level))
        })
        .collect()
}

/// A level in the format of the room version.
fn number(rules: &Rules, value: &Value) -> Option<i64> {
    match (value, rules.power_levels) {
        (Value::Number(number), format) => number.as_i64().or_else(|| {
            // v1-5: floats are cut at the point. (v6-9 have no floats, for they are not canonical.)
            let float = number.as_f64()?;
            let fits = float.is_finite() && float.abs() < i64::MAX as f64;
            (format == PowerLevelFormat::Historical && fits).then_some(float as i64)
        }),
        (Value::String(string), PowerLevelFormat::Historical) => {
            let digits = string.trim();
            let unsigned = digits.strip_prefix(['+', '-']).unwrap_or(digits);
            let all_digits = unsigned.bytes().all(|byte| byte.is_ascii_digit());
            all_digits.then(|| digits.parse().ok()).flatten()
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::number;
    use crate::RoomVersion;

    #[test]
    fn historical_numbers() {
        for (value, expected) in [
            (json!(50), Some(50)),
            (json!(50.57), Some(50)),
            (json!(-0.5), Some(0)),
            (json!(5.114_698e4), Some(51146)),
            (json!("100"), Some(100)),
            (json!("000100"), Some(100)),
            (json!("+100"), Some(100)),
            (json!(" -00100 "), Some(-100)),
            (json!("1.5"), None),
            (json!("1e2"), None),
            (json!("+-1"), None),
            (json!(""), None),
            (json!("-"), None),
            (json!("1 0"), None),
            (json!("99999999999999999999"), None),
            (json!(1e300), None),
            (json!(true), None),
            (json!(null), None),
        ] {
            let rules = RoomVersion::V1.rules();
            assert_eq!(number(rules, &value), expected, "{value}");
        }
    }

    #[test]
    fn later_versions_take_only_integers() {
        let rules = RoomVersion::V10.rules();
        assert_eq!(number(rules, &json!(-7)), Some(-7));
        for value in [json!("7"), json!(7.0), json!({})] {
            assert_eq!(number(rules, &value), None, "{value}");
        }
    }
}
