//! A server's keys as it publishes them, and what its documents of all times come to.

use std::collections::BTreeMap;

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use myelin_data::federation::{PublishedKeys, SignedDocuments};
use myelin_rules::{
    Object,
    canonical::{self, Numbers},
    sign::{self, VerifyKey},
};
use myelin_types::Millis;
use ruma::OwnedServerName;
use serde_json::Value;

use super::KeyError;

/// Base64 as it is read, with or without padding (appendices, "Unpadded Base64").
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);
const DAY: u64 = 24 * 60 * 60 * 1000;
/// The longest time for which a key counts after it was fetched.
pub(super) const GREATEST_VALIDITY: u64 = 7 * DAY;
/// How many keys of a kind a server may have.
const MOST_KEYS: usize = 100;
/// How many documents of a server are kept.
const MOST_DOCUMENTS: usize = 4;
/// The longest key identifier.
const LONGEST_ID: usize = 255;

/// A document that its server signed.
#[derive(Clone, Debug)]
pub(crate) struct Document {
    /// Whose keys they are.
    pub(crate) server: OwnedServerName,
    /// Until when the server itself says that they count.
    pub(crate) valid_until: Millis,
    current: BTreeMap<String, [u8; 32]>,
    old: BTreeMap<String, ([u8; 32], Millis)>,
    object: Object,
}

/// Where a document came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum From {
    /// The server itself: it is as things are now.
    Owner,
    /// A notary: it may be of another time.
    Notary,
}

impl Document {
    /// Reads a document and checks that it is signed by one of the keys that it publishes.
    pub(crate) fn read(body: &[u8]) -> Result<Self, KeyError> {
        let object = canonical::parse_object(body, Numbers::Whole)
            .map_err(|_| KeyError::Malformed("not JSON"))?;
        Self::of(object)
    }

    /// The same of what is JSON already.
    pub(crate) fn of(object: Object) -> Result<Self, KeyError> {
        let server = object.get("server_name").and_then(Value::as_str);
        let server = server
            .and_then(|name| OwnedServerName::try_from(name).ok())
            .ok_or(KeyError::Malformed("without a server's name"))?;
        let valid_until = object
            .get("valid_until_ts")
            .and_then(Value::as_u64)
            .ok_or(KeyError::Malformed("without `valid_until_ts`"))?;
        let keys_in = |field: &str| {
            let keys = object.get(field).and_then(Value::as_object);
            keys.into_iter().flatten().filter_map(|(id, value)| {
                let known = id.starts_with("ed25519:") && id.len() <= LONGEST_ID;
                let key = value.get("key").and_then(Value::as_str)?;
                let key: [u8; 32] = BASE64.decode(key).ok()?.try_into().ok()?;
                known.then(|| (id.clone(), key, value))
            })
        };
        let current: BTreeMap<String, [u8; 32]> = keys_in("verify_keys")
            .map(|(id, key, _)| (id, key))
            .take(MOST_KEYS)
            .collect();
        sign::verify_json(&object, server.as_str(), &current)
            .map_err(|_| KeyError::Malformed("not signed by the server's keys"))?;
        let old = keys_in("old_verify_keys")
            .filter(|(id, ..)| !current.contains_key(id))
            .filter_map(|(id, key, value)| {
                let expired = value.get("expired_ts").and_then(Value::as_u64)?;
                Some((id, (key, Millis(expired))))
            })
            .take(MOST_KEYS)
            .collect();
        Ok(Self {
            server,
            valid_until: Millis(valid_until),
            current,
            old,
            object,
        })
    }

    /// Whether the notary signed it with one of these keys.
    pub(crate) fn is_signed_by(&self, notary: &str, keys: &PublishedKeys) -> bool {
        let keys = keys.current.iter().cloned().collect();
        sign::verify_json(&self.object, notary, &keys).is_ok()
    }

