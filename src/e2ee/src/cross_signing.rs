//! Cross-signing keys. Spec: client-server API, "Cross-signing" and `POST /keys/device_signing/upload`.

use std::collections::BTreeSet;

use myelin_data::{
    RawJson,
    accounts::Devices,
    e2ee::{
        CrossSigningKeys, CrossSigningUsage, DeviceKeys, DeviceListChange, KeySignatures,
        record_change,
    },
};
use myelin_rules::{Object, sign::public_key};
use myelin_store::{Batch, Step, StoreError, View};
use myelin_types::UserNum;
use serde_json::Value;

use crate::{
    E2ee, Failure, Owner,
    query::public_key_of,
    signed::{self, ED25519, Signature},
};

/// The greatest cross-signing key, in bytes. What it holds is a key and few signatures.
const MAX_KEY: usize = 32 << 10;

/// The cross-signing keys that a user uploads.
#[derive(Clone, Debug, Default)]
pub struct SigningKeys {
    /// His identity.
    pub master: Option<RawJson>,
    /// What signs his devices.
    pub self_signing: Option<RawJson>,
    /// What signs other users' master keys.
    pub user_signing: Option<RawJson>,
}

/// Why cross-signing keys were not taken; none of them was.
#[derive(Debug, thiserror::Error)]
pub enum SigningKeysError {
    /// Keys that are there would be replaced or added to: the user has to prove first that it is he. (401)
    #[error("the user has to confirm the change")]
    Unconfirmed,
    /// The session has ended meanwhile. (`M_UNKNOWN_TOKEN`)
    #[error("there is no such device any more")]
    NoDevice,
    /// A key is not in the form that the specification gives it. (`M_BAD_JSON`)
    #[error("{0}")]
    Malformed(&'static str),
    /// A key is said to be that of another user, or for something else. (`M_INVALID_PARAM`)
    #[error("a key is that of another user, or for another use")]
    OtherKey,
    /// There is no master key that could have signed the others. (`M_MISSING_PARAM`)
    #[error("there is no master key")]
    NoMaster,
    /// The master key has not signed a key. (`M_INVALID_SIGNATURE`)
    #[error("a key is not signed by the master key")]
    BadSignature,
    /// One of the user's devices has a key's id. (`M_FORBIDDEN`)
    #[error("a key has the id of a device")]
    IdInUse,
    /// Our side failed.
    #[error(transparent)]
    Failed(#[from] Failure),
}
crate::failure::fails!(SigningKeysError);

/// All usages, in the order in which rows are read.
const USAGES: [CrossSigningUsage; 3] = [
    CrossSigningUsage::Master,
    CrossSigningUsage::SelfSigning,
    CrossSigningUsage::UserSigning,
];

/// A usage as the specification spells it.
const fn name(usage: CrossSigningUsage) -> &'static str {
    match usage {
        CrossSigningUsage::Master => "master",
        CrossSigningUsage::SelfSigning => "self_signing",
        CrossSigningUsage::UserSigning => "user_signing",
    }
}

/// A cross-signing key in the right form.
pub(crate) struct SigningKey {
    pub(crate) object: Object,
    /// The public key, in base64.
    pub(crate) public: String,
    pub(crate) bytes: [u8; 32],
}

impl SigningKey {
    fn read(
        owner: &Owner,
        usage: CrossSigningUsage,
        json: &RawJson,
    ) -> Result<Self, SigningKeysError> {
        let malformed = SigningKeysError::Malformed("a cross-signing key is malformed");
        let object = signed::object(json).filter(|_| json.get().len() <= MAX_KEY);
        let Some(mut object) = object else {
            return Err(malformed);
        };
        let usages = object.get("usage").and_then(Value::as_array);
        let (Some(user_id), Some(usages)) = (object.get("user_id"), usages) else {
            return Err(malformed);
        };
        let signatures = object.get("signatures");
        if signatures.is_some_and(|all| !all.is_object()) {
            return Err(malformed);
        }
        if user_id != owner.user_id.as_str() || !usages.iter().any(|of| of == name(usage)) {
            return Err(SigningKeysError::OtherKey);
        }
        object.remove("unsigned");
        Self::of(object).ok_or(SigningKeysError::Malformed(
            "a cross-signing key must have exactly one key, named by itself",
        ))
    }

    /// The key of an object; none if it is not exactly one, named by itself.
    pub(crate) fn of(object: Object) -> Option<Self> {
        let keys = object.get("keys")?.as_object()?;
        let public = public_key_of(&object).filter(|_| keys.len() == 1)?;
        if keys.values().next()? != public.as_str() {
            return None;
        }
        Some(Self {
            bytes: public_key(&public)?,
            public,
            object,
        })
    }

