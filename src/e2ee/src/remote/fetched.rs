//! Lists that were fetched whole, and which are to be.

use std::collections::BTreeMap;

use myelin_data::e2ee::{
    CrossSigningKeys, CrossSigningUsage, DeviceListChange, RemoteDevice, RemoteDeviceList,
    RemoteDeviceLists, RemoteDevices, StaleDeviceLists, record_change,
};
use myelin_store::{Batch, Scan, Step, StoreError, View};
use myelin_types::{Millis, Pos, UserNum};
use ruma::{OwnedUserId, UserId};
use serde_json::value::RawValue;

use super::{MOST_DEVICES, Sharing, device, is_device_id, put_list, sound_cross_signing_key};
use crate::{E2ee, Failure};

/// How many lists of a kind are looked at in one step of tidying.
const LISTS_A_STEP: usize = 256;

/// The answer of `GET user/devices`.
#[derive(Clone, Debug, Default)]
pub struct FetchedList {
    /// The number of the newest update that is in it.
    pub stream_id: u64,
    /// The devices.
    pub devices: Vec<FetchedDevice>,
    /// The user's master key.
    pub master: Option<Box<RawValue>>,
    /// His self-signing key.
    pub self_signing: Option<Box<RawValue>>,
}

/// A device of a list.
#[derive(Clone, Debug)]
pub struct FetchedDevice {
    /// Its id.
    pub device_id: String,
    /// Its name.
    pub display_name: Option<String>,
    /// Its identity keys.
    pub keys: Option<Box<RawValue>>,
}

/// A list that is to be fetched.
#[derive(Clone, Debug)]
pub struct StaleList {
    /// Whose it is.
    pub user_id: OwnedUserId,
    user: UserNum,
    /// What is known of it now.
    row: RemoteDeviceList,
    /// What this server has now.
    at: Pos,
}

impl StaleList {
    /// When it is to be tried.
    pub fn next_attempt(&self) -> Millis {
        self.row.next_attempt
    }

    /// How often it was tried in vain.
    pub fn failures(&self) -> u32 {
        self.row.failures
    }
}

/// What became of a list that was fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// It is believed from now on.
    Kept,
    /// There was news of it meanwhile: it must be fetched again.
    Outdated,
}

impl E2ee {
    /// Some of the users whose lists are to be fetched, in the order of their numbers, and where the next look goes on; from
    /// the beginning when it is none.
    pub fn stale_lists(
        &self,
        view: &View,
        after: Option<UserNum>,
        most: usize,
    ) -> Result<(Vec<OwnedUserId>, Option<UserNum>), StoreError> {
        let rest = match after {
            Some(after) => Scan::all().after(&after),
            None => Scan::all(),
        };
        let users: Vec<UserNum> = view
            .keys::<StaleDeviceLists>(rest.limit(most))
            .collect::<Result<_, _>>()?;
        let next = users.last().filter(|_| users.len() == most).copied();
        Ok((self.0.rooms.interner().user_ids(view, &users)?, next))
    }

    /// What is known of a user's list that is to be fetched; none if it need not be.
    pub fn stale_list(
        &self,
        view: &View,
        user_id: &UserId,
    ) -> Result<Option<StaleList>, StoreError> {
        let Some(user) = self.0.rooms.interner().find_user(view, user_id)? else {
            return Ok(None);
        };
        let row = view.get::<RemoteDeviceLists>(&user)?;
        Ok(row.filter(|row| row.stale).map(|row| StaleList {
            user_id: user_id.to_owned(),
            user,
            row,
            at: view.pos(),
        }))
    }

    /// Begins to keep the lists of those users of other servers with whom a room is shared. Answers whose lists are to be
    /// fetched for that.
    pub async fn track(&self, users: Vec<OwnedUserId>) -> Result<Vec<OwnedUserId>, Failure> {
        let e2ee = self.clone();
        self.0
            .store
            .change(move |view| {
                let (mut batch, mut begun) = (Batch::new(), Vec::new());
                for user_id in &users {
                    let Some(user) = e2ee.0.rooms.interner().find_user(view, user_id)? else {
                        continue;
                    };
                    let before = view.get::<RemoteDeviceLists>(&user)?;
                    if before.as_ref().is_some_and(|before| before.stale) {
                        begun.push(user_id.clone());
                        continue;
                    }
                    let fetched = before.as_ref().map(|row| row.fetched).unwrap_or_default();
                    match e2ee.sharing(view, user, fetched)? {
                        Sharing::Nothing => continue,
                        Sharing::Since if before.is_some() => continue,
                        Sharing::Now | Sharing::Since => {}
                    }
                    let after = RemoteDeviceList {
                        stale: true,
                        ..before.clone().unwrap_or_default()
                    };
                    put_list(&mut batch, user, before.as_ref(), &after);
                    begun.push(user_id.clone());
                }
                Ok::<_, Failure>(if batch.is_empty() {
                    Step::nothing(begun)
                } else {
                    Step::write(batch, begun)
                })
            })
            .await
    }

