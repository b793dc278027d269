//! Keys, signatures and hashes: the spec's vectors, and `ruma` as the oracle.

use std::collections::BTreeMap;

use myelin_rules::{
    AuthState, EventBuilder, EventRef, Pdu, RoomVersion, Signer, SigningKey, canonical, hash,
    sign::{
        KeyFileError, Verified, VerifyError, VerifyKey, VerifyKeys, required_signers, verify,
        verify_json,
    },
};
use myelin_types::{Millis, SeededRandom};
use ruma::{
    CanonicalJsonObject, RoomVersionId,
    serde::Base64,
    signatures::{PublicKeyMap, Verified as OracleVerified, verify_event},
};
use serde_json::{Value, json};

use crate::support::{MOD, OTHER, Room, USER, object, signer};

fn keys(signers: &[&Signer]) -> VerifyKeys {
    let mut keys = VerifyKeys::new();
    for signer in signers {
        let key = VerifyKey {
            key: signer.key().public_key_bytes(),
            valid_until: None,
            expired: None,
        };
        keys.entry(signer.server_name().to_owned())
            .or_default()
            .insert(signer.key().id().to_owned(), key);
    }
    keys
}

/// The event with a change that its signatures do not know of.
fn tampered(event: &Pdu, change: impl FnOnce(&mut Value)) -> Pdu {
    let mut json: Value = serde_json::from_str(event.json()).expect("events are JSON");
    change(&mut json);
    Pdu::from_object(event.version(), object(json)).expect("still an event")
}

#[test]
fn json_signing_vectors() {
    for (given, signature) in [
        (
            json!({}),
            "K8280/U9SSy9IVtjBuVeLr+HpOB4BQFWbg+UZaADMtTdGYI7Geitb76LTrr5QV/7Xg4ahLwYGYZzuHGZKM5ZAQ",
        ),
        (
            json!({ "one": 1, "two": "Two" }),
            "KqmLSbO39/Bzb0QIYE82zqLwsA+PDzYIpIRA2sRQ4sL53+sN6/fpNSoqE7BP7vBZhG6kYdD13EIMJpvhJI+6Bw",
        ),
    ] {
        let mut signed = object(given);
        let signer = signer("domain");
        signer
            .sign_json(&mut signed)
            .expect("numbers are canonical");
        assert_eq!(
            signed["signatures"],
            json!({ "domain": { "ed25519:1": signature } })
        );

        let keys = BTreeMap::from([("ed25519:1".to_owned(), signer.key().public_key_bytes())]);
        assert_eq!(verify_json(&signed, "domain", &keys), Ok(()));
        let unsigned = Err(VerifyError::Unsigned("other".to_owned()));
        assert_eq!(verify_json(&signed, "other", &keys), unsigned);
        signed.insert("unsigned".to_owned(), json!({ "age": 1 }));
        assert_eq!(verify_json(&signed, "domain", &keys), Ok(()));
        signed.insert("three".to_owned(), json!(3));
        let mismatch = Err(VerifyError::Mismatch("domain".to_owned()));
        assert_eq!(verify_json(&signed, "domain", &keys), mismatch);
    }
}

