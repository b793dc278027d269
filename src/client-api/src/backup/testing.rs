//! What the tests of this family share.

use serde_json::{Value, json};

use crate::testing::{Server, User, text};

/// The algorithm of backups that tests make.
pub(super) const ALGORITHM: &str = "m.megolm_backup.v1.curve25519-aes-sha2";

/// Makes a backup; its version.
pub(super) async fn backup(server: &Server, user: &User) -> String {
    let body = json!({ "algorithm": ALGORITHM, "auth_data": { "public_key": "abc" } });
    text(&server.post("/room_keys/version", user, &body).await.ok()["version"])
}

/// A key that is the better, the smaller its index.
pub(super) fn key(first_message_index: u64) -> Value {
    json!({
        "first_message_index": first_message_index,
        "forwarded_count": 0,
        "is_verified": false,
        "session_data": { "ephemeral": "a", "ciphertext": first_message_index, "mac": "c" },
    })
}

/// Puts keys; the answer's body.
pub(super) async fn put(server: &Server, user: &User, path: &str, body: &Value) -> Value {
    server.put(path, user, body).await.ok()
}
