//! Keys that a device uploads: its identity keys, one-time keys, fallback keys.
//!
//! Spec: client-server API, "Uploading keys" and `POST /keys/upload`.

mod new_device;

pub(crate) use new_device::NewDevice;

use std::collections::BTreeSet;

use myelin_data::{
    RawJson,
    accounts::{Device, Devices},
    e2ee::{
        DeviceIds, DeviceKeys, DeviceListChange, FallbackKey, FallbackKeys, KeyCount, KeyCounts,
        KeyedDevices, OneTimeKey, OneTimeKeyPlace, OneTimeKeyPlaces, OneTimeKeys, record_change,
    },
    topic::Changed,
};
use myelin_rules::Object;
use myelin_store::{Batch, Step, StoreError, View};
use myelin_types::Pos;
use ring::digest::{SHA256, digest};
use serde_json::Value;

use crate::{
    E2ee, Failure, Owner,
    cross_signing::public_keys,
    signed::{self, ED25519, Signature},
};

/// How many one-time keys one request may bring. Clients upload a hundred at most.
const MAX_IN_REQUEST: usize = 500;
/// How many one-time keys of a device are kept, over all algorithms.
const MAX_ONE_TIME_KEYS: u64 = 1_000;
/// For how many algorithms a device may have a fallback key.
const MAX_FALLBACK_KEYS: usize = 16;
/// The longest id of a key, the algorithm included.
const MAX_KEY_ID: usize = 255;
/// The greatest one-time or fallback key, in bytes.
const MAX_KEY: usize = 4 << 10;
/// The greatest object of identity keys, in bytes.
const MAX_DEVICE_KEYS: usize = 32 << 10;

/// What a device uploads.
#[derive(Clone, Debug, Default)]
pub struct KeyUpload {
    /// Its identity keys.
    pub device_keys: Option<RawJson>,
    /// One-time keys by their ids, `<algorithm>:<key id>`.
    pub one_time_keys: Vec<(String, RawJson)>,
    /// Fallback keys by their ids; at most one for each algorithm.
    pub fallback_keys: Vec<(String, RawJson)>,
}

