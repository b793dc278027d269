//! Signed JSON as clients upload it. Spec: appendices, "Signing JSON".

use std::collections::BTreeMap;

use myelin_data::RawJson;
use myelin_rules::{
    Object,
    canonical::{self, Numbers},
    sign::{VerifyError, public_key, verify_json},
};
use myelin_store::StoreError;
use serde_json::Value;

/// The algorithm of all keys that sign, with the colon that follows it in a key's id.
pub(crate) const ED25519: &str = "ed25519:";

/// What an object says of a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signature {
    /// There is none by this key.
    Missing,
    /// There is one, and it is right.
    Valid,
    /// There is one, and it is wrong.
    Invalid,
}

/// Reads an object; none if it has no canonical form, so that nobody could have signed it.
pub(crate) fn object(json: &RawJson) -> Option<Object> {
    canonical::parse_object(json.get().as_bytes(), Numbers::Whole).ok()
}

/// Reads an object that was stored.
pub(crate) fn stored(json: &RawJson, table: &'static str) -> Result<Object, StoreError> {
    object(json).ok_or(StoreError::Missing(table))
}

/// The text of an object, to be stored.
pub(crate) fn text(object: &Object) -> RawJson {
    let text = canonical::object_to_string(object, Numbers::Whole)
        .expect("the object was read from what has a canonical form");
    let text = serde_json::value::RawValue::from_string(text);
    RawJson(text.expect("canonical JSON is JSON"))
}

/// What is signed of an object: everything but the signatures themselves and what servers add.
pub(crate) fn bare(object: &Object) -> Object {
    let mut bare = object.clone();
    bare.remove("signatures");
    bare.remove("unsigned");
    bare
}

/// What an object says of a signature of `user` by the key `id`.
pub(crate) fn signature(object: &Object, user: &str, id: &str, key: &[u8; 32]) -> Signature {
    match verify_json(object, user, &BTreeMap::from([(id.to_owned(), *key)])) {
        Ok(()) => Signature::Valid,
        Err(VerifyError::Unsigned(_)) => Signature::Missing,
        Err(VerifyError::Mismatch(_) | VerifyError::Malformed) => Signature::Invalid,
    }
}

/// The signatures of one user, by the id of the key.
pub(crate) fn signatures_of<'a>(
    object: &'a Object,
    user: &str,
) -> impl Iterator<Item = (&'a String, &'a Value)> {
    let all = object.get("signatures").and_then(|all| all.get(user));
    all.and_then(Value::as_object).into_iter().flatten()
}

/// Sets the signatures of an object to these of one user, by the id of the key.
pub(crate) fn set_signatures(object: &mut Object, user: &str, signatures: Object) {
    let mut all = Object::new();
    if !signatures.is_empty() {
        all.insert(user.to_owned(), signatures.into());
    }
    object.insert("signatures".to_owned(), all.into());
}

/// The ed25519 key of an object's `keys` with this id.
pub(crate) fn ed25519_key(object: &Object, id: &str) -> Option<[u8; 32]> {
    public_key(object.get("keys")?.get(id)?.as_str()?)
}
