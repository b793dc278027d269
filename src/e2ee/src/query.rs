//! The keys of local users, as they are shown to others. Spec: client-server API, `POST /keys/query`, and "Key and
//! signature security".

use std::collections::BTreeMap;

use myelin_data::{
    RawJson,
    accounts::{Accounts, Devices},
    e2ee::{CrossSigningKeys, CrossSigningUsage, DeviceKeys, KeySignatures, KeyedDevices},
};
use myelin_rules::Object;
use myelin_store::{StoreError, View};
use myelin_types::UserNum;
use ruma::OwnedUserId;
use serde_json::{Value, value::RawValue};

use crate::{
    E2ee,
    signed::{self, ED25519},
};

/// Whose keys are wanted: of these devices, or of all if none is named.
pub type WantedKeys = BTreeMap<OwnedUserId, Vec<String>>;

/// Keys of users, by their ids.
#[derive(Clone, Debug, Default)]
pub struct UserKeys {
    /// The identity keys of their devices, by device id, with the devices' names.
    pub device_keys: BTreeMap<OwnedUserId, BTreeMap<String, RawJson>>,
    /// Their master keys, with the signatures that the requester may see.
    pub master_keys: BTreeMap<OwnedUserId, RawJson>,
    /// Their self-signing keys.
    pub self_signing_keys: BTreeMap<OwnedUserId, RawJson>,
    /// The requester's own user-signing key.
    pub user_signing_keys: BTreeMap<OwnedUserId, RawJson>,
}

impl E2ee {
    /// The keys of those of the wanted users who have an account here. The others are passed over. `requester` is the local
    /// user who asks; none for other servers.
    ///
    /// However many users are asked for, each table is looked into once.
    pub fn local_keys(
        &self,
        view: &View,
        requester: Option<UserNum>,
        wanted: &WantedKeys,
    ) -> Result<UserKeys, StoreError> {
        let mut users = Vec::with_capacity(wanted.len());
        for (user_id, devices) in wanted {
            if self.0.rooms.is_local(user_id)
                && let Some(user) = self.0.rooms.interner().find_user(view, user_id)?
            {
                users.push((user, user_id, devices));
            }
        }
        let nums: Vec<UserNum> = users.iter().map(|(user, ..)| *user).collect();
        let keyed = view.multi_get::<KeyedDevices>(&nums)?;
        let mut keys = UserKeys::default();
        let mut devices = Vec::new();
        let mut keyless = Vec::new();
        for ((user, user_id, named), keyed) in users.iter().zip(keyed) {
            let Some(keyed) = keyed else {
                keyless.push((*user, *user_id));
                continue;
            };
            keys.device_keys.insert((*user_id).clone(), BTreeMap::new());
            let all = keyed.0.into_iter();
            let wanted = all.filter(|id| named.is_empty() || named.contains(id));
            devices.extend(wanted.map(|id| (*user_id, (*user, id))));
        }
        // Who has an account and no keys is told apart from who does not exist.
        let nums: Vec<UserNum> = keyless.iter().map(|(user, _)| *user).collect();
        let accounts = view.multi_get::<Accounts>(&nums)?;
        for ((_, user_id), account) in keyless.into_iter().zip(accounts) {
            if account.is_some() {
                keys.device_keys.insert(user_id.clone(), BTreeMap::new());
            }
        }
        let rows: Vec<(UserNum, String)> = devices.iter().map(|(_, row)| row.clone()).collect();
        let objects = view.multi_get::<DeviceKeys>(&rows)?;
        let names = view.multi_get::<Devices>(&rows)?;
        for (((user_id, (_, device_id)), object), device) in
            devices.into_iter().zip(objects).zip(names)
        {
            if let (Some(object), Some(of)) = (object, keys.device_keys.get_mut(user_id)) {
                let name = device.and_then(|device| device.display_name);
                of.insert(device_id, with_name(object, name.as_deref()));
            }
        }
        let users: Vec<(UserNum, &OwnedUserId)> =
            users.iter().map(|(user, id, _)| (*user, *id)).collect();
        self.add_identities(view, requester, &users, &mut keys)?;
        Ok(keys)
    }

