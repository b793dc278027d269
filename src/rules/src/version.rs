//! The room versions and what distinguishes them.
//!
//! Every difference between versions is a field of [`Rules`]; no other code compares version numbers.
//! Spec: "Room versions" (`/rooms`) and the page of each version.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A room version that this server supports. Ordered by age.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(
    missing_docs,
    reason = "each variant is the room version of that number"
)]
pub enum RoomVersion {
    V1,
    V2,
    V3,
    V4,
    V5,
    V6,
    V7,
    V8,
    V9,
    V10,
    V11,
    V12,
}

/// The string names no room version that this server supports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unsupported room version")]
pub struct UnsupportedVersion;

/// What an event ID is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventIdFormat {
    /// v1-2: `$opaque:server`, chosen by the sender's server and a field of the event.
    Opaque,
    /// v3: the reference hash in standard unpadded base64.
    Base64,
    /// v4 and later: the reference hash in URL-safe unpadded base64.
    UrlSafeBase64,
}

/// The algorithm that merges diverging states of a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is the algorithm of that number")]
pub enum StateResolution {
    V1,
    V2,
    V2_1,
}

/// Which numbers a `m.room.power_levels` event may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PowerLevelFormat {
    /// v1-9: integers, strings that hold an integer, and (where canonical JSON lets them pass, v1-5) floats.
    Historical,
    /// v10 and later: integers, everywhere, or the event is rejected.
    Integers,
}

/// What survives a redaction. Each field says which keys are kept in addition to those that every version keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RedactionRules {
    /// v1-10: `origin`, `membership` and `prev_state` at the top level.
    pub historical_top_level: bool,
    /// v1-5: `aliases` of `m.room.aliases`.
    pub aliases: bool,
    /// v8 and later: `allow` of `m.room.join_rules`.
    pub join_rules_allow: bool,
    /// v9 and later: `join_authorised_via_users_server` of `m.room.member`.
    pub member_authorising_user: bool,
    /// v11 and later: `third_party_invite.signed` of `m.room.member`.
    pub member_third_party_signed: bool,
    /// v11 and later: all of `m.room.create`; before that only `creator`.
    pub create_whole: bool,
    /// v11 and later: `invite` of `m.room.power_levels`.
    pub power_levels_invite: bool,
    /// v11 and later: `redacts` of `m.room.redaction`.
    pub redaction_redacts: bool,
}

/// Everything in which room versions differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// The version these rules belong to.
    pub version: RoomVersion,
    /// How events get their ID. [`EventIdFormat::Opaque`] also means that events carry `event_id` over federation and
    /// that `prev_events` and `auth_events` are pairs of ID and reference hash.
    pub event_id: EventIdFormat,
    /// v12: the room's ID is the create event's ID with the sigil `!`, the create event carries no `room_id`, and it
    /// is never among `auth_events`.
    pub room_id_is_create_hash: bool,
    /// v6 and later: events must be canonical JSON, or they are dropped.
    pub strict_canonical_json: bool,
    /// v11 and later: an event whose `type` or `state_key` has more than 255 bytes is dropped. In rooms of earlier versions
    /// servers in use took such events as long as they had at most 255 code points, so that the history of a room may lead
    /// through one: it is read, and rejected.
    pub strict_byte_limits: bool,
    /// Largest legal `depth`: 2^63-1 in v1-5, 2^53-1 since numbers must be canonical.
    pub max_depth: i64,
    /// How diverging states are merged.
    pub state_resolution: StateResolution,
    /// v5 and later: a signing key counts for an event only if it was valid at `origin_server_ts`.
    pub enforce_key_validity: bool,
    /// v1-5: `m.room.aliases` has its own authorisation rule.
    pub aliases_rule: bool,
    /// v1-2: authorisation decides about redactions; later versions decide when the redaction is applied.
    pub redaction_rule: bool,
    /// v6 and later: changes of `notifications` in power levels are checked like those of `events`.
    pub notifications_checked: bool,
    /// v7 and later: `knock` membership and join rule.
    pub knock: bool,
    /// v8 and later: `restricted` join rule.
    pub restricted: bool,
    /// v10 and later: `knock_restricted` join rule.
    pub knock_restricted: bool,
    /// The numbers that power levels may be made of.
    pub power_levels: PowerLevelFormat,
    /// v11 and later: the creator is the create event's sender; before that, `content.creator`.
    pub creator_is_sender: bool,
    /// v12: creators stand above every power level, and `additional_creators` are honoured.
    pub privileged_creators: bool,
    /// v11 and later: a redaction names its target in `content.redacts`; before that at the top level.
    pub redacts_in_content: bool,
    /// What survives a redaction.
    pub redaction: RedactionRules,
}

const REDACTION_V1: RedactionRules = RedactionRules {
    historical_top_level: true,
    aliases: true,
    join_rules_allow: false,
    member_authorising_user: false,
    member_third_party_signed: false,
    create_whole: false,
    power_levels_invite: false,
    redaction_redacts: false,
};
const REDACTION_V6: RedactionRules = RedactionRules {
    aliases: false,
    ..REDACTION_V1
};
const REDACTION_V8: RedactionRules = RedactionRules {
    join_rules_allow: true,
    ..REDACTION_V6
};
const REDACTION_V9: RedactionRules = RedactionRules {
    member_authorising_user: true,
    ..REDACTION_V8
};
const REDACTION_V11: RedactionRules = RedactionRules {
    historical_top_level: false,
    member_third_party_signed: true,
    create_whole: true,
    power_levels_invite: true,
    redaction_redacts: true,
    ..REDACTION_V9
};

