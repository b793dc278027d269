//! Signatures that users add to keys: of their own devices and identity, and of other users' identities.
//!
//! Spec: client-server API, `POST /keys/signatures/upload`.

use std::collections::BTreeMap;

use myelin_data::{
    RawJson,
    accounts::DatedJson,
    e2ee::{
        CrossSigningKeys, CrossSigningUsage, DeviceKeys, DeviceListChange, KeySignatures,
        record_change,
    },
    topic::Changed,
};
use myelin_rules::Object;
use myelin_store::{Batch, Scan, Step, StoreError, View};
use myelin_types::{Pos, UserNum};
use ruma::OwnedUserId;

use crate::{
    E2ee, Failure, Owner,
    cross_signing::{SigningKey, signatures_by_devices, signing_key},
    signed::{self, ED25519, Signature},
};

/// How many signed keys one request may bring: each costs a verification.
pub const MAX_SIGNED: usize = 256;
/// The most signatures of devices that a master key keeps.
const MAX_DEVICE_SIGNATURES: usize = 100;

/// A key with signatures that were added to it.
#[derive(Clone, Debug)]
pub struct SignedKey {
    /// Whose key.
    pub user_id: OwnedUserId,
    /// Its id: a device's id, or a public key in base64.
    pub key_id: String,
    /// The whole object.
    pub json: RawJson,
}

/// Why signatures of a key were not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureFailure {
    /// There is no such key, or the user has none to sign it with. (`M_NOT_FOUND`)
    #[error("there is no such key, or none to sign it with")]
    NoKey,
    /// The object is malformed, or not the one that is known by this id. (`M_BAD_JSON`)
    #[error("the signed object is not the key that is known")]
    OtherObject,
    /// There is no right signature by a key that may sign this. (`M_INVALID_SIGNATURE`)
    #[error("the signature is not valid")]
    Invalid,
}

/// Why a request with signatures was refused as a whole.
#[derive(Debug, thiserror::Error)]
pub enum SignaturesError {
    /// There are more than [`MAX_SIGNED`] keys. (`M_TOO_LARGE`)
    #[error("there are too many keys")]
    TooMany,
    /// Our side failed.
    #[error(transparent)]
    Failed(#[from] Failure),
}
crate::failure::fails!(SignaturesError);

type Failures = BTreeMap<OwnedUserId, BTreeMap<String, SignatureFailure>>;

impl E2ee {
    /// Keeps the signatures that a user made. Returns those that were not taken.
    pub async fn upload_signatures(
        &self,
        owner: Owner,
        keys: Vec<SignedKey>,
    ) -> Result<Failures, SignaturesError> {
        if keys.len() > MAX_SIGNED {
            return Err(SignaturesError::TooMany);
        }
        let e2ee = self.clone();
        self.0
            .store
            .change(move |view| Work::begin(view, &owner)?.take(&e2ee, &keys))
            .await
    }
}

/// What a request changes.
struct Work<'a> {
    view: &'a View,
    owner: &'a Owner,
    stored_master: Option<RawJson>,
    master: Option<SigningKey>,
    self_signing: Option<SigningKey>,
    user_signing: Option<SigningKey>,
    batch: Batch,
    changes: Vec<DeviceListChange>,
}

impl<'a> Work<'a> {
    fn begin(view: &'a View, owner: &'a Owner) -> Result<Self, StoreError> {
        let key = |usage| view.get::<CrossSigningKeys>(&(owner.user, usage));
        let stored_master = key(CrossSigningUsage::Master)?;
        Ok(Self {
            master: signing_key(stored_master.as_ref())?,
            self_signing: signing_key(key(CrossSigningUsage::SelfSigning)?.as_ref())?,
            user_signing: signing_key(key(CrossSigningUsage::UserSigning)?.as_ref())?,
            stored_master,
            view,
            owner,
            batch: Batch::new(),
            changes: Vec::new(),
        })
    }

    fn take(mut self, e2ee: &E2ee, keys: &[SignedKey]) -> Result<Step<Failures>, SignaturesError> {
        let mut failures = Failures::new();
        for key in keys {
            let taken = match signed::object(&key.json) {
                Some(object) if key.user_id == self.owner.user_id => {
                    self.take_own(&key.key_id, object)?
                }
                Some(object) => {
                    let interner = e2ee.0.rooms.interner();
                    match interner.find_user(self.view, &key.user_id)? {
                        Some(user) => self.take_others(user, &key.key_id, &object)?,
                        None => Err(SignatureFailure::NoKey),
                    }
                }
                None => Err(SignatureFailure::OtherObject),
            };
            if let Err(failure) = taken {
                failures
                    .entry(key.user_id.clone())
                    .or_default()
                    .insert(key.key_id.clone(), failure);
            }
        }
        let user = self.owner.user;
        if !self.changes.is_empty() {
            record_change(self.view, &mut self.batch, user, self.changes)?;
        }
        Ok(if self.batch.is_empty() {
            Step::nothing(failures)
        } else {
            // The keys that the signatures were checked against. Whoever ends the account expects this one too.
            self.batch.expect::<CrossSigningKeys>(
                &(user, CrossSigningUsage::Master),
                self.stored_master.as_ref(),
            );
            Step::write(self.batch, failures)
        })
    }

