//! Signing keys, signatures, and their verification. Spec: appendices, "Signing JSON"; server-server API, "Signing
//! events".

use std::{collections::BTreeMap, fmt, sync::Arc};

use arc_swap::ArcSwap;
use base64::Engine as _;
use myelin_types::{Millis, Random, random_string};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use serde_json::Value;

use crate::{
    Object, Pdu,
    canonical::{self, CanonicalError, Numbers},
    hash::{self, BASE64},
    limits,
    members::Members,
    version::EventIdFormat,
};

/// Signatures by server name and key identifier.
type Signatures = BTreeMap<String, BTreeMap<String, Value>>;

/// An ed25519 key with its identifier, such as `ed25519:a_AbCd`.
pub struct SigningKey {
    id: String,
    seed: [u8; 32],
    pair: Ed25519KeyPair,
}

/// The signing keys of the server `server_name`: the one it signs with, which can be replaced, and those of before.
pub struct Signer {
    server_name: String,
    keys: ArcSwap<Keys>,
}

#[derive(Debug)]
struct Keys {
    current: Arc<SigningKey>,
    old: Vec<OldKey>,
}

/// A key that a server signed with until it was replaced: its public half.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OldKey {
    /// The key identifier, `ed25519:<version>`.
    pub id: String,
    /// The public key.
    pub key: [u8; 32],
    /// Since when it no longer signs.
    pub expired: Millis,
}

/// Why a key file is not one.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyFileError {
    /// Not a line of three words.
    #[error("signing key file is not of the form `ed25519 <version> <base64 seed>`")]
    Form,
    /// The first word is not `ed25519`.
    #[error("signing key is not an ed25519 key")]
    Algorithm,
    /// The version has characters other than letters, digits and `_`.
    #[error("signing key version has illegal characters")]
    Version,
    /// The seed is not base64 of 32 bytes.
    #[error("signing key seed is not 32 bytes of base64")]
    Seed,
}

impl SigningKey {
    /// A new key; its version is `a_` and four random characters.
    pub fn generate(random: &dyn Random) -> Self {
        let mut seed = [0; 32];
        random.fill(&mut seed);
        Self::from_seed(&format!("a_{}", random_string(random, 4)), seed)
    }

    /// The key with this `version` (what follows `ed25519:`) and seed.
    pub fn from_seed(version: &str, seed: [u8; 32]) -> Self {
        Self {
            id: format!("ed25519:{version}"),
            seed,
            pair: Ed25519KeyPair::from_seed_unchecked(&seed)
                .expect("any 32 bytes are a seed of ed25519"),
        }
    }

    /// Reads the line `ed25519 <version> <base64 seed>`, the format that other homeservers write as well.
    pub fn from_file_format(text: &str) -> Result<Self, KeyFileError> {
        let mut words = text.split_whitespace();
        let (Some(algorithm), Some(version), Some(seed), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(KeyFileError::Form);
        };
        if algorithm != "ed25519" {
            return Err(KeyFileError::Algorithm);
        }
        if !version
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        {
            return Err(KeyFileError::Version);
        }
        let seed = BASE64.decode(seed).map_err(|_| KeyFileError::Seed)?;
        let seed = seed.try_into().map_err(|_| KeyFileError::Seed)?;
        Ok(Self::from_seed(version, seed))
    }

    /// The line that [`Self::from_file_format`] reads, with a line end. A secret.
    pub fn to_file_format(&self) -> String {
        let version = self.id.trim_start_matches("ed25519:");
        format!("ed25519 {version} {}\n", BASE64.encode(self.seed))
    }

    /// The key identifier, `ed25519:<version>`.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The public half, unpadded base64.
    pub fn public_key(&self) -> String {
        BASE64.encode(self.public_key_bytes())
    }

    /// The public half.
    pub fn public_key_bytes(&self) -> [u8; 32] {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(self.pair.public_key().as_ref());
        bytes
    }

    /// Signs `message`; unpadded base64.
    pub fn sign(&self, message: &[u8]) -> String {
        BASE64.encode(self.pair.sign(message))
    }
}