const V1: Rules = Rules {
    version: RoomVersion::V1,
    event_id: EventIdFormat::Opaque,
    room_id_is_create_hash: false,
    strict_canonical_json: false,
    strict_byte_limits: false,
    max_depth: i64::MAX,
    state_resolution: StateResolution::V1,
    enforce_key_validity: false,
    aliases_rule: true,
    redaction_rule: true,
    notifications_checked: false,
    knock: false,
    restricted: false,
    knock_restricted: false,
    power_levels: PowerLevelFormat::Historical,
    creator_is_sender: false,
    privileged_creators: false,
    redacts_in_content: false,
    redaction: REDACTION_V1,
};
const V2: Rules = Rules {
    version: RoomVersion::V2,
    state_resolution: StateResolution::V2,
    ..V1
};
const V3: Rules = Rules {
    version: RoomVersion::V3,
    event_id: EventIdFormat::Base64,
    redaction_rule: false,
    ..V2
};
const V4: Rules = Rules {
    version: RoomVersion::V4,
    event_id: EventIdFormat::UrlSafeBase64,
    ..V3
};
const V5: Rules = Rules {
    version: RoomVersion::V5,
    enforce_key_validity: true,
    ..V4
};
const V6: Rules = Rules {
    version: RoomVersion::V6,
    strict_canonical_json: true,
    max_depth: crate::canonical::MAX_INTEGER,
    aliases_rule: false,
    notifications_checked: true,
    redaction: REDACTION_V6,
    ..V5
};
const V7: Rules = Rules {
    version: RoomVersion::V7,
    knock: true,
    ..V6
};
const V8: Rules = Rules {
    version: RoomVersion::V8,
    restricted: true,
    redaction: REDACTION_V8,
    ..V7
};
const V9: Rules = Rules {
    version: RoomVersion::V9,
    redaction: REDACTION_V9,
    ..V8
};
const V10: Rules = Rules {
    version: RoomVersion::V10,
    knock_restricted: true,
    power_levels: PowerLevelFormat::Integers,
    ..V9
};
const V11: Rules = Rules {
    version: RoomVersion::V11,
    strict_byte_limits: true,
    creator_is_sender: true,
    redacts_in_content: true,
    redaction: REDACTION_V11,
    ..V10
};
const V12: Rules = Rules {
    version: RoomVersion::V12,
    room_id_is_create_hash: true,
    state_resolution: StateResolution::V2_1,
    privileged_creators: true,
    ..V11
};

static RULES: [Rules; 12] = [V1, V2, V3, V4, V5, V6, V7, V8, V9, V10, V11, V12];

impl RoomVersion {
    /// The version of rooms whose creator asks for none.
    pub const DEFAULT: Self = Self::V12;

    /// Every supported version, oldest first. All are stable.
    pub const ALL: [Self; 12] = [
        Self::V1,
        Self::V2,
        Self::V3,
        Self::V4,
        Self::V5,
        Self::V6,
        Self::V7,
        Self::V8,
        Self::V9,
        Self::V10,
        Self::V11,
        Self::V12,
    ];

    /// What holds in rooms of this version.
    pub fn rules(self) -> &'static Rules {
        &RULES[self as usize]
    }

    /// The version's identifier, as in `m.room.create`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V1 => "1",
            Self::V2 => "2",
            Self::V3 => "3",
            Self::V4 => "4",
            Self::V5 => "5",
            Self::V6 => "6",
            Self::V7 => "7",
            Self::V8 => "8",
            Self::V9 => "9",
            Self::V10 => "10",
            Self::V11 => "11",
            Self::V12 => "12",
        }
    }
}

impl Default for RoomVersion {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl fmt::Display for RoomVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for RoomVersion {
    type Err = UnsupportedVersion;

    fn from_str(name: &str) -> Result<Self, UnsupportedVersion> {
        Self::ALL
            .into_iter()
            .find(|version| version.as_str() == name)
            .ok_or(UnsupportedVersion)
    }
}

impl Serialize for RoomVersion {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for RoomVersion {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Name;

        impl de::Visitor<'_> for Name {
            type Value = RoomVersion;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a supported room version")
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<RoomVersion, E> {
                name.parse().map_err(E::custom)
            }
        }

        deserializer.deserialize_str(Name)
    }
}

#[cfg(test)]
mod tests {
    use super::RoomVersion;

    #[test]
    fn every_version_has_its_own_rules_and_round_trips() {
        for version in RoomVersion::ALL {
            assert_eq!(version.rules().version, version);
            assert_eq!(version.as_str().parse(), Ok(version));
            let json = serde_json::to_string(&version).expect("a version serialises");
            assert_eq!(json, format!("\"{version}\""));
            assert_eq!(
                serde_json::from_str::<RoomVersion>(&json).expect("a version parses"),
                version
            );
        }
    }

    #[test]
    fn other_names_are_unsupported() {
        for name in ["", "0", "13", "01", " 1", "org.matrix.msc3757.10"] {
            assert!(name.parse::<RoomVersion>().is_err(), "{name:?}");
        }
    }
}