    /// What is known of the server's keys with this document and all before it.
    ///
    /// A key that a newer document no longer speaks of goes on counting for the time of the older one, so that neither a
    /// server that forgets its old keys nor a mistaken answer makes its events unverifiable.
    pub(crate) fn fold_into(
        &self,
        known: Option<&PublishedKeys>,
        from: From,
        now: Millis,
    ) -> PublishedKeys {
        let until = Millis(self.valid_until.0.min(now.0 + GREATEST_VALIDITY));
        let empty = PublishedKeys::default();
        let known_or = known.unwrap_or(&empty);
        let newest = from == From::Owner || self.valid_until >= known_or.promised;
        let mut past: BTreeMap<String, ([u8; 32], Millis)> = BTreeMap::new();
        let mut add_past = |id: &String, key: [u8; 32], until: Millis| {
            let entry = past.entry(id.clone()).or_insert((key, until));
            if entry.1 < until {
                *entry = (key, until);
            }
        };
        for (id, key, until) in &known_or.past {
            add_past(id, *key, *until);
        }
        if newest {
            for (id, key) in &known_or.current {
                add_past(id, *key, known_or.valid_until);
            }
        } else {
            for (id, key) in &self.current {
                add_past(id, *key, until);
            }
        }
        let mut keys = if newest {
            PublishedKeys {
                fetched: now,
                valid_until: until,
                current: self.current.clone().into_iter().collect(),
                promised: self.valid_until,
                ..PublishedKeys::default()
            }
        } else {
            PublishedKeys {
                fetched: now,
                ..known_or.clone()
            }
        };
        let mut old: BTreeMap<String, ([u8; 32], Millis)> = known_or
            .old
            .iter()
            .map(|(id, key, expired)| (id.clone(), (*key, *expired)))
            .collect();
        for (id, entry) in &self.old {
            if newest {
                old.insert(id.clone(), *entry);
            } else {
                old.entry(id.clone()).or_insert(*entry);
            }
        }
        let current = |id: &String| keys.current.iter().any(|(known, _)| known == id);
        old.retain(|id, _| !current(id));
        past.retain(|id, _| !current(id) && !old.contains_key(id));
        let list = |map: BTreeMap<String, ([u8; 32], Millis)>| {
            let keys = map.into_iter().map(|(id, (key, until))| (id, key, until));
            keys.take(MOST_KEYS).collect::<Vec<_>>()
        };
        (keys.old, keys.past) = (list(old), list(past));
        keys
    }

    /// The documents to keep when this one has come.
    pub(crate) fn add_to(&self, kept: &SignedDocuments, from: From) -> SignedDocuments {
        let text = canonical::object_to_string(&self.object, Numbers::Whole)
            .expect("it was read with the same rules");
        let mut documents: Vec<(Document, String)> = kept
            .texts
            .iter()
            .filter_map(|text| Some((Document::read(text.as_bytes()).ok()?, text.clone())))
            .collect();
        let before =
            |other: &Document| from == From::Notary && other.valid_until > self.valid_until;
        let at = documents.partition_point(|(other, _)| before(other));
        documents.insert(at, (self.clone(), text));
        let mut ids = std::collections::BTreeSet::new();
        documents.retain(|(document, _)| {
            // One that has no key of its own says nothing.
            let own: Vec<&String> = document.ids().filter(|id| !ids.contains(*id)).collect();
            let is_first = ids.is_empty();
            let says_something = is_first || !own.is_empty();
            let own: Vec<String> = own.into_iter().cloned().collect();
            ids.extend(own);
            says_something
        });
        SignedDocuments {
            texts: documents
                .into_iter()
                .map(|(_, text)| text)
                .take(MOST_DOCUMENTS)
                .collect(),
        }
    }

    /// The identifiers of the keys in it.
    pub(crate) fn ids(&self) -> impl Iterator<Item = &String> {
        self.current.keys().chain(self.old.keys())
    }

    /// The document as it was signed.
    pub(crate) fn into_object(self) -> Object {
        self.object
    }
}

/// Whether these keys have what is wanted: a key for a time.
pub(crate) fn has(keys: &PublishedKeys, key_id: &str, valid_at: Millis) -> bool {
    let is_wanted = |id: &String| id == key_id;
    keys.old.iter().any(|(id, ..)| is_wanted(id))
        || (valid_at <= keys.valid_until && keys.current.iter().any(|(id, _)| is_wanted(id)))
        || keys
            .past
            .iter()
            .any(|(id, _, until)| is_wanted(id) && valid_at <= *until)
}

/// The keys, each with the time for which it counts.
pub(crate) fn verify_keys(keys: &PublishedKeys) -> BTreeMap<String, VerifyKey> {
    let until = |(id, key, until): &(String, [u8; 32], Millis)| {
        let key = VerifyKey {
            key: *key,
            valid_until: Some(*until),
            expired: None,
        };
        (id.clone(), key)
    };
    let current = keys
        .current
        .iter()
        .map(|(id, key)| until(&(id.clone(), *key, keys.valid_until)));
    let old = keys.old.iter().map(|(id, key, expired)| {
        let key = VerifyKey {
            key: *key,
            valid_until: None,
            expired: Some(*expired),
        };
        (id.clone(), key)
    });
    keys.past
        .iter()
        .map(until)
        .chain(old)
        .chain(current)
        .collect()
}

#[cfg(test)]
mod tests {
    use myelin_rules::{Signer, SigningKey};
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const NOW: Millis = Millis(1_700_000_000_000);

