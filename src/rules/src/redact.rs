//! Redaction: what is left of an event of each version. Spec: client-server API, "Redactions", and each room version.

use serde_json::Value;

use crate::{
    Object, ParseError, RoomVersion,
    members::{Members, ObjectWriter, Text},
    version::RedactionRules,
};

/// Whether a redaction leaves a member of an object.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Kept,
    Dropped,
    /// Kept as an object in which only `signed` is left.
    OnlySigned,
}

impl From<bool> for Fate {
    fn from(kept: bool) -> Self {
        if kept { Self::Kept } else { Self::Dropped }
    }
}

/// The redacted form of an event in canonical JSON, as canonical JSON. `unsigned` is gone as well.
pub fn redact(version: RoomVersion, event: &str) -> Result<String, ParseError> {
    // Nothing is called like this.
    redact_without(version, event, "")
}

/// The redacted form of an event, without the member `key`.
pub(crate) fn redact_without(
    version: RoomVersion,
    event: &str,
    key: &str,
) -> Result<String, ParseError> {
    let rules = version.rules().redaction;
    let members = Members::of(event).ok_or(ParseError::Malformed("event"))?;
    let event_type = members.get("type").ok_or(ParseError::Missing("type"))?;
    let event_type: Text<'_> =
        serde_json::from_str(event_type).map_err(|_| ParseError::Malformed("type"))?;
    let mut redacted = ObjectWriter::with_capacity(event.len());
    for (name, value) in members.iter() {
        if name == key || !survives(rules, name) {
            continue;
        }
        if name == "content" {
            write_content(rules, &event_type.0, value, redacted.key(name))?;
        } else {
            redacted.raw(name, value);
        }
    }
    Ok(redacted.finish())
}

/// What a redaction leaves of the content of an event of `event_type`.
pub fn redact_content(version: RoomVersion, event_type: &str, content: &Object) -> Object {
    let rules = version.rules().redaction;
    content
        .iter()
        .filter_map(|(key, value)| {
            let left = match (content_fate(rules, event_type, key), value) {
                (Fate::Kept, value) => value.clone(),
                (Fate::OnlySigned, Value::Object(invite)) => invite
                    .get("signed")
                    .map(|signed| ("signed".to_owned(), signed.clone()))
                    .into_iter()
                    .collect::<Object>()
                    .into(),
                (Fate::OnlySigned | Fate::Dropped, _) => return None,
            };
            Some((key.clone(), left))
        })
        .collect()
}

fn write_content(
    rules: RedactionRules,
    event_type: &str,
    content: &str,
    out: &mut String,
) -> Result<(), ParseError> {
    let members = Members::of(content).ok_or(ParseError::Malformed("content"))?;
    let mut redacted = ObjectWriter::with_capacity(64);
    for (key, value) in members.iter() {
        match content_fate(rules, event_type, key) {
            Fate::Kept => redacted.raw(key, value),
            Fate::Dropped => {}
            Fate::OnlySigned => {
                let Some(invite) = Members::of(value) else {
                    continue;
                };
                let mut kept = ObjectWriter::with_capacity(value.len());
                if let Some(signed) = invite.get("signed") {
                    kept.raw("signed", signed);
                }
                redacted.raw(key, &kept.finish());
            }
        }
    }
    out.push_str(&redacted.finish());
    Ok(())
}

fn survives(rules: RedactionRules, key: &str) -> bool {
    match key {
        "event_id" | "type" | "room_id" | "sender" | "state_key" | "content" | "hashes"
        | "signatures" | "depth" | "prev_events" | "auth_events" | "origin_server_ts" => true,
        "prev_state" | "origin" | "membership" => rules.historical_top_level,
        _ => false,
    }
}

fn content_fate(rules: RedactionRules, event_type: &str, key: &str) -> Fate {
    match (event_type, key) {
        ("m.room.member", "membership")
        | ("m.room.join_rules", "join_rule")
        | ("m.room.history_visibility", "history_visibility")
        | ("m.room.create", "creator")
        | (
            "m.room.power_levels",
            "ban" | "events" | "events_default" | "kick" | "redact" | "state_default" | "users"
            | "users_default",
        ) => Fate::Kept,
        ("m.room.member", "join_authorised_via_users_server") => {
            rules.member_authorising_user.into()
        }
        ("m.room.member", "third_party_invite") if rules.member_third_party_signed => {
            Fate::OnlySigned
        }
        ("m.room.create", _) => rules.create_whole.into(),
        ("m.room.join_rules", "allow") => rules.join_rules_allow.into(),
        ("m.room.power_levels", "invite") => rules.power_levels_invite.into(),
        ("m.room.redaction", "redacts") => rules.redaction_redacts.into(),
        ("m.room.aliases", "aliases") => rules.aliases.into(),
        _ => Fate::Dropped,
    }
}
