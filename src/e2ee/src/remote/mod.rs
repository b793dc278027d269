//! The device lists of other servers' users. Spec: server-server API, "Device Management".
//!
//! A list is kept while a room is shared with its user, so that his keys need not be asked for each time. It is fetched once
//! and then kept up to date by what his server sends ([`update`]). Each update names the one before it; where that is not
//! known, the list is *stale* and is fetched again ([`fetched`]) before it is believed. Updates are only sent to servers
//! that share a room with the user; so a list counts only if a room was shared without a break since it was fetched
//! ([`sharing`]), and no departure need write anything.

mod fetched;
mod own;
mod sharing;
#[cfg(test)]
mod tests;
mod update;

pub use fetched::{FetchedDevice, FetchedList, Kept, StaleList};
pub use own::{OwnDevice, OwnList};
pub use update::{DeviceUpdate, KeysUpdate, ListUpdate};

use myelin_data::{
    Present, RawJson,
    e2ee::{
        CrossSigningKeys, CrossSigningUsage, RemoteDevice, RemoteDeviceList, RemoteDeviceLists,
        RemoteDevices, StaleDeviceLists,
    },
};
use myelin_store::{Batch, Scan, StoreError, View};
use myelin_types::UserNum;
use ruma::{OwnedUserId, UserId};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::E2ee;
use sharing::Sharing;

/// How many devices of a user are kept. Further ones are not known here: no client could encrypt for so many.
pub(crate) const MOST_DEVICES: usize = 2_000;
/// The longest id of a device, in bytes.
const MAX_DEVICE_ID: usize = 255;
/// The longest name of a device, in bytes; longer ones are left out.
const MAX_NAME: usize = 256;
/// The longest keys of a device or user, with their signatures, in bytes.
const MAX_KEYS: usize = 64 << 10;

/// A user of another server whose list is believed.
#[derive(Clone, Debug)]
pub struct TrackedUser {
    /// The user.
    pub user: UserNum,
    /// His devices that have keys, with their names.
    pub devices: Vec<(String, RemoteDevice)>,
}

impl E2ee {
    /// The devices of a user of another server, if the list that is kept of him is right.
    pub fn tracked(
        &self,
        view: &View,
        user_id: &UserId,
    ) -> Result<Option<TrackedUser>, StoreError> {
        let Some(user) = self.0.rooms.interner().find_user(view, user_id)? else {
            return Ok(None);
        };
        let Some(row) = view.get::<RemoteDeviceLists>(&user)? else {
            return Ok(None);
        };
        if row.stale || self.sharing(view, user, row.fetched)? != Sharing::Since {
            return Ok(None);
        }
        let devices = view.scan::<RemoteDevices>(Scan::prefix(&user));
        let devices = devices.map(|row| row.map(|((_, id), device)| (id, device)));
        Ok(Some(TrackedUser {
            user,
            devices: devices.collect::<Result<_, StoreError>>()?,
        }))
    }

    /// Deletes what is kept of a user, but for what clients are told of changes.
    fn forget_list(batch: &mut Batch, user: UserNum, before: &RemoteDeviceList) {
        batch.expect::<RemoteDeviceLists>(&user, Some(before));
        batch.delete::<RemoteDeviceLists>(&user);
        batch.delete::<StaleDeviceLists>(&user);
        batch.delete_prefix::<RemoteDevices>(&user);
        batch.delete_prefix::<CrossSigningKeys>(&user);
    }
}

/// Writes how far a list is known, where it was known as `before`.
fn put_list(
    batch: &mut Batch,
    user: UserNum,
    before: Option<&RemoteDeviceList>,
    after: &RemoteDeviceList,
) {
    batch.expect::<RemoteDeviceLists>(&user, before);
    batch.put::<RemoteDeviceLists>(&user, after);
    match (before.is_some_and(|before| before.stale), after.stale) {
        (false, true) => batch.put::<StaleDeviceLists>(&user, &Present),
        (true, false) => batch.delete::<StaleDeviceLists>(&user),
        _ => {}
    }
}

/// A device as it is kept; keys that are not this device's are left out.
fn device(
    user_id: &OwnedUserId,
    device_id: &str,
    display_name: Option<&String>,
    keys: Option<&RawValue>,
) -> RemoteDevice {
    RemoteDevice {
        display_name: display_name.filter(|name| name.len() <= MAX_NAME).cloned(),
        keys: keys.and_then(|keys| sound_device_keys(user_id, device_id, keys)),
    }
}

/// The identity keys of a device as another server tells them, if they are this device's and not too long.
pub fn sound_device_keys(user_id: &UserId, device_id: &str, keys: &RawValue) -> Option<RawJson> {
    #[derive(Deserialize)]
    struct Keys {
        user_id: String,
        device_id: String,
    }
    if keys.get().len() > MAX_KEYS {
        return None;
    }
    let read: Keys = serde_json::from_str(keys.get()).ok()?;
    let is_right = read.user_id == user_id.as_str() && read.device_id == device_id;
    is_right.then(|| RawJson(keys.to_owned()))
}

/// A cross-signing key as another server tells it, if it is this user's, for this use, and not too long.
pub fn sound_cross_signing_key(
    user_id: &UserId,
    usage: CrossSigningUsage,
    key: &RawValue,
) -> Option<RawJson> {
    #[derive(Deserialize)]
    struct Key {
        user_id: String,
        usage: Vec<String>,
    }
    if key.get().len() > MAX_KEYS {
        return None;
    }
    let read: Key = serde_json::from_str(key.get()).ok()?;
    let name = match usage {
        CrossSigningUsage::Master => "master",
        CrossSigningUsage::SelfSigning => "self_signing",
        CrossSigningUsage::UserSigning => return None,
    };
    let is_right = read.user_id == user_id.as_str() && read.usage.iter().any(|usage| usage == name);
    is_right.then(|| RawJson(key.to_owned()))
}

/// Whether a device's id is one that is kept.
fn is_device_id(id: &str) -> bool {
    !id.is_empty() && id.len() <= MAX_DEVICE_ID
}
