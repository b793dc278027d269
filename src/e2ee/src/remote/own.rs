//! The list of a user of this server, as other servers fetch it.

use myelin_data::{
    RawJson,
    accounts::{Accounts, Devices},
    e2ee::{CrossSigningKeys, CrossSigningUsage, DeviceKeys, DeviceLists},
};
use myelin_store::{Scan, StoreError, View};
use ruma::UserId;

use crate::E2ee;

/// The devices of a user that have keys, and the keys that sign them.
#[derive(Clone, Debug)]
pub struct OwnList {
    /// The number of its newest change.
    pub stream_id: u64,
    /// The devices.
    pub devices: Vec<OwnDevice>,
    /// The master key.
    pub master: Option<RawJson>,
    /// The self-signing key.
    pub self_signing: Option<RawJson>,
}

/// A device of a list.
#[derive(Clone, Debug)]
pub struct OwnDevice {
    /// Its id.
    pub device_id: String,
    /// Its name.
    pub display_name: Option<String>,
    /// Its identity keys.
    pub keys: RawJson,
}

impl E2ee {
    /// The list of a user of this server; none if there is no such user.
    pub fn own_list(&self, view: &View, user_id: &UserId) -> Result<Option<OwnList>, StoreError> {
        if !self.0.rooms.is_local(user_id) {
            return Ok(None);
        }
        let Some(user) = self.0.rooms.interner().find_user(view, user_id)? else {
            return Ok(None);
        };
        if !view.contains::<Accounts>(&user)? {
            return Ok(None);
        }
        let rows = view.scan::<DeviceKeys>(Scan::prefix(&user));
        let rows = rows.collect::<Result<Vec<_>, StoreError>>()?;
        let ids: Vec<_> = rows.iter().map(|(id, _)| id.clone()).collect();
        let named = view.multi_get::<Devices>(&ids)?;
        let devices = rows
            .into_iter()
            .zip(named)
            .map(|(((_, id), keys), device)| OwnDevice {
                device_id: id,
                display_name: device.and_then(|device| device.display_name),
                keys,
            });
        let usages = [CrossSigningUsage::Master, CrossSigningUsage::SelfSigning];
        let keys = view.multi_get::<CrossSigningKeys>(&usages.map(|usage| (user, usage)))?;
        let [master, self_signing]: [Option<RawJson>; 2] = keys
            .try_into()
            .map_err(|_| StoreError::Missing("cross_signing_keys"))?;
        let list = view.get::<DeviceLists>(&user)?;
        Ok(Some(OwnList {
            stream_id: list.map_or(0, |list| list.version()),
            devices: devices.collect(),
            master,
            self_signing,
        }))
    }
}