impl AsRef<SigningKey> for SigningKey {
    fn as_ref(&self) -> &SigningKey {
        self
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl Signer {
    /// `key` as a key of `server_name`.
    pub fn new(server_name: impl Into<String>, key: SigningKey) -> Self {
        Self::with_old(server_name, key, Vec::new())
    }

    /// The same, of a server that signed with other keys before.
    pub fn with_old(server_name: impl Into<String>, key: SigningKey, old: Vec<OldKey>) -> Self {
        let keys = Keys {
            current: Arc::new(key),
            old,
        };
        Self {
            server_name: server_name.into(),
            keys: ArcSwap::from_pointee(keys),
        }
    }

    /// The server that signs.
    pub fn server_name(&self) -> &str {
        &self.server_name
    }

    /// The key it signs with.
    pub fn key(&self) -> Arc<SigningKey> {
        Arc::clone(&self.keys.load().current)
    }

    /// The keys it signed with before.
    pub fn old_keys(&self) -> Vec<OldKey> {
        self.keys.load().old.clone()
    }

    /// Signs with `key` from now on. The key of before is returned as an old one that counts for what was sent until
    /// `expired`. Two replacements at once would lose a key: the caller makes them one after the other.
    pub fn replace(&self, key: SigningKey, expired: Millis) -> OldKey {
        let before = self.keys.load_full();
        let replaced = OldKey {
            id: before.current.id.clone(),
            key: before.current.public_key_bytes(),
            expired,
        };
        let mut old = before.old.clone();
        old.push(replaced.clone());
        self.keys.store(Arc::new(Keys {
            current: Arc::new(key),
            old,
        }));
        replaced
    }

    /// All of its keys, for verifying what it signed.
    pub fn verify_keys(&self) -> BTreeMap<String, VerifyKey> {
        let keys = self.keys.load();
        let old = keys.old.iter().map(|old| {
            let key = VerifyKey {
                key: old.key,
                valid_until: None,
                expired: Some(old.expired),
            };
            (old.id.clone(), key)
        });
        let current = VerifyKey {
            key: keys.current.public_key_bytes(),
            valid_until: None,
            expired: None,
        };
        // Last: the key it signs with is no old one, whatever is written down.
        old.chain([(keys.current.id.clone(), current)]).collect()
    }

    /// Adds this server's signature to `object`, beside those it has. Not for events: see [`crate::EventBuilder`].
    pub fn sign_json(&self, object: &mut Object) -> Result<(), CanonicalError> {
        let key = self.key();
        let signature = key.sign(signed_json_text(object)?.as_bytes());
        let signatures = object
            .entry("signatures")
            .or_insert_with(|| Value::Object(Object::new()));
        // What is there but not in the form of signatures is none, and gives way.
        let ours = object_of(signatures).entry(&self.server_name);
        let ours = ours.or_insert_with(|| Value::Object(Object::new()));
        object_of(ours).insert(key.id.clone(), signature.into());
        Ok(())
    }

    /// The text of `signatures` (canonical JSON) with this server's signature of `message` added.
    pub(crate) fn add_signature(&self, signatures: &str, message: &[u8]) -> String {
        let key = self.key();
        let signature = key.sign(message);
        with_signature(signatures, &self.server_name, &key.id, &signature)
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer")
            .field("server_name", &self.server_name)
            .field("key", &self.key())
            .finish_non_exhaustive()
    }
}

/// A server's public key and the time during which it counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerifyKey {
    /// The ed25519 public key.
    pub key: [u8; 32],
    /// `valid_until_ts`: after this the key does not count for events of room version 5 and later. The caller caps it
    /// at seven days from now.
    pub valid_until: Option<Millis>,
    /// `expired_ts` of an old key: after this it counts for no event.
    pub expired: Option<Millis>,
}

impl VerifyKey {
    fn counts_for(&self, event: &Pdu) -> bool {
        let sent = event.origin_server_ts();
        let enforced = event.version().rules().enforce_key_validity;
        self.expired.is_none_or(|expired| sent <= expired)
            && (!enforced || self.valid_until.is_none_or(|until| sent <= until))
    }
}

/// Public keys by server name and key identifier (`ed25519:...`).
pub type VerifyKeys = BTreeMap<String, BTreeMap<String, VerifyKey>>;

/// What a verified event turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verified {
    /// Signatures and content hash are right.
    Whole,
    /// Signatures are right, the content hash is not: go on with [`Pdu::redacted`].
    HashMismatch,
}