/// Why keys were not taken; none of them was.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// The session has ended meanwhile. (`M_UNKNOWN_TOKEN`)
    #[error("there is no such device any more")]
    NoDevice,
    /// Something is not in the form that the specification gives it. (`M_BAD_JSON`)
    #[error("{0}")]
    Malformed(&'static str),
    /// The identity keys are said to be those of another user or device. (`M_INVALID_PARAM`)
    #[error("the keys are those of another device")]
    OtherDevice,
    /// A cross-signing key of the user has the device's id, so that the two would be taken for each other.
    /// (`M_FORBIDDEN`)
    #[error("the device has the id of a cross-signing key")]
    DeviceIdTaken,
    /// What claims to be signed by the device is not. (`M_INVALID_SIGNATURE`)
    #[error("a signature does not fit")]
    BadSignature,
    /// There is another one-time key of this id.
    #[error("there is another one-time key of this id")]
    KeyExists {
        /// The id.
        key_id: String,
        /// The key that is there.
        old: RawJson,
        /// The key that was to be put there.
        new: RawJson,
    },
    /// There would be too many keys. (`M_TOO_LARGE`)
    #[error("there are too many keys")]
    TooMany,
    /// A key or its id is too long. (`M_TOO_LARGE`)
    #[error("a key or its id is too long")]
    TooLarge,
    /// Our side failed.
    #[error(transparent)]
    Failed(#[from] Failure),
}
crate::failure::fails!(UploadError);

impl E2ee {
    /// Keeps the keys that a device uploads. Keys that are there already are no fault. Returns how many one-time keys the
    /// device has, by algorithm.
    pub async fn upload_keys(
        &self,
        owner: Owner,
        upload: KeyUpload,
    ) -> Result<Vec<(String, u64)>, UploadError> {
        let upload = Upload::read(&owner, upload)?;
        let _lock = self.0.locks.of([&owner.device()]).await;
        self.0
            .store
            .change(move |view| Work::begin(view, &owner)?.take(&upload))
            .await
    }
}

/// An upload in the right form.
struct Upload {
    identity: Option<Identity>,
    one_time: Vec<Key>,
    fallback: Vec<Key>,
}

/// Identity keys.
struct Identity {
    object: Object,
    /// The key that the device signs with.
    key: [u8; 32],
}

/// A one-time or fallback key.
struct Key {
    algorithm: String,
    /// What follows the algorithm in its id.
    id: String,
    /// Its object; none if it is a bare string.
    object: Option<Object>,
    json: RawJson,
}

impl Upload {
    fn read(owner: &Owner, upload: KeyUpload) -> Result<Self, UploadError> {
        if upload.one_time_keys.len() > MAX_IN_REQUEST
            || upload.fallback_keys.len() > MAX_FALLBACK_KEYS
        {
            return Err(UploadError::TooMany);
        }
        let read = |keys: Vec<(String, RawJson)>| {
            keys.into_iter()
                .map(|(id, json)| Key::read(&id, &json))
                .collect::<Result<Vec<_>, _>>()
        };
        let fallback = read(upload.fallback_keys)?;
        let algorithms: BTreeSet<&str> =
            fallback.iter().map(|key| key.algorithm.as_str()).collect();
        if algorithms.len() < fallback.len() {
            return Err(UploadError::Malformed(
                "there is more than one fallback key for an algorithm",
            ));
        }
        Ok(Self {
            identity: upload
                .device_keys
                .map(|keys| Identity::read(owner, &keys))
                .transpose()?,
            one_time: read(upload.one_time_keys)?,
            fallback,
        })
    }
}

impl Key {
    fn read(id: &str, json: &RawJson) -> Result<Self, UploadError> {
        let (algorithm, key_id) = id
            .split_once(':')
            .filter(|(algorithm, key_id)| !algorithm.is_empty() && !key_id.is_empty())
            .ok_or(UploadError::Malformed("a key's id lacks its algorithm"))?;
        if id.len() > MAX_KEY_ID || json.get().len() > MAX_KEY {
            return Err(UploadError::TooLarge);
        }
        let malformed = UploadError::Malformed("a one-time or fallback key is malformed");
        let (object, json) = match serde_json::from_str(json.get()) {
            Ok(Value::String(_)) if !algorithm.starts_with("signed_") => (None, json.clone()),
            Ok(Value::Object(_)) => {
                let Some(mut object) = signed::object(json) else {
                    return Err(malformed);
                };
                if !object.get("key").is_some_and(Value::is_string) {
                    return Err(malformed);
                }
                object.remove("unsigned");
                let text = signed::text(&object);
                (Some(object), text)
            }
            _ => return Err(malformed),
        };
        Ok(Self {
            algorithm: algorithm.to_owned(),
            id: key_id.to_owned(),
            object,
            json,
        })
    }

    fn whole_id(&self) -> String {
        format!("{}:{}", self.algorithm, self.id)
    }

    /// Whether it is the key that was stored as `json`. A key may be signed anew.
    fn is(&self, json: &RawJson) -> bool {
        match &self.object {
            None => self.json == *json,
            Some(object) => signed::object(json)
                .is_some_and(|stored| signed::bare(&stored) == signed::bare(object)),
        }
    }
}

impl Identity {
    fn read(owner: &Owner, json: &RawJson) -> Result<Self, UploadError> {
        if json.get().len() > MAX_DEVICE_KEYS {
            return Err(UploadError::TooLarge);
        }
        let mut object = signed::object(json).ok_or(UploadError::Malformed(
            "device_keys is no object that could be signed",
        ))?;
        let text = |field: &str| object.get(field).and_then(Value::as_str);
        let (Some(user_id), Some(device_id)) = (text("user_id"), text("device_id")) else {
            return Err(UploadError::Malformed(
                "device_keys lacks user_id or device_id",
            ));
        };
        if user_id != owner.user_id || device_id != owner.device_id {
            return Err(UploadError::OtherDevice);
        }
        let are_texts = |value: &Value| match value {
            Value::Array(values) => values.iter().all(Value::is_string),
            Value::Object(values) => values.values().all(Value::is_string),
            _ => false,
        };
        let in_form = |field: &str, form: fn(&Value) -> bool| object.get(field).is_some_and(form);
        let signed = object
            .get("signatures")
            .and_then(Value::as_object)
            .is_some_and(|all| all.values().all(|of| of.is_object() && are_texts(of)));
        if !in_form("algorithms", Value::is_array)
            || !in_form("keys", Value::is_object)
            || !["algorithms", "keys"]
                .iter()
                .all(|field| object.get(*field).is_some_and(are_texts))
            || !signed
        {
            return Err(UploadError::Malformed(
                "device_keys lacks algorithms, keys or signatures, or they are malformed",
            ));
        }
        let id = format!("{ED25519}{}", owner.device_id);
        let key = signed::ed25519_key(&object, &id).ok_or(UploadError::Malformed(
            "device_keys lacks the ed25519 key of the device",
        ))?;
        // Clients do not believe keys that the device has not signed, so that it is they whom a missing signature keeps from
        // being used; one that is there and wrong is a mistake that its sender should hear of.
        if signed::signature(&object, user_id, &id, &key) == Signature::Invalid {
            return Err(UploadError::BadSignature);
        }
        let user_id = user_id.to_owned();
        let own = signed::signatures_of(&object, &user_id)
            .map(|(id, signature)| (id.clone(), signature.clone()))
            .collect();
        signed::set_signatures(&mut object, &user_id, own);
        object.remove("unsigned");
        Ok(Self { object, key })
    }
}

/// The rows of a device, as they were and as they are to be.
struct Work<'a> {
    view: &'a View,
    owner: &'a Owner,
    device: (myelin_types::UserNum, String),
    row: Device,
    keys: Option<RawJson>,
    stored_count: Option<KeyCount>,
    count: KeyCount,
    batch: Batch,
    /// Whether the one-time keys of before are gone.
    begins_anew: bool,
    changed: bool,
}

