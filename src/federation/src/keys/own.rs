//! This server's own keys, as it publishes them.

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use myelin_rules::{Object, Signer};
use myelin_types::Millis;
use serde_json::{Value, json};

use super::document::GREATEST_VALIDITY;

/// This server's keys, signed, as of `now`.
pub(super) fn document(signer: &Signer, now: Millis) -> Object {
    let key = signer.key();
    let old = signer.old_keys().into_iter().map(|old| {
        let value = json!({
            "key": STANDARD_NO_PAD.encode(old.key),
            "expired_ts": old.expired,
        });
        (old.id, value)
    });
    // The same identifier in both would be two statements about one key.
    let old: Object = old.filter(|(id, _)| id != key.id()).collect();
    let document = json!({
        "server_name": signer.server_name(),
        "verify_keys": { key.id(): { "key": key.public_key() } },
        "old_verify_keys": old,
        "valid_until_ts": now.0 + GREATEST_VALIDITY,
    });
    let Value::Object(mut document) = document else {
        unreachable!("it is written as an object above");
    };
    signer
        .sign_json(&mut document)
        .expect("strings and integers have a canonical form");
    document
}