/// The identifier of every policy server's key in events. It is never published among a server's keys.
pub const POLICY_KEY_ID: &str = "ed25519:policy_server";

/// Whether the policy server `server` has signed `event` with this key, which the room's state names. Spec: "Validating
/// Policy Server signatures".
pub fn has_policy_signature(event: &Pdu, server: &str, key: &[u8; 32]) -> bool {
    let Some(members) = Members::of(event.json()) else {
        return false;
    };
    let signatures = members.get("signatures");
    let signatures: Option<Signatures> =
        signatures.and_then(|signatures| serde_json::from_str(signatures).ok());
    let signature = signatures
        .as_ref()
        .and_then(|signatures| signatures.get(server)?.get(POLICY_KEY_ID)?.as_str());
    let text = hash::signed_text(event.version(), event.json());
    match (signature, text) {
        (Some(signature), Ok(text)) => verify_one(key, text.as_bytes(), signature),
        _ => false,
    }
}

/// A public key from its base64.
pub fn public_key(text: &str) -> Option<[u8; 32]> {
    BASE64.decode(text).ok()?.try_into().ok()
}

/// The text of `signatures` (canonical JSON) with a signature added, or in the place of one.
pub(crate) fn with_signature(
    signatures: &str,
    server: &str,
    key_id: &str,
    signature: &str,
) -> String {
    let mut all: Signatures = serde_json::from_str(signatures).unwrap_or_default();
    all.entry(server.to_owned())
        .or_default()
        .insert(key_id.to_owned(), signature.into());
    let all = serde_json::to_value(all).expect("maps with string keys are JSON");
    canonical::to_string(&all, Numbers::Any).expect("signatures are not nested deeply")
}

/// Why an event or object is not validly signed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// The named server has no signature by a key that is known and counts.
    #[error("no signature of {0} by a known and valid key")]
    Unsigned(String),
    /// The named server's signature does not fit.
    #[error("signature of {0} does not verify")]
    Mismatch(String),
    /// The object cannot be read or has no canonical form.
    #[error("object cannot be verified")]
    Malformed,
}

/// Verifies that one server has signed an event, whether or not the rules require it. Says nothing of the content hash.
pub fn verify_signer(event: &Pdu, server: &str, keys: &VerifyKeys) -> Result<(), VerifyError> {
    let malformed = |_| VerifyError::Malformed;
    let members = Members::of(event.json()).ok_or(VerifyError::Malformed)?;
    let signatures = members.get("signatures").ok_or(VerifyError::Malformed)?;
    let signatures: Signatures =
        serde_json::from_str(signatures).map_err(|_| VerifyError::Malformed)?;
    let text = hash::signed_text(event.version(), event.json()).map_err(malformed)?;
    verify_event_signer(event, server, keys, &signatures, &text)
}

fn verify_event_signer(
    event: &Pdu,
    server: &str,
    keys: &VerifyKeys,
    signatures: &Signatures,
    text: &str,
) -> Result<(), VerifyError> {
    let known = keys.get(server);
    let key = |id: &str| {
        known?
            .get(id)
            .filter(|key| key.counts_for(event))
            .map(|key| key.key)
    };
    let of_server = signatures.get(server).into_iter().flatten();
    verify_signatures(of_server, key, text.as_bytes(), server)
}

