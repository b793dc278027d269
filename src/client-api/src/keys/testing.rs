//! What clients sign, for the tests of the endpoints.

use myelin_rules::{Signer, SigningKey};
use serde_json::{Value, json};

use crate::testing::{Server, User};

/// A key that signs.
pub(crate) struct Pen {
    /// What follows the algorithm in its id.
    pub(crate) id: String,
    seed: [u8; 32],
}

impl Pen {
    /// The key of a device.
    pub(crate) fn of(user: &User, seed: u8) -> Pen {
        Pen {
            id: user.device.clone(),
            seed: [seed; 32],
        }
    }

    /// A cross-signing key, which is named by itself.
    pub(crate) fn identity(seed: u8) -> Pen {
        let seed = [seed; 32];
        let id = SigningKey::from_seed("", seed).public_key();
        Pen { id, seed }
    }

    /// Adds a signature of `user` to an object.
    pub(crate) fn sign(&self, user: &User, mut object: Value) -> Value {
        let key = SigningKey::from_seed(&self.id, self.seed);
        let fields = object.as_object_mut().expect("only objects are signed");
        let signer = Signer::new(user.id.clone(), key);
        signer.sign_json(fields).expect("it has a canonical form");
        object
    }

    /// The public half.
    pub(crate) fn public(&self) -> String {
        SigningKey::from_seed(&self.id, self.seed).public_key()
    }
}

/// The identity keys of a user's device.
pub(crate) fn device_keys(user: &User, pen: &Pen) -> Value {
    let keys = json!({
        "user_id": user.id,
        "device_id": user.device,
        "algorithms": ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"],
        "keys": {
            format!("ed25519:{}", user.device): pen.public(),
            format!("curve25519:{}", user.device): "JGLn/yafz74HB2AbPLYJWIVGnKAtqECOBf11yyXac2Y",
        },
    });
    pen.sign(user, keys)
}

/// A one-time key; `text` stands for the public key.
pub(crate) fn one_time_key(user: &User, pen: &Pen, text: &str) -> Value {
    pen.sign(user, json!({ "key": text }))
}

/// A cross-signing key, not signed yet.
pub(crate) fn signing_key(user: &User, usage: &str, pen: &Pen) -> Value {
    json!({
        "user_id": user.id,
        "usage": [usage],
        "keys": { format!("ed25519:{}", pen.id): pen.public() },
    })
}

impl Server {
    /// Uploads the identity keys of a user's device.
    pub(crate) async fn publish_keys(&self, user: &User, seed: u8) -> Value {
        let keys = device_keys(user, &Pen::of(user, seed));
        let body = json!({ "device_keys": keys });
        self.post("/keys/upload", user, &body).await.ok();
        keys
    }

    /// Who is in a section of `device_lists` of a sync since `since`; the next token.
    pub(crate) async fn lists_since(&self, user: &User, since: &str) -> (Value, String) {
        let sync = self.sync(user, &format!("since={since}")).await;
        let next = crate::testing::text(&sync["next_batch"]);
        (sync["device_lists"].clone(), next)
    }
}