/// The spec's vectors are of room version 1, and not quite events of any.
#[test]
fn event_signing_vectors() {
    for (given, expected_hash, expected_signature) in [
        (
            json!({
                "room_id": "!x:domain", "sender": "@a:domain", "origin": "domain",
                "origin_server_ts": 1_000_000, "signatures": {}, "hashes": {}, "type": "X",
                "content": {}, "prev_events": [], "auth_events": [], "depth": 3,
                "unsigned": { "age_ts": 1_000_000 },
            }),
            "5jM4wQpv6lnBo7CLIghJuHdW+s2CMBJPUOGOC89ncos",
            "KxwGjPSDEtvnFgU00fwFz+l6d2pJM6XBIaMEn81SXPTRl16AqLAYqfIReFGZlHi5KLjAWbOoMszkwsQma+lYAg",
        ),
        (
            json!({
                "content": { "body": "Here is the message content" }, "event_id": "$0:domain",
                "origin": "domain", "origin_server_ts": 1_000_000, "type": "m.room.message",
                "room_id": "!r:domain", "sender": "@u:domain", "signatures": {},
                "unsigned": { "age_ts": 1_000_000 },
            }),
            "onLKD1bGljeBWQhWZ1kaP9SorVmRQNdN5aM2JYU2n/g",
            "Wm+VzmOUOz08Ds+0NTWb1d4CZrVsJSikkeRxh6aCcUwu6pNC78FunoD7KNWzqFn241eYHYMGCA5McEiVPdhzBA",
        ),
    ] {
        let text = |event: &Value| {
            canonical::to_string(event, canonical::Numbers::Strict).expect("canonical numbers")
        };
        let mut event = given;
        let content_hash = hash::content_hash(&text(&event)).expect("an object");
        let content_hash = Base64::<ruma::serde::base64::Standard, _>::new(content_hash).encode();
        assert_eq!(content_hash, expected_hash);
        event["hashes"] = json!({ "sha256": content_hash });

        // Signing the redacted form as plain JSON is what signing an event is.
        let redacted =
            myelin_rules::redact::redact(RoomVersion::V1, &text(&event)).expect("an event");
        let mut redacted = object(serde_json::from_str(&redacted).expect("JSON"));
        signer("domain")
            .sign_json(&mut redacted)
            .expect("canonical numbers");
        assert_eq!(
            redacted["signatures"]["domain"]["ed25519:1"],
            expected_signature
        );
    }
}

#[test]
fn our_events_verify_here_and_in_ruma() {
    for version in RoomVersion::ALL {
        let mut room = Room::peopled(version);
        let message = json!({ "body": "hello \"world\" \u{7f}\n", "n": [1, -2, null] });
        let create = room.state.create().cloned();
        let events = [
            create,
            Some(room.event(USER, "m.room.message", None, message)),
            Some(room.event(MOD, "m.room.name", Some(""), json!({ "name": "ä" }))),
            Some(room.build(
                USER,
                "m.room.redaction",
                None,
                json!({ "reason": "r" }),
                |event| {
                    event.redacts = Some(event.prev_events[0].event_id.clone());
                },
            )),
        ];
        let signer = signer("a.org");
        let keys = keys(&[&signer]);
        let rules = RoomVersionId::try_from(version.as_str())
            .expect("ruma knows the version")
            .rules()
            .expect("ruma knows its rules");
        let oracle_keys = PublicKeyMap::from([(
            "a.org".to_owned(),
            [(
                "ed25519:1".to_owned(),
                Base64::new(signer.key().public_key_bytes().to_vec()),
            )]
            .into(),
        )]);
        for event in events.into_iter().flatten() {
            assert_eq!(verify(&event, &keys), Ok(Verified::Whole), "{event:?}");
            assert_eq!(required_signers(&event), ["a.org"]);
            let json: CanonicalJsonObject = serde_json::from_str(event.json()).expect("canonical");
            let oracle = verify_event(&oracle_keys, &json, &rules).expect("ruma verifies it");
            assert!(matches!(oracle, OracleVerified::All));
            if version >= RoomVersion::V3 {
                let hash = ruma::signatures::reference_hash(&json, &rules).expect("ruma hashes it");
                assert_eq!(event.event_id(), format!("${hash}"));
            }
            // What was parsed from another server is what was built.
            let parsed =
                Pdu::parse(version, event.json().as_bytes()).expect("our events are events");
            assert_eq!(parsed.json(), event.json());
            assert_eq!(parsed.event_id(), event.event_id());
            assert_eq!(parsed.room_id(), event.room_id());
            assert_eq!(parsed.content(), event.content());
            assert_eq!(parsed.content_json(), event.content_json());
            assert_eq!(parsed.redacts(), event.redacts());
            assert_eq!(parsed.reference_hash(), event.reference_hash());
        }
    }
}