    /// Keeps a list that was fetched. Local readers are told of what is not as it was.
    pub async fn keep_list(&self, of: StaleList, list: FetchedList) -> Result<Kept, Failure> {
        self.0
            .store
            .change(move |view| Self::keep(view, &of, &list))
            .await
    }

    fn keep(view: &View, of: &StaleList, list: &FetchedList) -> Result<Step<Kept>, Failure> {
        let StaleList { user, user_id, .. } = of;
        let before = view.get::<RemoteDeviceLists>(user)?;
        if before
            .as_ref()
            .is_none_or(|before| before.updates != of.row.updates)
        {
            return Ok(Step::nothing(Kept::Outdated));
        }
        let mut batch = Batch::new();
        let mut changes = Vec::new();
        let mut known: BTreeMap<String, RemoteDevice> = BTreeMap::new();
        for row in view.scan::<RemoteDevices>(Scan::prefix(user)) {
            let ((_, id), device) = row?;
            known.insert(id, device);
        }
        let devices = list.devices.iter();
        let sound = devices.filter(|device| is_device_id(&device.device_id));
        for fetched in sound.take(MOST_DEVICES) {
            let id = &fetched.device_id;
            let name = fetched.display_name.as_ref();
            let device = device(user_id, id, name, fetched.keys.as_deref());
            if known.remove(id).as_ref() != Some(&device) {
                batch.put::<RemoteDevices>(&(*user, id.clone()), &device);
                changes.push(DeviceListChange::Device(id.clone()));
            }
        }
        for id in known.into_keys() {
            batch.delete::<RemoteDevices>(&(*user, id.clone()));
            changes.push(DeviceListChange::Device(id));
        }
        for (usage, key) in [
            (CrossSigningUsage::Master, &list.master),
            (CrossSigningUsage::SelfSigning, &list.self_signing),
        ] {
            let row = (*user, usage);
            let key = key.as_deref();
            let after = key.and_then(|key| sound_cross_signing_key(user_id, usage, key));
            if view.get::<CrossSigningKeys>(&row)? == after {
                continue;
            }
            match after {
                Some(key) => batch.put::<CrossSigningKeys>(&row, &key),
                None => batch.delete::<CrossSigningKeys>(&row),
            }
            if changes.last() != Some(&DeviceListChange::CrossSigning) {
                changes.push(DeviceListChange::CrossSigning);
            }
        }
        let after = RemoteDeviceList {
            stream_id: list.stream_id,
            fetched: of.at,
            ..RemoteDeviceList::default()
        };
        put_list(&mut batch, *user, before.as_ref(), &after);
        // Who asked for the keys before the list was first known has them from the same server, and was told of every change
        // since.
        let was_known = before.is_some_and(|before| before.fetched > Pos::ZERO);
        if was_known && !changes.is_empty() {
            record_change(view, &mut batch, *user, changes)?;
        }
        Ok(Step::write(batch, Kept::Kept))
    }

    /// Notes that a list could not be fetched, and when to try again.
    pub async fn put_off_list(&self, of: StaleList, until: Millis) -> Result<(), Failure> {
        let e2ee = self.clone();
        self.0
            .store
            .change(move |view| {
                let before = view.get::<RemoteDeviceLists>(&of.user)?;
                let Some(before) = before.filter(|before| before.updates == of.row.updates) else {
                    return Ok::<_, Failure>(Step::nothing(()));
                };
                let mut batch = Batch::new();
                if e2ee.sharing(view, of.user, Pos::ZERO)? == Sharing::Nothing {
                    Self::forget_list(&mut batch, of.user, &before);
                    return Ok(Step::write(batch, ()));
                }
                let after = RemoteDeviceList {
                    failures: before.failures.saturating_add(1),
                    next_attempt: until,
                    ..before.clone()
                };
                put_list(&mut batch, of.user, Some(&before), &after);
                Ok(Step::write(batch, ()))
            })
            .await
    }

    /// Does one bounded piece of tidying: forgets lists of users with whom no room is shared any more. Returns where the next
    /// one goes on; none at the end.
    pub async fn tidy_lists(&self, after: Option<UserNum>) -> Result<Option<UserNum>, Failure> {
        let e2ee = self.clone();
        let looked_at = self.0.store.change(move |view| {
            let rest = match after {
                Some(after) => Scan::all().after(&after),
                None => Scan::all(),
            };
            let mut batch = Batch::new();
            let mut last = None;
            let mut count = 0;
            for row in view.scan::<RemoteDeviceLists>(rest.limit(LISTS_A_STEP)) {
                let (user, row) = row?;
                if e2ee.sharing(view, user, Pos::ZERO)? == Sharing::Nothing {
                    Self::forget_list(&mut batch, user, &row);
                }
                last = Some(user);
                count += 1;
            }
            let next = last.filter(|_| count == LISTS_A_STEP);
            Ok::<_, Failure>(if batch.is_empty() {
                Step::nothing(next)
            } else {
                Step::write(batch, next)
            })
        });
        looked_at.await
    }
}