    /// The id by which signatures name it.
    pub(crate) fn id(&self) -> String {
        format!("{ED25519}{}", self.public)
    }
}

/// The cross-signing key of a user, if it is known.
pub(crate) fn signing_key(json: Option<&RawJson>) -> Result<Option<SigningKey>, StoreError> {
    let Some(json) = json else { return Ok(None) };
    let object = signed::stored(json, "cross_signing_keys")?;
    Ok(SigningKey::of(object))
}

/// The public keys of a user's cross-signing keys, which no device may have for its id.
pub(crate) fn public_keys(view: &View, user: UserNum) -> Result<BTreeSet<String>, StoreError> {
    let rows = USAGES.map(|usage| (user, usage));
    let mut keys = BTreeSet::new();
    for json in view.multi_get::<CrossSigningKeys>(&rows)? {
        keys.extend(signing_key(json.as_ref())?.map(|key| key.public));
    }
    Ok(keys)
}

impl E2ee {
    /// Keeps the cross-signing keys that a user uploads. `confirmed` says that he has proved to be himself, which he need
    /// not where he has no master key yet, or where nothing is new.
    pub async fn upload_signing_keys(
        &self,
        owner: Owner,
        keys: SigningKeys,
        confirmed: bool,
    ) -> Result<(), SigningKeysError> {
        let SigningKeys {
            master,
            self_signing,
            user_signing,
        } = keys;
        let mut read = Vec::new();
        for (usage, json) in USAGES.into_iter().zip([master, self_signing, user_signing]) {
            if let Some(json) = json {
                read.push((usage, SigningKey::read(&owner, usage, &json)?));
            }
        }
        self.0
            .store
            .change(move |view| take(view, &owner, &read, confirmed))
            .await
    }
}

fn take(
    view: &View,
    owner: &Owner,
    keys: &[(CrossSigningUsage, SigningKey)],
    confirmed: bool,
) -> Result<Step<()>, SigningKeysError> {
    let user = owner.user;
    let rows = USAGES.map(|usage| (user, usage));
    let stored = view.multi_get::<CrossSigningKeys>(&rows)?;
    let of = |usage: CrossSigningUsage| stored.get(usage as usize).and_then(Option::as_ref);
    let mut fresh = Vec::new();
    for (usage, key) in keys {
        let before = signing_key(of(*usage))?;
        let same =
            before.is_some_and(|before| signed::bare(&before.object) == signed::bare(&key.object));
        if !same {
            fresh.push((*usage, key));
        }
    }
    if fresh.is_empty() {
        return Ok(Step::nothing(()));
    }
    let given = |usage| keys.iter().find(|(of, _)| *of == usage).map(|(_, key)| key);
    let stored_master = signing_key(of(CrossSigningUsage::Master))?;
    let master = given(CrossSigningUsage::Master)
        .or(stored_master.as_ref())
        .ok_or(SigningKeysError::NoMaster)?;
    let (user_id, master_id) = (owner.user_id.as_str(), master.id());
    let is_signed = |object: &Object| {
        signed::signature(object, user_id, &master_id, &master.bytes) == Signature::Valid
    };
    let minor = |usage: &CrossSigningUsage| *usage != CrossSigningUsage::Master;
    if fresh
        .iter()
        .any(|(usage, key)| minor(usage) && !is_signed(&key.object))
    {
        return Err(SigningKeysError::BadSignature);
    }
    let mut batch = Batch::new();
    for (_, key) in &fresh {
        let device = (user, key.public.clone());
        if view.contains::<Devices>(&device)? {
            return Err(SigningKeysError::IdInUse);
        }
        batch.expect::<Devices>(&device, None);
    }
    if stored_master.is_some() && !confirmed {
        return Err(SigningKeysError::Unconfirmed);
    }
    let row = view.get::<Devices>(&owner.device())?;
    let row = row.ok_or(SigningKeysError::NoDevice)?;
    batch.expect::<Devices>(&owner.device(), Some(&row));
    for (row, before) in rows.iter().zip(&stored) {
        batch.expect::<CrossSigningKeys>(row, before.as_ref());
        let usage = row.1;
        if let Some((_, key)) = fresh.iter().find(|(of, _)| *of == usage) {
            let mut object = key.object.clone();
            let signatures = if minor(&usage) {
                own_signatures(&object, user_id, |id| id == master_id)
            } else {
                signatures_by_devices(view, owner, &object)?
            };
            signed::set_signatures(&mut object, user_id, signatures);
            batch.put::<CrossSigningKeys>(row, &signed::text(&object));
        } else if let Some(before) = before
            && minor(&usage)
            && !is_signed(&signed::stored(before, "cross_signing_keys")?)
        {
            // The master key that vouched for it is no longer the user's.
            batch.delete::<CrossSigningKeys>(row);
        }
    }
    let signer = of(CrossSigningUsage::UserSigning);
    let signer_goes = fresh
        .iter()
        .any(|(usage, _)| *usage != CrossSigningUsage::SelfSigning);
    if signer.is_some() && signer_goes {
        batch.delete_prefix::<KeySignatures>(&user);
    }
    record_change(view, &mut batch, user, [DeviceListChange::CrossSigning])?;
    Ok(Step::write(batch, ()))
}

/// The signatures of a user, by those keys that `takes` names.
fn own_signatures(object: &Object, user_id: &str, takes: impl Fn(&str) -> bool) -> Object {
    signed::signatures_of(object, user_id)
        .filter(|(id, _)| takes(id))
        .map(|(id, signature)| (id.clone(), signature.clone()))
        .collect()
}

/// The right signatures of a master key by its owner's devices.
pub(crate) fn signatures_by_devices(
    view: &View,
    owner: &Owner,
    object: &Object,
) -> Result<Object, StoreError> {
    let user_id = owner.user_id.as_str();
    let mut right = Object::new();
    for (id, signature) in signed::signatures_of(object, user_id) {
        let Some(device_id) = id.strip_prefix(ED25519) else {
            continue;
        };
        let keys = view.get::<DeviceKeys>(&(owner.user, device_id.to_owned()))?;
        let Some(keys) = keys else { continue };
        let keys = signed::stored(&keys, "device_keys")?;
        if let Some(key) = signed::ed25519_key(&keys, id)
            && signed::signature(object, user_id, id, &key) == Signature::Valid
        {
            right.insert(id.clone(), signature.clone());
        }
    }
    Ok(right)
}