#[test]
fn a_redacted_event_verifies_but_for_its_hash() {
    for version in RoomVersion::ALL {
        let mut room = Room::peopled(version);
        let event = room.event(USER, "m.room.message", None, json!({ "body": "secret" }));
        let keys = keys(&[&signer("a.org")]);
        let redacted = event.redacted();
        assert!(!redacted.json().contains("secret"));
        assert_eq!(redacted.event_id(), event.event_id());
        assert_eq!(verify(&redacted, &keys), Ok(Verified::HashMismatch));

        let forged = tampered(&event, |json| json["content"]["body"] = json!("forged"));
        assert_eq!(verify(&forged, &keys), Ok(Verified::HashMismatch));
        assert_eq!(forged.event_id(), event.event_id());
    }
}

#[test]
fn changes_of_what_is_signed_are_noticed() {
    let mut room = Room::peopled(RoomVersion::V11);
    let event = room.event(USER, "m.room.message", None, json!({ "body": "b" }));
    let keys = keys(&[&signer("a.org")]);
    let mismatch = Err(VerifyError::Mismatch("a.org".to_owned()));
    let unsigned = Err(VerifyError::Unsigned("a.org".to_owned()));

    let moved = tampered(&event, |json| json["origin_server_ts"] = json!(1));
    assert_eq!(verify(&moved, &keys), mismatch);
    let garbled = tampered(&event, |json| {
        json["signatures"]["a.org"]["ed25519:1"] = json!("AAAA");
    });
    assert_eq!(verify(&garbled, &keys), mismatch);
    let not_a_string = tampered(&event, |json| {
        json["signatures"]["a.org"]["ed25519:1"] = json!(1);
    });
    assert_eq!(verify(&not_a_string, &keys), mismatch);
    let bare = tampered(&event, |json| json["signatures"] = json!({}));
    assert_eq!(verify(&bare, &keys), unsigned);
    let other_algorithm = tampered(&event, |json| {
        json["signatures"]["a.org"] = json!({ "rsa:1": "AAAA" });
    });
    assert_eq!(verify(&other_algorithm, &keys), unsigned);
    let unknown_key_too = tampered(&event, |json| {
        json["signatures"]["a.org"]["ed25519:policy"] = json!("AAAA");
    });
    assert_eq!(verify(&unknown_key_too, &keys), Ok(Verified::Whole));
    assert_eq!(verify(&event, &VerifyKeys::new()), unsigned);
}

#[test]
fn keys_count_for_their_time() {
    let sent = 1_000;
    let check = |version: RoomVersion, valid_until: Option<u64>, expired: Option<u64>| {
        let mut room = Room::peopled(version);
        let event = room.build(USER, "m.room.message", None, json!({}), |event| {
            event.origin_server_ts = Millis(sent);
        });
        let mut keys = keys(&[&signer("a.org")]);
        for key in keys.values_mut().flat_map(BTreeMap::values_mut) {
            key.valid_until = valid_until.map(Millis);
            key.expired = expired.map(Millis);
        }
        verify(&event, &keys).is_ok()
    };
    for version in RoomVersion::ALL {
        assert!(check(version, Some(sent), None));
        assert!(check(version, None, Some(sent)));
        assert!(!check(version, None, Some(sent - 1)));
        assert_eq!(
            check(version, Some(sent - 1), None),
            version < RoomVersion::V5
        );
    }
}

#[test]
fn which_servers_must_sign() {
    let restricted = json!({
        "membership": "join", "join_authorised_via_users_server": MOD,
    });
    for version in RoomVersion::ALL {
        let mut room = Room::peopled(version);
        let join = room.event(OTHER, "m.room.member", Some(OTHER), restricted.clone());
        let expected: &[&str] = if version >= RoomVersion::V8 || version <= RoomVersion::V2 {
            &["b.org", "a.org"]
        } else {
            &["b.org"]
        };
        assert_eq!(required_signers(&join), expected, "{version}");

        let third_party = json!({ "membership": "invite", "third_party_invite": { "signed": {} } });
        let invite = room.event(OTHER, "m.room.member", Some(USER), third_party);
        let expected: &[&str] = if version <= RoomVersion::V2 {
            &["a.org"]
        } else {
            &[]
        };
        assert_eq!(required_signers(&invite), expected, "{version}");
    }
}

