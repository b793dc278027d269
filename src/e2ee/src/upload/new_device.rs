//! The keys of a device that is made together with them: nothing was there before, and others hear of the device, not of its
//! keys.

use myelin_data::{
    e2ee::{
        DeviceKeys, FallbackKey, FallbackKeys, KeyCount, KeyCounts, OneTimeKey, OneTimeKeyPlace,
        OneTimeKeyPlaces, OneTimeKeys,
    },
    topic::Changed,
};
use myelin_store::{Batch, View};
use myelin_types::Pos;

use super::{Identity, KeyUpload, Upload, UploadError, check_signatures, count_up};
use crate::{Owner, cross_signing::public_keys, signed};

/// Keys in the right form, and signed as they should be.
pub(crate) struct NewDevice {
    owner: Owner,
    identity: Identity,
    upload: Upload,
}

impl NewDevice {
    /// The keys of `owner`'s device; [`Malformed`](UploadError::Malformed) without those that identify it.
    pub(crate) fn read(owner: &Owner, keys: KeyUpload) -> Result<Self, UploadError> {
        let mut upload = Upload::read(owner, keys)?;
        let identity = upload
            .identity
            .take()
            .ok_or(UploadError::Malformed("device_keys are missing"))?;
        check_signatures(owner, &upload.one_time, &identity.key)?;
        check_signatures(owner, &upload.fallback, &identity.key)?;
        Ok(Self {
            owner: owner.clone(),
            identity,
            upload,
        })
    }

    /// Writes them into `batch`, which makes the device.
    pub(crate) fn write(&self, view: &View, batch: &mut Batch) -> Result<(), UploadError> {
        let device = self.owner.device();
        let (user, device_id) = device.clone();
        if public_keys(view, user)?.contains(&device_id) {
            return Err(UploadError::DeviceIdTaken);
        }
        batch.put::<DeviceKeys>(&device, &signed::text(&self.identity.object));
        let mut count = KeyCount::default();
        for (index, key) in (0..).zip(&self.upload.one_time) {
            let (device_id, algorithm) = (device_id.clone(), key.algorithm.clone());
            let pos = Pos::AT_COMMIT;
            let row = (user, device_id.clone(), algorithm.clone(), pos, index);
            let value = OneTimeKey {
                key_id: key.id.clone(),
                key: key.json.clone(),
            };
            batch.put::<OneTimeKeys>(&row, &value);
            let place = (user, device_id, algorithm, key.id.clone());
            batch.put::<OneTimeKeyPlaces>(&place, &OneTimeKeyPlace { pos, index });
            count_up(&mut count.one_time, &key.algorithm);
        }
        for key in &self.upload.fallback {
            let row = (user, device_id.clone(), key.algorithm.clone());
            let value = FallbackKey {
                used: false,
                key_id: key.id.clone(),
                key: key.json.clone(),
            };
            batch.put::<FallbackKeys>(&row, &value);
            count.unused_fallback.push(key.algorithm.clone());
        }
        batch.put::<KeyCounts>(&device, &count);
        batch.touch(Changed::KeyCounts(user).into());
        Ok(())
    }
}