/// Verifies the signatures that the event's room version requires, and then its content hash.
pub fn verify(event: &Pdu, keys: &VerifyKeys) -> Result<Verified, VerifyError> {
    let malformed = |_| VerifyError::Malformed;
    let members = Members::of(event.json()).ok_or(VerifyError::Malformed)?;
    let signatures = members.get("signatures").ok_or(VerifyError::Malformed)?;
    let signatures: Signatures =
        serde_json::from_str(signatures).map_err(|_| VerifyError::Malformed)?;
    let text = hash::signed_text(event.version(), event.json()).map_err(malformed)?;
    for server in required_signers(event) {
        verify_event_signer(event, &server, keys, &signatures, &text)?;
    }

    let hash = hash::content_hash(event.json()).map_err(malformed)?;
    let claimed: Object = members
        .get("hashes")
        .and_then(|hashes| serde_json::from_str(hashes).ok())
        .ok_or(VerifyError::Malformed)?;
    let claimed = claimed
        .get("sha256")
        .and_then(Value::as_str)
        .and_then(|claimed| BASE64.decode(claimed).ok());
    Ok(if claimed.is_some_and(|claimed| claimed == hash) {
        Verified::Whole
    } else {
        Verified::HashMismatch
    })
}

/// The servers that must have signed `event`: the sender's (unless a third-party invite, which another server may
/// send); in v1-2 that of the event ID; that of the authorising user of a restricted join.
pub fn required_signers(event: &Pdu) -> Vec<String> {
    let rules = event.version().rules();
    let mut servers = Vec::with_capacity(1);
    let mut require = |id: &str| {
        // An ID without a server is nobody's: the empty name has no keys, so the event does not verify.
        let server = limits::server_name_of(id).unwrap_or_default();
        if !servers.iter().any(|known| known == server) {
            servers.push(server.to_owned());
        }
    };
    let is_member = event.event_type() == "m.room.member";
    let content = |key: &str| event.content().get(key);
    let third_party = is_member
        && content("membership").and_then(Value::as_str) == Some("invite")
        && content("third_party_invite").is_some_and(Value::is_object);
    if !third_party {
        require(event.sender());
    }
    if rules.event_id == EventIdFormat::Opaque {
        require(event.event_id());
    }
    if rules.restricted
        && is_member
        && let Some(user) = content("join_authorised_via_users_server")
    {
        require(user.as_str().unwrap_or_default());
    }
    servers
}

/// Verifies that `server` signed `object` with one of `keys` (by key identifier). Not for events.
pub fn verify_json(
    object: &Object,
    server: &str,
    keys: &BTreeMap<String, [u8; 32]>,
) -> Result<(), VerifyError> {
    let text = signed_json_text(object).map_err(|_| VerifyError::Malformed)?;
    let signatures = object
        .get("signatures")
        .and_then(|signatures| signatures.get(server))
        .and_then(Value::as_object)
        .into_iter()
        .flatten();
    verify_signatures(
        signatures,
        |id| keys.get(id).copied(),
        text.as_bytes(),
        server,
    )
}

/// Verifies a signature (base64) of `message` by an ed25519 public key.
pub fn verify_one(key: &[u8], message: &[u8], signature: &str) -> bool {
    BASE64.decode(signature).is_ok_and(|signature| {
        UnparsedPublicKey::new(&ED25519, key)
            .verify(message, &signature)
            .is_ok()
    })
}

/// Verifies all signatures of one server whose keys are known; there must be one.
fn verify_signatures<'a>(
    signatures: impl Iterator<Item = (&'a String, &'a Value)>,
    key: impl Fn(&str) -> Option<[u8; 32]>,
    message: &[u8],
    server: &str,
) -> Result<(), VerifyError> {
    let mut signed = false;
    for (id, signature) in signatures {
        if !id.starts_with("ed25519:") {
            continue;
        }
        let Some(key) = key(id) else { continue };
        if !verify_one(&key, message, signature.as_str().unwrap_or_default()) {
            return Err(VerifyError::Mismatch(server.to_owned()));
        }
        signed = true;
    }
    if signed {
        Ok(())
    } else {
        Err(VerifyError::Unsigned(server.to_owned()))
    }
}

/// What is signed of an object that is no event.
pub(crate) fn signed_json_text(object: &Object) -> Result<String, CanonicalError> {
    let text = canonical::object_to_string(object, Numbers::Whole)?;
    Ok(hash::without(&text, &["signatures", "unsigned"]).expect("canonical JSON is readable"))
}

/// The object in `value`, which becomes one if it is not.
fn object_of(value: &mut Value) -> &mut Object {
    if !value.is_object() {
        *value = Value::Object(Object::new());
    }
    value.as_object_mut().expect("it was just made one")
}