impl<'a> Work<'a> {
    fn begin(view: &'a View, owner: &'a Owner) -> Result<Self, UploadError> {
        let device = owner.device();
        let row = view.get::<Devices>(&device)?.ok_or(UploadError::NoDevice)?;
        let stored_count = view.get::<KeyCounts>(&device)?;
        Ok(Self {
            keys: view.get::<DeviceKeys>(&device)?,
            count: stored_count.clone().unwrap_or_default(),
            view,
            owner,
            device,
            row,
            stored_count,
            batch: Batch::new(),
            begins_anew: false,
            changed: false,
        })
    }

    fn take(mut self, upload: &Upload) -> Result<Step<Vec<(String, u64)>>, UploadError> {
        let mut key = None;
        if let Some(identity) = &upload.identity {
            self.take_identity(identity)?;
            key = Some(identity.key);
        } else if let Some(keys) = &self.keys {
            let id = format!("{ED25519}{}", self.owner.device_id);
            key = signed::ed25519_key(&signed::stored(keys, "device_keys")?, &id);
        }
        if let Some(key) = key {
            check_signatures(self.owner, &upload.one_time, &key)?;
            check_signatures(self.owner, &upload.fallback, &key)?;
        }
        self.take_one_time_keys(&upload.one_time)?;
        self.take_fallback_keys(&upload.fallback)?;
        let counts = self.count.one_time.clone();
        if !self.changed {
            return Ok(Step::nothing(counts));
        }
        // A device that is deleted meanwhile must not leave keys behind.
        self.batch.expect::<Devices>(&self.device, Some(&self.row));
        let (before, after) = (self.stored_count.as_ref(), &self.count);
        self.batch.expect::<KeyCounts>(&self.device, before);
        if before != Some(after) {
            self.batch.put::<KeyCounts>(&self.device, after);
            self.batch.touch(Changed::KeyCounts(self.owner.user).into());
        }
        Ok(Step::write(self.batch, counts))
    }

    fn take_identity(&mut self, identity: &Identity) -> Result<(), UploadError> {
        let (user, device_id) = self.device.clone();
        let before = self
            .keys
            .as_ref()
            .map(|keys| signed::stored(keys, "device_keys"))
            .transpose()?;
        let mut object = identity.object.clone();
        if let Some(before) = &before {
            if signed::bare(before) == signed::bare(&object) {
                // What was signed since, as by the self-signing key, stays signed.
                let user_id = self.owner.user_id.as_str();
                let signatures = signed::signatures_of(before, user_id)
                    .chain(signed::signatures_of(&object, user_id))
                    .map(|(id, signature)| (id.clone(), signature.clone()))
                    .collect();
                signed::set_signatures(&mut object, user_id, signatures);
            }
            if before.get("keys") != object.get("keys") {
                self.begin_anew();
            }
        }
        let text = signed::text(&object);
        if self.keys.as_ref() == Some(&text) {
            return Ok(());
        }
        let taken = public_keys(self.view, user)?;
        if taken.contains(&device_id) {
            return Err(UploadError::DeviceIdTaken);
        }
        self.batch
            .expect::<DeviceKeys>(&self.device, self.keys.as_ref());
        self.batch.put::<DeviceKeys>(&self.device, &text);
        let keyed = self.view.get::<KeyedDevices>(&user)?;
        self.batch.expect::<KeyedDevices>(&user, keyed.as_ref());
        let mut keyed = keyed.unwrap_or_default();
        if !keyed.0.contains(&device_id) {
            keyed.0.push(device_id.clone());
            self.batch.put::<KeyedDevices>(&user, &DeviceIds(keyed.0));
        }
        let change = DeviceListChange::Device(device_id);
        record_change(self.view, &mut self.batch, user, [change])?;
        self.changed = true;
        Ok(())
    }

    /// Deletes the one-time and fallback keys that the device had with other identity keys: whoever claimed one would find
    /// it signed by a stranger, and the device could read nothing that was encrypted with it.
    fn begin_anew(&mut self) {
        self.batch.delete_prefix::<OneTimeKeys>(&self.device);
        self.batch.delete_prefix::<OneTimeKeyPlaces>(&self.device);
        self.batch.delete_prefix::<FallbackKeys>(&self.device);
        self.count = KeyCount::default();
        self.begins_anew = true;
        self.changed = true;
    }