    fn document(seed: u8, valid_until: u64, old: Value) -> Document {
        let key = SigningKey::from_seed(&seed.to_string(), [seed; 32]);
        let signer = Signer::new("there.example", key);
        let object = json!({
            "server_name": "there.example",
            "verify_keys": { signer.key().id(): { "key": signer.key().public_key() } },
            "old_verify_keys": old,
            "valid_until_ts": valid_until,
        });
        let mut object = object.as_object().expect("an object").clone();
        signer.sign_json(&mut object).expect("it can be signed");
        Document::of(object).expect("it is one")
    }

    #[test]
    fn a_key_that_is_no_longer_spoken_of_counts_for_its_time() {
        let first = document(1, NOW.0 + DAY, json!({}));
        let known = first.fold_into(None, From::Owner, NOW);
        let second = document(2, NOW.0 + 3 * DAY, json!({}));
        let later = Millis(NOW.0 + 2 * DAY);
        let known = second.fold_into(Some(&known), From::Owner, later);
        assert!(has(&known, "ed25519:2", later));
        assert!(has(&known, "ed25519:1", NOW));
        assert!(!has(&known, "ed25519:1", later));
        let keys = verify_keys(&known);
        assert_eq!(keys["ed25519:1"].valid_until, Some(Millis(NOW.0 + DAY)));
        assert_eq!(keys["ed25519:1"].expired, None);
    }

    #[test]
    fn an_older_document_of_a_notary_adds_and_takes_nothing_away() {
        let newest = document(2, NOW.0 + 30 * DAY, json!({}));
        let known = newest.fold_into(None, From::Owner, NOW);
        assert_eq!(known.valid_until, Millis(NOW.0 + 7 * DAY));
        let older = document(1, NOW.0 - DAY, json!({}));
        let folded = older.fold_into(Some(&known), From::Notary, NOW);
        assert_eq!(folded.current, known.current);
        assert_eq!(folded.valid_until, known.valid_until);
        assert!(has(&folded, "ed25519:1", Millis(NOW.0 - DAY)));
        assert!(!has(&folded, "ed25519:1", NOW));
        // In whatever order they come.
        let other = older.fold_into(None, From::Notary, NOW);
        let other = newest.fold_into(Some(&other), From::Notary, NOW);
        assert_eq!(other.current, known.current);
        assert!(has(&other, "ed25519:1", Millis(NOW.0 - DAY)));
    }

    #[test]
    fn an_old_key_ends_when_its_owner_says() {
        let key = SigningKey::from_seed("1", [1; 32]).public_key();
        let first = document(1, NOW.0 + DAY, json!({}));
        let known = first.fold_into(None, From::Owner, NOW);
        let old = json!({ "ed25519:1": { "key": key, "expired_ts": NOW.0 + 5 } });
        let second = document(2, NOW.0 + DAY, old);
        let known = second.fold_into(Some(&known), From::Owner, NOW);
        let keys = verify_keys(&known);
        assert_eq!(keys["ed25519:1"].expired, Some(Millis(NOW.0 + 5)));
        // A server that later forgets to say so does not make it count again.
        let third = document(2, NOW.0 + DAY, json!({}));
        let known = third.fold_into(Some(&known), From::Owner, NOW);
        assert_eq!(
            verify_keys(&known)["ed25519:1"].expired,
            Some(Millis(NOW.0 + 5))
        );
    }

    #[test]
    fn documents_are_kept_for_the_keys_that_only_they_have() {
        let mut kept = SignedDocuments::default();
        for (seed, until) in [(1, 10), (1, 20), (2, 30), (2, 40)] {
            kept = document(seed, until, json!({})).add_to(&kept, From::Owner);
        }
        let read = |kept: &SignedDocuments| -> Vec<u64> {
            let documents = kept
                .texts
                .iter()
                .map(|text| Document::read(text.as_bytes()));
            documents
                .map(|document| document.expect("it is kept").valid_until.0)
                .collect()
        };
        assert_eq!(read(&kept), [40, 20]);
        let kept = document(3, 35, json!({})).add_to(&kept, From::Notary);
        assert_eq!(read(&kept), [40, 35, 20]);
        let mut many = kept;
        for seed in 4..20 {
            many = document(seed, 100, json!({})).add_to(&many, From::Owner);
        }
        assert_eq!(many.texts.len(), MOST_DOCUMENTS);
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Document::read(&body);
        }

        #[test]
        fn any_change_of_a_document_is_noticed(field in "[a-z_]{1,12}", value: u32) {
            let mut object = document(1, 10, json!({})).into_object();
            prop_assume!(field != "signatures" && field != "unsigned");
            object.insert(field, value.into());
            prop_assert!(Document::of(object).is_err());
        }
    }
}