    fn take_own(
        &mut self,
        key_id: &str,
        object: Object,
    ) -> Result<Result<(), SignatureFailure>, StoreError> {
        let row = (self.owner.user, key_id.to_owned());
        if let Some(stored) = self.view.get::<DeviceKeys>(&row)? {
            return self.take_device(&row, &stored, &object);
        }
        match &self.master {
            Some(master) if master.public == key_id => self.take_master(object),
            _ => Ok(Err(SignatureFailure::NoKey)),
        }
    }

    /// One of the user's devices, signed by his self-signing key.
    fn take_device(
        &mut self,
        row: &(UserNum, String),
        stored: &RawJson,
        object: &Object,
    ) -> Result<Result<(), SignatureFailure>, StoreError> {
        let Some(signer) = &self.self_signing else {
            return Ok(Err(SignatureFailure::NoKey));
        };
        let mut device = signed::stored(stored, "device_keys")?;
        if signed::bare(&device) != signed::bare(object) {
            return Ok(Err(SignatureFailure::OtherObject));
        }
        let (user_id, id) = (self.owner.user_id.as_str(), signer.id());
        if signed::signature(object, user_id, &id, &signer.bytes) != Signature::Valid {
            return Ok(Err(SignatureFailure::Invalid));
        }
        // Its own signature, and this one: those of keys that were replaced say nothing any more.
        let own = format!("{ED25519}{}", row.1);
        let signatures = signed::signatures_of(&device, user_id)
            .filter(|(id, _)| **id == own)
            .chain(signed::signatures_of(object, user_id).filter(|(signed, _)| **signed == id))
            .map(|(id, signature)| (id.clone(), signature.clone()))
            .collect();
        signed::set_signatures(&mut device, user_id, signatures);
        let text = signed::text(&device);
        if text != *stored {
            self.batch.expect::<DeviceKeys>(row, Some(stored));
            self.batch.put::<DeviceKeys>(row, &text);
            self.changes.push(DeviceListChange::Device(row.1.clone()));
        }
        Ok(Ok(()))
    }

    /// The user's master key, signed by devices of his.
    fn take_master(&mut self, object: Object) -> Result<Result<(), SignatureFailure>, StoreError> {
        let Some(master) = &mut self.master else {
            return Ok(Err(SignatureFailure::NoKey));
        };
        if signed::bare(&master.object) != signed::bare(&object) {
            return Ok(Err(SignatureFailure::OtherObject));
        }
        let right = signatures_by_devices(self.view, self.owner, &object)?;
        if right.is_empty() {
            return Ok(Err(SignatureFailure::Invalid));
        }
        let user_id = self.owner.user_id.as_str();
        let mut signatures: Object = signed::signatures_of(&master.object, user_id)
            .map(|(id, signature)| (id.clone(), signature.clone()))
            .collect();
        signatures.extend(right);
        if signatures.len() > MAX_DEVICE_SIGNATURES {
            // Devices come and go; those that are still there may sign again.
            signatures = signatures_by_devices(self.view, self.owner, &object)?;
        }
        signed::set_signatures(&mut master.object, user_id, signatures);
        let text = signed::text(&master.object);
        if self.stored_master.as_ref() != Some(&text) {
            let row = (self.owner.user, CrossSigningUsage::Master);
            self.batch.put::<CrossSigningKeys>(&row, &text);
            self.changes.push(DeviceListChange::CrossSigning);
        }
        Ok(Ok(()))
    }

    /// Another user's master key, signed by the user-signing key.
    fn take_others(
        &mut self,
        user: UserNum,
        key_id: &str,
        object: &Object,
    ) -> Result<Result<(), SignatureFailure>, StoreError> {
        let row = (user, CrossSigningUsage::Master);
        let master = self.view.get::<CrossSigningKeys>(&row)?;
        let (Some(master), Some(signer)) = (signing_key(master.as_ref())?, &self.user_signing)
        else {
            return Ok(Err(SignatureFailure::NoKey));
        };
        if master.public != key_id {
            return Ok(Err(SignatureFailure::NoKey));
        }
        if signed::bare(&master.object) != signed::bare(object) {
            return Ok(Err(SignatureFailure::OtherObject));
        }
        let (user_id, id) = (self.owner.user_id.as_str(), signer.id());
        if signed::signature(object, user_id, &id, &signer.bytes) != Signature::Valid {
            return Ok(Err(SignatureFailure::Invalid));
        }
        let signatures: Object = signed::signatures_of(object, user_id)
            .filter(|(signed, _)| **signed == id)
            .map(|(id, signature)| (id.clone(), signature.clone()))
            .collect();
        let text = signed::text(&signatures);
        let signer = self.owner.user;
        let rows = self
            .view
            .scan::<KeySignatures>(Scan::prefix(&(signer, user)));
        let mut known = false;
        for row in rows {
            let (row, before) = row?;
            if row.2 == key_id && before.json == text {
                known = true;
            } else {
                // What was signed of a key that the other has no longer says nothing any more.
                self.batch.delete::<KeySignatures>(&row);
            }
        }
        if !known {
            let row = (signer, user, key_id.to_owned());
            let value = DatedJson {
                pos: Pos::AT_COMMIT,
                json: text,
            };
            self.batch.put::<KeySignatures>(&row, &value);
            self.batch.touch(Changed::KeySignatures(signer).into());
        }
        Ok(Ok(()))
    }
}