    fn take_one_time_keys(&mut self, keys: &[Key]) -> Result<(), UploadError> {
        let (user, device_id) = (self.device.0, &self.device.1);
        let place_of = |key: &Key| {
            (
                user,
                device_id.clone(),
                key.algorithm.clone(),
                key.id.clone(),
            )
        };
        let places: Vec<_> = keys.iter().map(place_of).collect();
        let found = if self.begins_anew {
            vec![None; keys.len()]
        } else {
            self.view.multi_get::<OneTimeKeyPlaces>(&places)?
        };
        for (index, ((key, place), found)) in (0..).zip(keys.iter().zip(&places).zip(found)) {
            if let Some(found) = found {
                self.check_same(key, found)?;
                continue;
            }
            if self
                .count
                .handed_out
                .contains(&hash_of(key.whole_id(), &key.json))
            {
                continue;
            }
            let row = (
                user,
                device_id.clone(),
                key.algorithm.clone(),
                Pos::AT_COMMIT,
                index,
            );
            let value = OneTimeKey {
                key_id: key.id.clone(),
                key: key.json.clone(),
            };
            self.batch.put::<OneTimeKeys>(&row, &value);
            let value = OneTimeKeyPlace {
                pos: Pos::AT_COMMIT,
                index,
            };
            self.batch.put::<OneTimeKeyPlaces>(place, &value);
            count_up(&mut self.count.one_time, &key.algorithm);
            self.changed = true;
        }
        let total: u64 = self.count.one_time.iter().map(|(_, count)| count).sum();
        if total > MAX_ONE_TIME_KEYS {
            return Err(UploadError::TooMany);
        }
        Ok(())
    }

    fn check_same(&self, key: &Key, place: OneTimeKeyPlace) -> Result<(), UploadError> {
        let row = (
            self.device.0,
            self.device.1.clone(),
            key.algorithm.clone(),
            place.pos,
            place.index,
        );
        let stored = self
            .view
            .get::<OneTimeKeys>(&row)?
            .ok_or(StoreError::Missing("one_time_keys"))?;
        if key.is(&stored.key) {
            return Ok(());
        }
        Err(UploadError::KeyExists {
            key_id: key.whole_id(),
            old: stored.key,
            new: key.json.clone(),
        })
    }

    fn take_fallback_keys(&mut self, keys: &[Key]) -> Result<(), UploadError> {
        let (user, device_id) = (self.device.0, &self.device.1);
        for key in keys {
            let row = (user, device_id.clone(), key.algorithm.clone());
            let before = if self.begins_anew {
                None
            } else {
                self.view.get::<FallbackKeys>(&row)?
            };
            // The same key once more is no new one: if it was used, it stays used.
            if before.is_some_and(|before| before.key_id == key.id && key.is(&before.key)) {
                continue;
            }
            let value = FallbackKey {
                used: false,
                key_id: key.id.clone(),
                key: key.json.clone(),
            };
            self.batch.put::<FallbackKeys>(&row, &value);
            if !self.count.unused_fallback.contains(&key.algorithm) {
                self.count.unused_fallback.push(key.algorithm.clone());
            }
            self.changed = true;
        }
        if self.count.unused_fallback.len() > MAX_FALLBACK_KEYS {
            return Err(UploadError::TooMany);
        }
        Ok(())
    }
}

/// Refuses keys that say that `owner`'s device has signed them, and are wrong.
fn check_signatures(owner: &Owner, keys: &[Key], key: &[u8; 32]) -> Result<(), UploadError> {
    let user = owner.user_id.as_str();
    let id = format!("{ED25519}{}", owner.device_id);
    let invalid = keys
        .iter()
        .filter_map(|key| key.object.as_ref())
        .any(|object| signed::signature(object, user, &id, key) == Signature::Invalid);
    if invalid {
        return Err(UploadError::BadSignature);
    }
    Ok(())
}

fn count_up(counts: &mut Vec<(String, u64)>, algorithm: &str) {
    match counts.iter_mut().find(|(counted, _)| counted == algorithm) {
        Some((_, count)) => *count += 1,
        None => counts.push((algorithm.to_owned(), 1)),
    }
}

/// By what a one-time key is known after it was handed out.
pub(crate) fn hash_of(id: String, json: &RawJson) -> u64 {
    let mut text = id.into_bytes();
    text.push(0);
    text.extend_from_slice(json.get().as_bytes());
    let hash = digest(&SHA256, &text);
    let mut first = [0; 8];
    first.copy_from_slice(&hash.as_ref()[..8]);
    u64::from_be_bytes(first)
}
