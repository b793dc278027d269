//! Hostile input: whatever comes is read or refused, and what was read holds together.

use std::str::FromStr;

use myelin_rules::{
    Pdu, RoomVersion, SigningKey, canonical, hash, limits, push::Ruleset, redact, sign,
};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::{
    canonical_json,
    support::{Room, USER, object},
};

fn version() -> impl Strategy<Value = RoomVersion> {
    prop::sample::select(&RoomVersion::ALL[..])
}

proptest! {
    #[test]
    fn bytes(version in version(), bytes in any::<Vec<u8>>()) {
        let _ = Pdu::parse(version, &bytes);
        let text = String::from_utf8_lossy(&bytes);
        let _ = Pdu::from_stored(version, "$x", &text);
        let _ = redact::redact(version, &text);
        let _ = hash::content_hash(&text);
        let _ = hash::reference_hash(version, &text);
        let _ = SigningKey::from_file_format(&text);
        let _ = RoomVersion::from_str(&text);
        let _ = serde_json::from_slice::<Ruleset>(&bytes);
    }

    #[test]
    fn identifiers(text in "[@#!$]?\\PC{0,20}(:\\PC{0,20})?(:[0-9]{0,6})?") {
        if let Some((localpart, server)) = limits::split_user_id(&text) {
            prop_assert_eq!(format!("@{localpart}:{server}"), text.clone());
            prop_assert!(limits::is_server_name(server));
            // The oracle draws the line between localparts at the same place.
            prop_assert!(ruma::UserId::parse(text.as_str()).is_ok());
        }
        if let Some((localpart, server)) = limits::split_room_alias(&text) {
            prop_assert_eq!(format!("#{localpart}:{server}"), text.clone());
            prop_assert!(ruma::RoomAliasId::parse(text.as_str()).is_ok());
        }
    }

    #[test]
    fn server_names(text in "(\\[[0-9a-f:.]{0,12}\\]|[a-zA-Z0-9.-]{0,12})(:[0-9]{0,6})?") {
        let ours = limits::is_server_name(&text);
        let theirs = ruma::ServerName::parse(text.as_str()).is_ok();
        // The oracle also takes dotted quads out of range for names, and measures ports by number.
        prop_assert!(!ours || theirs || text.contains(':'), "{}", text);
    }

    /// A real event in which one field was replaced by anything at all.
    #[test]
    fn events_with_an_odd_field(
        version in version(),
        field in prop::sample::select(vec![
            "auth_events", "content", "depth", "event_id", "hashes", "origin_server_ts", "prev_events", "redacts",
            "room_id", "sender", "signatures", "state_key", "type", "unsigned", "x",
        ]),
        value in canonical_json::value(),
        content in canonical_json::value(),
    ) {
        let mut room = Room::peopled(version);
        let event = room.event(USER, "m.room.member", Some(USER), json!({ "membership": "join", "more": content }));
        let mut json: Value = serde_json::from_str(event.json()).expect("events are JSON");
        json[field] = value;
        let text = json.to_string();
        let Ok(read) = Pdu::parse(version, text.as_bytes()) else { return Ok(()) };

        // What was read is canonical, and reads the same from the store.
        let again = canonical::object_to_string(&object(serde_json::from_str(read.json()).expect("JSON")), canonical::Numbers::Any);
        prop_assert_eq!(again.as_deref(), Ok(read.json()));
        let stored = Pdu::from_stored(version, read.event_id(), read.json()).expect("it was just read");
        prop_assert_eq!(stored.content(), read.content());
        prop_assert_eq!(stored.content_json(), read.content_json());
        let redacted = stored.redacted();
        prop_assert_eq!(redacted.event_id(), read.event_id());
        let client: Value = serde_json::from_str(&read.client_json(true, None)).expect("client events are JSON");
        prop_assert_eq!(&client["event_id"], read.event_id());
        let _ = sign::verify(&read, &sign::VerifyKeys::new());
        let _ = myelin_rules::auth::check(&read, &room.state);
    }
}
