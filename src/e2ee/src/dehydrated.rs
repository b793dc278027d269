//! Dehydrated devices: a device of a user that takes keys for him while he is nowhere logged in, and is emptied by the
//! next one that he logs in. MSC3814, "Dehydrated Devices with SSSS".
//!
//! To others it is a device like any other. It has no session, ever: whoever logs in to it makes it an ordinary device. So
//! nothing but its rows has to go when it is replaced.

use myelin_data::{
    RawJson,
    accounts::{Accounts, Device, Devices},
    dehydrated::DehydratedDevices,
    e2ee::{ToDeviceInbox, forget_devices, replace_device},
};
use myelin_rooms::token::InboxPlace;
use myelin_store::{Batch, Scan, Step, StoreError, View};
use myelin_types::{Pos, UserNum};
use serde_json::value::RawValue;

pub use myelin_data::dehydrated::DehydratedDevice;

use crate::{
    E2ee, Failure, Owner,
    upload::{KeyUpload, NewDevice, UploadError},
};

/// The greatest encrypted device, in bytes: some hundred one-time keys and what else an account has.
const MAX_DATA: usize = 256 << 10;
/// The longest device id and the longest name, in bytes.
const MAX_ID: usize = 255;
/// The most messages that are told at once, and after how many bytes no further one is.
const MOST_TOLD: usize = 100;
const MOST_BYTES: usize = 1 << 20;

/// A device that is to be dehydrated.
#[derive(Clone, Debug)]
pub struct Dehydration {
    /// Its name, for people.
    pub display_name: Option<String>,
    /// Its private keys, encrypted for the user.
    pub data: RawJson,
    /// Its public keys; those that identify it must be among them.
    pub keys: KeyUpload,
}

/// Why a device was not dehydrated; one that was there is there still.
#[derive(Debug, thiserror::Error)]
pub enum DehydrateError {
    /// The user has an ordinary device of this id. (`M_INVALID_PARAM`)
    #[error("there is an ordinary device of this id")]
    IdInUse,
    /// There are no identity keys, so that nobody could encrypt for the device. (`M_MISSING_PARAM`)
    #[error("device_keys are missing")]
    NoKeys,
    /// The data is no JSON object with an `algorithm`. (`M_BAD_JSON`)
    #[error("device_data must be an object with an algorithm")]
    BadData,
    /// The data, the id or the name is too long. (`M_TOO_LARGE`)
    #[error("the device is too large")]
    TooLarge,
    /// The keys were not taken.
    #[error(transparent)]
    Keys(UploadError),
    /// Our side failed.
    #[error(transparent)]
    Failed(#[from] Failure),
}
crate::failure::fails!(DehydrateError);

impl From<UploadError> for DehydrateError {
    fn from(error: UploadError) -> Self {
        match error {
            UploadError::Failed(failure) => Self::Failed(failure),
            refused => Self::Keys(refused),
        }
    }
}

/// Messages to a dehydrated device.
#[derive(Clone, Debug)]
pub struct DehydratedMessages {
    /// The messages, the oldest first; none once all were told.
    pub events: Vec<Box<RawValue>>,
    /// After which of them the next ones come.
    pub last: InboxPlace,
}

/// Why messages were not told.
#[derive(Debug, thiserror::Error)]
pub enum DehydratedMessagesError {
    /// This is not the user's dehydrated device. (`M_FORBIDDEN`)
    #[error("this is not the dehydrated device")]
    OtherDevice,
    /// Our side failed.
    #[error(transparent)]
    Failed(#[from] Failure),
}

impl From<StoreError> for DehydratedMessagesError {
    fn from(error: StoreError) -> Self {
        Self::Failed(error.into())
    }
}

impl E2ee {
    /// The dehydrated device of `user`.
    pub fn dehydrated_device(
        &self,
        view: &View,
        user: UserNum,
    ) -> Result<Option<DehydratedDevice>, StoreError> {
        view.get::<DehydratedDevices>(&user)
    }