#[test]
fn a_join_is_signed_by_both_servers() {
    let mut room = Room::peopled(RoomVersion::V12);
    let content = json!({ "membership": "join", "join_authorised_via_users_server": MOD });
    let ours = room.event(OTHER, "m.room.member", Some(OTHER), content);
    let other = Signer::new("b.org", SigningKey::generate(&SeededRandom::new(1)));
    let keys = keys(&[&signer("a.org"), &other]);
    assert_eq!(
        verify(&ours, &keys),
        Err(VerifyError::Unsigned("b.org".to_owned()))
    );
    let both = ours.countersigned(&other);
    assert_eq!(both.event_id(), ours.event_id());
    assert_eq!(verify(&both, &keys), Ok(Verified::Whole));
    assert_eq!(
        Pdu::parse(RoomVersion::V12, both.json().as_bytes())
            .expect("an event")
            .json(),
        both.json()
    );
}

#[test]
fn key_files() {
    let key = SigningKey::generate(&SeededRandom::new(7));
    let again = SigningKey::from_file_format(&key.to_file_format()).expect("it was just written");
    assert_eq!(again.id(), key.id());
    assert_eq!(again.public_key(), key.public_key());
    assert!(key.id().starts_with("ed25519:a_") && key.id().len() == 14);
    assert_eq!(
        signer("domain").key().public_key(),
        "XGX0JRS2Af3be3knz2fBiRbApjm2Dh61gXDJA8kcJNI"
    );

    let seed = "A".repeat(43);
    for (text, expected) in [
        (String::new(), KeyFileError::Form),
        ("ed25519 a".to_owned(), KeyFileError::Form),
        (format!("ed25519 a {seed} b"), KeyFileError::Form),
        (format!("rsa a {seed}"), KeyFileError::Algorithm),
        (format!("ed25519 a:b {seed}"), KeyFileError::Version),
        ("ed25519 a AAAA".to_owned(), KeyFileError::Seed),
        (format!("ed25519 a !{seed}"), KeyFileError::Seed),
    ] {
        let read = SigningKey::from_file_format(&text).err();
        assert_eq!(read, Some(expected), "{text:?}");
    }
}

#[test]
fn debug_output_has_no_secrets() {
    let signer = signer("a.org");
    let shown = format!("{signer:?} {:?}", signer.key());
    assert!(shown.contains("ed25519:1"));
    assert!(!shown.contains("YJDB") && !shown.contains("seed") && !shown.contains("96, 144"));
}

#[test]
fn old_rooms_get_opaque_ids_and_paired_references() {
    let mut room = Room::peopled(RoomVersion::V2);
    let event = room.event(USER, "m.room.message", None, json!({}));
    assert!(event.event_id().starts_with('$') && event.event_id().ends_with(":a.org"));
    let json: Value = serde_json::from_str(event.json()).expect("events are JSON");
    assert_eq!(json["event_id"], event.event_id());
    assert!(json["prev_events"][0][1]["sha256"].is_string());
    assert_eq!(event.prev_events().count(), 1);

    let without_hash = EventBuilder {
        room_id: Some("!room:a.org".to_owned()),
        sender: USER.to_owned(),
        event_type: "x".to_owned(),
        state_key: None,
        content: object(json!({})),
        redacts: None,
        prev_events: vec![EventRef::id("$a:a.org")],
        auth_events: vec![],
        depth: 1,
        origin_server_ts: Millis(1),
    };
    // As Synapse has them. Who is handed such references to draw up an event from hands them on.
    let built = without_hash.sign(RoomVersion::V2, &signer("a.org"));
    let built = built.expect("the event is well formed");
    let json: Value = serde_json::from_str(built.json()).expect("events are JSON");
    assert_eq!(json["prev_events"], json!([["$a:a.org", {}]]));
    let entry = EventRef::from_entry(RoomVersion::V2, &json["prev_events"][0]);
    assert_eq!(entry, Some(EventRef::id("$a:a.org")));
    assert_eq!(built.prev_events().collect::<Vec<_>>(), ["$a:a.org"]);
    let read = Pdu::parse(RoomVersion::V2, built.json().as_bytes());
    assert_eq!(read.expect("others take it").json(), built.json());
}
