//! The state that authorisation looks at, decoded.

use std::sync::Arc;

use serde_json::Value;
use smallvec::SmallVec;

use super::power::Levels;
use crate::Pdu;

/// `membership` of `m.room.member`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Membership {
    /// Not in the room; also whoever never was.
    #[default]
    Leave,
    /// In the room.
    Join,
    /// Invited.
    Invite,
    /// Asked to be invited.
    Knock,
    /// Banned.
    Ban,
}

impl Membership {
    /// From the value in the event; None when it is none of the spec's.
    pub fn from_value(value: &str) -> Option<Self> {
        match value {
            "leave" => Some(Self::Leave),
            "join" => Some(Self::Join),
            "invite" => Some(Self::Invite),
            "knock" => Some(Self::Knock),
            "ban" => Some(Self::Ban),
            _ => None,
        }
    }

    /// The value as in the event.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Leave => "leave",
            Self::Join => "join",
            Self::Invite => "invite",
            Self::Knock => "knock",
            Self::Ban => "ban",
        }
    }

    /// The membership that a `m.room.member` event sets; `Leave` when its content has no valid one.
    pub fn of(member: &Pdu) -> Self {
        let value = member.content().get("membership").and_then(Value::as_str);
        value.and_then(Self::from_value).unwrap_or_default()
    }
}

/// `join_rule` of `m.room.join_rules`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum JoinRule {
    /// Anyone may join.
    Public,
    /// Only the invited may join; also what holds when nothing is set.
    #[default]
    Invite,
    /// As `Invite`, and anyone may ask to be invited. From v7.
    Knock,
    /// The invited, and members of the rooms in `allow`. From v8.
    Restricted,
    /// `Knock` and `Restricted` together. From v10.
    KnockRestricted,
    /// Reserved by the spec; nobody may join.
    Private,
    /// A value that the spec does not know; nobody may join.
    Unknown,
}

impl JoinRule {
    /// From the value in the event.
    pub fn from_value(value: &str) -> Self {
        match value {
            "public" => Self::Public,
            "invite" => Self::Invite,
            "knock" => Self::Knock,
            "restricted" => Self::Restricted,
            "knock_restricted" => Self::KnockRestricted,
            "private" => Self::Private,
            _ => Self::Unknown,
        }
    }

    /// The value as in the event; empty for `Unknown`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Invite => "invite",
            Self::Knock => "knock",
            Self::Restricted => "restricted",
            Self::KnockRestricted => "knock_restricted",
            Self::Private => "private",
            Self::Unknown => "",
        }
    }

    /// The rule that a `m.room.join_rules` event sets.
    pub fn of(join_rules: &Pdu) -> Self {
        let value = join_rules.content().get("join_rule");
        value
            .and_then(Value::as_str)
            .map_or(Self::Unknown, Self::from_value)
    }
}

/// The room's creators and what else the create event decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Create {
    /// The sender; in v1-10 `content.creator`. None when a v1-10 event lacks it.
    pub creator: Option<String>,
    /// v12: `content.additional_creators`. Empty in other versions.
    pub additional_creators: Vec<String>,
    /// `content.m.federate`; true unless it says false.
    pub federate: bool,
    /// `content.type`.
    pub room_type: Option<String>,
}

impl Create {
    /// What the `m.room.create` event says.
    pub fn of(create: &Pdu) -> Self {
        let rules = create.version().rules();
        let string = |key: &str| {
            let value = create.content().get(key).and_then(Value::as_str);
            value.map(str::to_owned)
        };
        let additional = create.content().get("additional_creators");
        let additional = additional
            .filter(|_| rules.privileged_creators)
            .and_then(Value::as_array)
            .into_iter()
            .flatten();
        Self {
            creator: if rules.creator_is_sender {
                Some(create.sender().to_owned())
            } else {
                string("creator")
            },
            additional_creators: additional
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect(),
            federate: create.content().get("m.federate") != Some(&Value::Bool(false)),
            room_type: string("type"),
        }
    }

    /// Whether the user is a creator.
    pub fn is_creator(&self, user_id: &str) -> bool {
        self.creator.as_deref() == Some(user_id)
            || self
                .additional_creators
                .iter()
                .any(|creator| creator == user_id)
    }
}

/// The state that an event is authorised against. Only the entries that [`super::auth_types`] names are asked for, and
/// `m.room.create`, which must be there in every version.
pub trait AuthState {
    /// The event of this type and state key, if any.
    fn get(&self, event_type: &str, state_key: &str) -> Option<&Pdu>;

    /// The room's create event.
    fn create(&self) -> Option<&Pdu> {
        self.get("m.room.create", "")
    }
}

/// A handful of state events as an [`AuthState`]. Of two events for one type and state key the later one counts.
#[derive(Clone, Debug, Default)]
pub struct AuthEvents(SmallVec<[Pdu; 8]>);

impl AuthEvents {
    /// Sets the entry of `event`'s type and state key.
    pub fn insert(&mut self, event: Pdu) {
        let key = (event.event_type(), event.state_key());
        let slot = self
            .0
            .iter_mut()
            .find(|present| (present.event_type(), present.state_key()) == key);
        match slot {
            Some(slot) => *slot = event,
            None => self.0.push(event),
        }
    }

    /// The events, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &Pdu> {
        self.0.iter()
    }
}

impl FromIterator<Pdu> for AuthEvents {
    fn from_iter<I: IntoIterator<Item = Pdu>>(events: I) -> Self {
        let mut state = Self::default();
        for event in events {
            state.insert(event);
        }
        state
    }
}

impl AuthState for AuthEvents {
    fn get(&self, event_type: &str, state_key: &str) -> Option<&Pdu> {
        self.0
            .iter()
            .find(|event| event.is_state(event_type, state_key))
    }
}

/// What an event is decoded to once and for all; see [`Pdu::decoded`].
pub(crate) enum Decoded {
    Create(Arc<Create>),
    /// None when the content is no set of power levels.
    PowerLevels(Option<Arc<Levels>>),
    Nothing,
}

impl Decoded {
    pub(crate) fn of(event: &Pdu) -> Self {
        match event.event_type() {
            "m.room.create" => Self::Create(Arc::new(Create::of(event))),
            "m.room.power_levels" => Self::PowerLevels(
                Levels::decode(event.version().rules(), event.content())
                    .ok()
                    .map(Arc::new),
            ),
            _ => Self::Nothing,
        }
    }
}