    /// Makes `owner`'s device his dehydrated one, with its keys, in one batch. One that he had goes.
    pub async fn dehydrate(
        &self,
        owner: Owner,
        dehydration: Dehydration,
    ) -> Result<(), DehydrateError> {
        let Dehydration {
            display_name,
            data,
            keys,
        } = dehydration;
        if !has_algorithm(&data) {
            return Err(DehydrateError::BadData);
        }
        let name = display_name.as_ref().map_or(0, String::len);
        if data.get().len() > MAX_DATA || owner.device_id.as_str().len() > MAX_ID || name > MAX_ID {
            return Err(DehydrateError::TooLarge);
        }
        if keys.device_keys.is_none() {
            return Err(DehydrateError::NoKeys);
        }
        let keys = NewDevice::read(&owner, keys)?;
        let created_at = self.0.clock.now();
        self.0
            .store
            .change(move |view| {
                let (user, id) = (owner.user, owner.device_id.to_string());
                let before = view.get::<DehydratedDevices>(&user)?;
                let old_id = before.as_ref().map(|device| device.device_id.clone());
                if old_id.as_ref() != Some(&id) && view.contains::<Devices>(&(user, id.clone()))? {
                    return Err(DehydrateError::IdInUse);
                }
                let mut batch = Batch::new();
                // The account may end meanwhile, and with it all devices; and somebody may log in to either of the two.
                batch.expect::<Accounts>(&user, view.get::<Accounts>(&user)?.as_ref());
                batch.expect::<DehydratedDevices>(&user, before.as_ref());
                for id in old_id.iter().filter(|old| **old != id).chain([&id]) {
                    let key = (user, id.clone());
                    batch.expect::<Devices>(&key, view.get::<Devices>(&key)?.as_ref());
                }
                if let Some(old) = &old_id {
                    batch.delete::<Devices>(&(user, old.clone()));
                }
                replace_device(view, &mut batch, user, old_id.as_deref(), &id)?;
                let device = Device {
                    display_name: display_name.clone(),
                    created_at,
                    last_seen_at: None,
                    last_seen_ip: None,
                };
                batch.put::<Devices>(&(user, id.clone()), &device);
                let row = DehydratedDevice {
                    device_id: id,
                    data: data.clone(),
                };
                batch.put::<DehydratedDevices>(&user, &row);
                keys.write(view, &mut batch)?;
                Ok(Step::write(batch, ()))
            })
            .await
    }

    /// Deletes the dehydrated device of `user`; its id, if there was one.
    pub async fn delete_dehydrated_device(&self, user: UserNum) -> Result<Option<String>, Failure> {
        self.0
            .store
            .change(move |view| {
                let Some(row) = view.get::<DehydratedDevices>(&user)? else {
                    return Ok(Step::nothing(None));
                };
                let mut batch = Batch::new();
                batch.expect::<DehydratedDevices>(&user, Some(&row));
                batch.delete::<DehydratedDevices>(&user);
                batch.delete::<Devices>(&(user, row.device_id.clone()));
                forget_devices(view, &mut batch, user, std::slice::from_ref(&row.device_id))?;
                Ok(Step::write(batch, Some(row.device_id)))
            })
            .await
    }

    /// Messages to the dehydrated device of `user` that come after a place, or from the beginning. They stay where they
    /// are: should the client that asks be lost, another one does it again.
    pub fn dehydrated_messages(
        &self,
        view: &View,
        user: UserNum,
        device_id: &str,
        after: Option<InboxPlace>,
    ) -> Result<DehydratedMessages, DehydratedMessagesError> {
        let row = view.get::<DehydratedDevices>(&user)?;
        if row.is_none_or(|row| row.device_id != device_id) {
            return Err(DehydratedMessagesError::OtherDevice);
        }
        let mut last = after.unwrap_or(InboxPlace {
            pos: Pos::ZERO,
            index: 0,
        });
        let mut scan = Scan::prefix(&(user, device_id.to_owned()));
        if let Some(InboxPlace { pos, index }) = after {
            scan = scan.after(&(user, device_id.to_owned(), pos, index));
        }
        let (mut events, mut bytes) = (Vec::new(), 0);
        for row in view.scan::<ToDeviceInbox>(scan.limit(MOST_TOLD)) {
            let ((.., pos, index), message) = row?;
            bytes += message.json.get().len();
            events.push(message.json.0);
            last = InboxPlace { pos, index };
            if bytes >= MOST_BYTES {
                break;
            }
        }
        Ok(DehydratedMessages { events, last })
    }
}

/// Whether the data says how it is encrypted.
fn has_algorithm(data: &RawJson) -> bool {
    #[derive(serde::Deserialize)]
    struct Data {
        #[serde(rename = "algorithm")]
        _algorithm: String,
    }
    serde_json::from_str::<Data>(data.get()).is_ok()
}
