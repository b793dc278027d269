//! Which events authorise an event. Spec: server-server API, "Auth events selection".

use serde_json::Value;
use smallvec::{SmallVec, smallvec};

use super::Membership;
use crate::{Object, RoomVersion};

/// Type and state key of a state event.
pub type StateKey = (&'static str, String);

/// Which state events are the `auth_events` of an event with these fields, where the room has them.
///
/// Without `m.room.create` in v12; empty for that event itself.
pub fn auth_types(
    version: RoomVersion,
    event_type: &str,
    sender: &str,
    state_key: Option<&str>,
    content: &Object,
) -> SmallVec<[StateKey; 6]> {
    if event_type == "m.room.create" {
        return SmallVec::new();
    }
    let rules = version.rules();
    let mut types: SmallVec<[StateKey; 6]> = smallvec![
        ("m.room.power_levels", String::new()),
        ("m.room.member", sender.to_owned()),
    ];
    if !rules.room_id_is_create_hash {
        types.push(("m.room.create", String::new()));
    }
    let (true, Some(target)) = (event_type == "m.room.member", state_key) else {
        return types;
    };
    let mut add = |event_type: &'static str, state_key: &str| {
        let known = types
            .iter()
            .any(|(known_type, known_key)| *known_type == event_type && known_key == state_key);
        if !known {
            types.push((event_type, state_key.to_owned()));
        }
    };
    let string = |key: &str| content.get(key).and_then(Value::as_str);
    let membership = string("membership").and_then(Membership::from_value);

    add("m.room.member", target);
    if let Some(Membership::Join | Membership::Invite | Membership::Knock) = membership {
        add("m.room.join_rules", "");
    }
    if membership == Some(Membership::Invite)
        && let Some(invite) = content.get("third_party_invite")
        && let Some(token) = invite.pointer("/signed/token").and_then(Value::as_str)
    {
        add("m.room.third_party_invite", token);
    }
    if membership == Some(Membership::Join)
        && rules.restricted
        && let Some(user) = string("join_authorised_via_users_server")
    {
        add("m.room.member", user);
    }
    types
}