    /// Adds the cross-signing keys of users, local or remote, as far as they are known.
    pub fn add_identities(
        &self,
        view: &View,
        requester: Option<UserNum>,
        users: &[(UserNum, &OwnedUserId)],
        keys: &mut UserKeys,
    ) -> Result<(), StoreError> {
        let mut rows = Vec::with_capacity(users.len() * 2 + 1);
        for (user, user_id) in users {
            rows.push((*user_id, (*user, CrossSigningUsage::Master)));
            rows.push((*user_id, (*user, CrossSigningUsage::SelfSigning)));
            if requester == Some(*user) {
                rows.push((*user_id, (*user, CrossSigningUsage::UserSigning)));
            }
        }
        let row_keys: Vec<_> = rows.iter().map(|(_, row)| *row).collect();
        let found = view.multi_get::<CrossSigningKeys>(&row_keys)?;
        let mut masters = Vec::new();
        for ((user_id, (user, usage)), key) in rows.into_iter().zip(found) {
            let Some(key) = key else { continue };
            let shown = match usage {
                CrossSigningUsage::Master => {
                    masters.push((user, user_id));
                    &mut keys.master_keys
                }
                CrossSigningUsage::SelfSigning => &mut keys.self_signing_keys,
                CrossSigningUsage::UserSigning => &mut keys.user_signing_keys,
            };
            shown.insert(user_id.clone(), key);
        }
        match requester {
            Some(signer) => self.add_signatures(view, signer, &masters, keys),
            None => Ok(()),
        }
    }

    /// Adds to the master keys of others what the local user `signer` signed of them: nobody else sees that.
    pub fn add_signatures(
        &self,
        view: &View,
        signer: UserNum,
        masters: &[(UserNum, &OwnedUserId)],
        keys: &mut UserKeys,
    ) -> Result<(), StoreError> {
        let mut rows = Vec::new();
        for (user, user_id) in masters {
            let key = keys.master_keys.get(*user_id).and_then(signed::object);
            if let Some(object) = key
                && *user != signer
                && let Some(public) = public_key_of(&object)
            {
                rows.push((*user_id, object, (signer, *user, public)));
            }
        }
        let row_keys: Vec<_> = rows.iter().map(|(.., row)| row.clone()).collect();
        let found = view.multi_get::<KeySignatures>(&row_keys)?;
        if found.iter().all(Option::is_none) {
            return Ok(());
        }
        let signer = self.0.rooms.interner().user_id(view, signer)?;
        for ((user_id, mut object, _), signatures) in rows.into_iter().zip(found) {
            let Some(signatures) = signatures else {
                continue;
            };
            let own = signed::stored(&signatures.json, "key_signatures")?;
            let all = object
                .entry("signatures")
                .or_insert_with(|| Value::Object(Object::new()));
            if let Some(all) = all.as_object_mut() {
                all.insert(signer.to_string(), own.into());
            }
            keys.master_keys
                .insert(user_id.clone(), signed::text(&object));
        }
        Ok(())
    }
}

/// The public key of a cross-signing key, in base64.
pub(crate) fn public_key_of(object: &Object) -> Option<String> {
    let keys = object.get("keys")?.as_object()?;
    let (id, _) = keys.iter().next()?;
    Some(id.strip_prefix(ED25519)?.to_owned())
}

/// A device's keys with its name where servers put it, beside what is signed.
fn with_name(object: RawJson, name: Option<&str>) -> RawJson {
    let Some(name) = name else { return object };
    let Some(open) = object.get().strip_suffix('}') else {
        return object;
    };
    let name = Value::from(name);
    let text = format!("{open},\"unsigned\":{{\"device_display_name\":{name}}}}}");
    match RawValue::from_string(text) {
        Ok(text) => RawJson(text),
        Err(_) => object,
    }
}
