//! Devices: looking at them, naming them, and ending their sessions. Spec: client-server API, "Device management".

use std::collections::BTreeSet;

use myelin_data::{
    accounts::{Accounts as AccountRows, Device, Devices},
    e2ee::{DeviceListChange, KeyedDevices, record_change},
};
use myelin_store::{Batch, Scan, Step, StoreError, View};
use myelin_types::{Millis, UserNum};
use ruma::{DeviceId, OwnedDeviceId};

use crate::{
    Accounts, Failure,
    names::MAX_DEVICE_NAME,
    sessions::{delete_devices, delete_devices_except},
};

/// A device, as its owner sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Its id.
    pub device_id: OwnedDeviceId,
    /// Its name, for people.
    pub display_name: Option<String>,
    /// When it logged in first.
    pub created_at: Millis,
    /// When it was last heard of, to within five minutes.
    pub last_seen_at: Option<Millis>,
    /// From which address.
    pub last_seen_ip: Option<String>,
}

/// Why a device could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The user has no such device. (`M_NOT_FOUND`)
    #[error("there is no such device")]
    NotFound,
    /// The name is too long. (`M_TOO_LARGE`)
    #[error("the display name is too long")]
    NameTooLong,
    /// Our side failed.
    #[error(transparent)]
    Failed(#[from] Failure),
}
crate::failure::fails!(DeviceError);

/// Why sessions could not be ended: our side failed. Ending what has ended already is no error.
#[derive(Debug, thiserror::Error)]
pub enum LogoutError {
    /// Our side failed.
    #[error(transparent)]
    Failed(#[from] Failure),
}
crate::failure::fails!(LogoutError);

impl Accounts {
    /// The devices of `user`, by id.
    pub fn devices(&self, view: &View, user: UserNum) -> Result<Vec<DeviceInfo>, StoreError> {
        view.scan::<Devices>(Scan::prefix(&user))
            .map(|row| row.map(|((_, id), device)| info(id, device)))
            .collect()
    }

    /// One device of `user`.
    pub fn device(
        &self,
        view: &View,
        user: UserNum,
        device_id: &DeviceId,
    ) -> Result<Option<DeviceInfo>, StoreError> {
        let device = view.get::<Devices>(&(user, device_id.to_string()))?;
        Ok(device.map(|device| info(device_id.to_string(), device)))
    }

    /// Gives a device of `user` another name; without one it only checks that the device is there.
    pub async fn set_device_name(
        &self,
        user: UserNum,
        device_id: &DeviceId,
        name: Option<String>,
    ) -> Result<(), DeviceError> {
        if name
            .as_ref()
            .is_some_and(|name| name.len() > MAX_DEVICE_NAME)
        {
            return Err(DeviceError::NameTooLong);
        }
        let key = (user, device_id.to_string());
        self.0
            .store
            .change(move |view| {
                let device = view.get::<Devices>(&key)?.ok_or(DeviceError::NotFound)?;
                if name.is_none() || device.display_name == name {
                    return Ok(Step::nothing(()));
                }
                let mut batch = Batch::new();
                batch.expect::<Devices>(&key, Some(&device));
                let renamed = Device {
                    display_name: name.clone(),
                    ..device
                };
                batch.put::<Devices>(&key, &renamed);
                // The name is told with the device's keys. Those may come just now: then the batch that brings them expects the
                // device as it was, or this one expects that there are none.
                let keyed = view.get::<KeyedDevices>(&user)?;
                batch.expect::<KeyedDevices>(&user, keyed.as_ref());
                if keyed.is_some_and(|keyed| keyed.0.contains(&key.1)) {
                    let change = DeviceListChange::Device(key.1.clone());
                    record_change(view, &mut batch, user, [change])?;
                }
                Ok(Step::write(batch, ()))
            })
            .await
    }

    /// Ends the session of one device and deletes it. Its tokens are refused once this is answered.
    pub async fn logout(&self, user: UserNum, device_id: &DeviceId) -> Result<(), LogoutError> {
        self.delete_devices(user, vec![device_id.to_owned()]).await
    }

    /// Deletes the devices of `user` that are named, in one batch. Names of no device are passed over.
    pub async fn delete_devices(
        &self,
        user: UserNum,
        device_ids: Vec<OwnedDeviceId>,
    ) -> Result<(), LogoutError> {
        self.0
            .store
            .change(move |view| {
                let Some(account) = view.get::<AccountRows>(&user)? else {
                    return Ok(Step::nothing(()));
                };
                let mut found = BTreeSet::new();
                for device_id in &device_ids {
                    if view.contains::<Devices>(&(user, device_id.to_string()))? {
                        found.insert(device_id.to_string());
                    }
                }
                if found.is_empty() {
                    return Ok(Step::nothing(()));
                }
                let mut batch = Batch::new();
                let found: Vec<String> = found.into_iter().collect();
                delete_devices(view, &mut batch, user, &found)?;
                batch.expect::<AccountRows>(&user, Some(&account));
                Ok::<_, LogoutError>(Step::write(batch, ()))
            })
            .await
    }

    /// Ends all sessions of `user` and deletes all his devices. Returns their ids.
    pub async fn logout_all(&self, user: UserNum) -> Result<Vec<OwnedDeviceId>, LogoutError> {
        self.0
            .store
            .change(move |view| {
                let Some(account) = view.get::<AccountRows>(&user)? else {
                    return Ok(Step::nothing(Vec::new()));
                };
                let mut batch = Batch::new();
                batch.expect::<AccountRows>(&user, Some(&account));
                let deleted = delete_devices_except(view, &mut batch, user, None)?;
                Ok::<_, LogoutError>(Step::write(batch, deleted))
            })
            .await
    }
}

fn info(device_id: String, device: Device) -> DeviceInfo {
    DeviceInfo {
        device_id: OwnedDeviceId::from(device_id),
        display_name: device.display_name,
        created_at: device.created_at,
        last_seen_at: device.last_seen_at,
        last_seen_ip: device.last_seen_ip,
    }
}
