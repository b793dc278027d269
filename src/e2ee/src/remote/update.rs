//! What other servers send of their users' lists: `m.device_list_update` and `m.signing_key_update`.

use std::collections::BTreeMap;

use myelin_data::e2ee::{
    CrossSigningKeys, CrossSigningUsage, DeviceListChange, RemoteDeviceList, RemoteDeviceLists,
    RemoteDevices, record_change,
};
use myelin_store::{Batch, Scan, Step, StoreError, View};
use myelin_types::{Millis, UserNum};
use ruma::{OwnedServerName, OwnedUserId};
use serde_json::value::RawValue;

use super::{MOST_DEVICES, Sharing, device, is_device_id, put_list, sound_cross_signing_key};
use crate::{E2ee, Failure};

/// The content of an `m.device_list_update` EDU.
#[derive(Clone, Debug)]
pub struct DeviceUpdate {
    /// Whose device it is.
    pub user_id: OwnedUserId,
    /// Which.
    pub device_id: String,
    /// Its name.
    pub display_name: Option<String>,
    /// The number of the update.
    pub stream_id: u64,
    /// Those of the updates that it follows.
    pub prev_ids: Vec<u64>,
    /// Whether the device is gone.
    pub deleted: bool,
    /// Its identity keys.
    pub keys: Option<Box<RawValue>>,
}

/// The content of an `m.signing_key_update` EDU.
#[derive(Clone, Debug)]
pub struct KeysUpdate {
    /// Whose keys they are.
    pub user_id: OwnedUserId,
    /// His master key.
    pub master: Option<Box<RawValue>>,
    /// His self-signing key.
    pub self_signing: Option<Box<RawValue>>,
}

/// Something that was changed of a list.
#[derive(Clone, Debug)]
pub enum ListUpdate {
    /// A device.
    Device(DeviceUpdate),
    /// The keys that sign devices.
    Keys(KeysUpdate),
}

impl ListUpdate {
    fn user_id(&self) -> &OwnedUserId {
        match self {
            Self::Device(update) => &update.user_id,
            Self::Keys(update) => &update.user_id,
        }
    }
}

impl E2ee {
    /// Takes in what a server says of its users' lists, in its order. Answers whose lists are to be fetched now. What is not
    /// its to say, or of users with whom no room is shared, is passed over.
    pub async fn hear_lists(
        &self,
        origin: &OwnedServerName,
        updates: Vec<ListUpdate>,
    ) -> Result<Vec<OwnedUserId>, Failure> {
        let mut by_user: BTreeMap<OwnedUserId, Vec<ListUpdate>> = BTreeMap::new();
        for update in updates {
            if update.user_id().server_name() == origin {
                let user = update.user_id().clone();
                by_user.entry(user).or_default().push(update);
            }
        }
        let mut stale = Vec::new();
        for (user_id, updates) in by_user {
            let (e2ee, id) = (self.clone(), user_id.clone());
            let now = self.0.clock.now();
            let heard = self
                .0
                .store
                .change(move |view| e2ee.hear(view, &id, &updates, now));
            if heard.await? {
                stale.push(user_id);
            }
        }
        Ok(stale)
    }

    fn hear(
        &self,
        view: &View,
        user_id: &OwnedUserId,
        updates: &[ListUpdate],
        now: Millis,
    ) -> Result<Step<bool>, Failure> {
        let Some(user) = self.0.rooms.interner().find_user(view, user_id)? else {
            return Ok(Step::nothing(false));
        };
        let before = view.get::<RemoteDeviceLists>(&user)?;
        let fetched = before.as_ref().map(|row| row.fetched).unwrap_or_default();
        let mut batch = Batch::new();
        let sharing = self.sharing(view, user, fetched)?;
        if sharing == Sharing::Nothing {
            let Some(before) = before else {
                return Ok(Step::nothing(false));
            };
            Self::forget_list(&mut batch, user, &before);
            return Ok(Step::write(batch, false));
        }
        let mut hearing = Hearing {
            view,
            user,
            user_id,
            list: before.clone().unwrap_or_default(),
            batch,
            changes: Vec::new(),
        };
        if before.is_none() || sharing == Sharing::Now {
            hearing.list.stale = true;
        }
        for update in updates {
            match update {
                ListUpdate::Device(update) => hearing.device(update)?,
                ListUpdate::Keys(update) => hearing.keys(update),
            }
        }
        let Hearing {
            mut list,
            mut batch,
            changes,
            ..
        } = hearing;
        if list.stale {
            // Its server is there, so that it can be asked.
            list.next_attempt = now;
        }
        if before.as_ref() != Some(&list) {
            put_list(&mut batch, user, before.as_ref(), &list);
        }
        if !changes.is_empty() {
            record_change(view, &mut batch, user, changes)?;
        }
        Ok(if batch.is_empty() {
            Step::nothing(list.stale)
        } else {
            Step::write(batch, list.stale)
        })
    }
}

/// A list while updates are taken into it.
struct Hearing<'a> {
    view: &'a View,
    user: UserNum,
    user_id: &'a OwnedUserId,
    list: RemoteDeviceList,
    batch: Batch,
    changes: Vec<DeviceListChange>,
}

impl Hearing<'_> {
    fn device(&mut self, update: &DeviceUpdate) -> Result<(), StoreError> {
        let DeviceUpdate {
            device_id,
            stream_id,
            ..
        } = update;
        if !is_device_id(device_id) {
            return Ok(());
        }
        let list = &mut self.list;
        if !list.stale {
            let is_known = |id: &u64| *id == list.stream_id || list.seen.contains(id);
            if is_known(stream_id) {
                // It came before, and the answer to that was lost.
                return Ok(());
            }
            list.stale = update.prev_ids.is_empty() || !update.prev_ids.iter().all(is_known);
        }
        self.note(DeviceListChange::Device(device_id.clone()));
        if self.list.stale {
            self.list.updates = self.list.updates.wrapping_add(1);
            return Ok(());
        }
        let before = self.list.stream_id;
        self.list.stream_id = *stream_id;
        self.list.seen.push(before);
        let seen = self.list.seen.len();
        let forgotten = seen.saturating_sub(RemoteDeviceList::MOST_SEEN);
        self.list.seen.drain(..forgotten);
        let key = (self.user, device_id.clone());
        if update.deleted {
            self.batch.delete::<RemoteDevices>(&key);
            return Ok(());
        }
        let there = self.view.contains::<RemoteDevices>(&key)?;
        let all = Scan::prefix(&self.user).limit(MOST_DEVICES);
        if !there && self.view.keys::<RemoteDevices>(all).count() == MOST_DEVICES {
            return Ok(());
        }
        let name = update.display_name.as_ref();
        let device = device(self.user_id, device_id, name, update.keys.as_deref());
        self.batch.put::<RemoteDevices>(&key, &device);
        Ok(())
    }

    fn keys(&mut self, update: &KeysUpdate) {
        self.note(DeviceListChange::CrossSigning);
        if self.list.stale {
            self.list.updates = self.list.updates.wrapping_add(1);
            return;
        }
        for (usage, key) in [
            (CrossSigningUsage::Master, &update.master),
            (CrossSigningUsage::SelfSigning, &update.self_signing),
        ] {
            let key = key.as_deref();
            if let Some(key) = key.and_then(|key| sound_cross_signing_key(self.user_id, usage, key))
            {
                self.batch
                    .put::<CrossSigningKeys>(&(self.user, usage), &key);
            }
        }
    }

    fn note(&mut self, change: DeviceListChange) {
        if !self.changes.contains(&change) {
            self.changes.push(change);
        }
    }
}
