//! One-time keys that somebody claims.
//!
//! Spec: client-server API, `POST /keys/claim`. Keys go in the order in which they were uploaded, each to one request. When
//! there is none left, the fallback key is handed out.

use std::collections::BTreeMap;

use myelin_data::{
    RawJson,
    e2ee::{
        FallbackKey, FallbackKeys, KeyCount, KeyCounts, OneTimeKey, OneTimeKeyPlaces, OneTimeKeys,
    },
    topic::Changed,
};
use myelin_store::{Batch, Scan, Step, StoreError, View};
use myelin_types::{Pos, UserNum};
use ruma::{OwnedDeviceId, OwnedUserId};

use crate::{E2ee, Failure, upload::hash_of};

/// Of how many devices keys are claimed in one batch: others wait for the locks of all of them.
const AT_ONCE: usize = 64;

/// A key that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyToClaim {
    /// Whose.
    pub user_id: OwnedUserId,
    /// Of which device.
    pub device_id: OwnedDeviceId,
    /// Of which algorithm.
    pub algorithm: String,
}

/// A key that was handed out.
#[derive(Clone, Debug)]
pub struct ClaimedKey {
    /// Whose.
    pub user_id: OwnedUserId,
    /// Of which device.
    pub device_id: OwnedDeviceId,
    /// Its id, `<algorithm>:<key id>`.
    pub key_id: String,
    /// The key.
    pub key: RawJson,
}

type DeviceRow = (UserNum, String);

impl E2ee {
    /// Hands out a key of each of these devices of local users, where there is one. A device is named once at most.
    ///
    /// When this returns, it is durable that the keys are gone.
    pub async fn claim_keys(&self, wanted: Vec<KeyToClaim>) -> Result<Vec<ClaimedKey>, Failure> {
        let rooms = self.0.rooms.clone();
        let found = self
            .0
            .store
            .read(move |view| {
                let mut found = BTreeMap::new();
                for key in &wanted {
                    if rooms.is_local(&key.user_id)
                        && let Some(user) = rooms.interner().find_user(view, &key.user_id)?
                    {
                        found.insert((user, key.device_id.to_string()), key.clone());
                    }
                }
                Ok::<_, StoreError>(found)
            })
            .await?;
        let found: Vec<(DeviceRow, KeyToClaim)> = found.into_iter().collect();
        let mut claimed = Vec::new();
        for some in found.chunks(AT_ONCE) {
            claimed.append(&mut self.claim_some(some.to_vec()).await?);
        }
        Ok(claimed)
    }

    async fn claim_some(
        &self,
        wanted: Vec<(DeviceRow, KeyToClaim)>,
    ) -> Result<Vec<ClaimedKey>, Failure> {
        let _locks = self
            .0
            .locks
            .of(wanted.iter().map(|(device, _)| device))
            .await;
        self.0.store.change(move |view| claim(view, &wanted)).await
    }
}

fn claim(
    view: &View,
    wanted: &[(DeviceRow, KeyToClaim)],
) -> Result<Step<Vec<ClaimedKey>>, Failure> {
    let devices: Vec<DeviceRow> = wanted.iter().map(|(device, _)| device.clone()).collect();
    let counts = view.multi_get::<KeyCounts>(&devices)?;
    let (mut batch, mut claimed) = (Batch::new(), Vec::new());
    let mut without = Vec::new();
    for ((device, key), count) in wanted.iter().zip(&counts) {
        let Some(count) = count else { continue };
        match first_key(view, device, &key.algorithm, count)? {
            Some((row, found)) => {
                claimed.push(handed_out(key, &found.key_id, &found.key));
                take(&mut batch, (device, count), row, &found);
            }
            None => without.push((device, key, count)),
        }
    }
    let rows: Vec<_> = without
        .iter()
        .map(|((user, device_id), key, _)| (*user, device_id.clone(), key.algorithm.clone()))
        .collect();
    let fallbacks = view.multi_get::<FallbackKeys>(&rows)?;
    for ((row, (device, key, count)), fallback) in rows.iter().zip(without).zip(fallbacks) {
        let Some(fallback) = fallback else { continue };
        claimed.push(handed_out(key, &fallback.key_id, &fallback.key));
        if !fallback.used {
            let used = FallbackKey {
                used: true,
                ..fallback
            };
            batch.put::<FallbackKeys>(row, &used);
            let mut left = count.clone();
            left.unused_fallback
                .retain(|algorithm| *algorithm != key.algorithm);
            recount(&mut batch, device, count, &left);
        }
    }
    Ok(if batch.is_empty() {
        Step::nothing(claimed)
    } else {
        Step::write(batch, claimed)
    })
}

type KeyRow = (UserNum, String, String, Pos, u32);

/// The key that was uploaded first.
fn first_key(
    view: &View,
    (user, device_id): &DeviceRow,
    algorithm: &str,
    count: &KeyCount,
) -> Result<Option<(KeyRow, OneTimeKey)>, StoreError> {
    let counted = |(counted, _): &(String, u64)| counted == algorithm;
    if !count.one_time.iter().any(counted) {
        return Ok(None);
    }
    let prefix = (*user, device_id.clone(), algorithm.to_owned());
    view.scan::<OneTimeKeys>(Scan::prefix(&prefix).limit(1))
        .next()
        .transpose()
}

/// Takes a key away, so that nobody else gets it.
fn take(
    batch: &mut Batch,
    (device, count): (&DeviceRow, &KeyCount),
    row: KeyRow,
    found: &OneTimeKey,
) {
    batch.delete::<OneTimeKeys>(&row);
    let (user, device_id, algorithm, ..) = row;
    let id = format!("{algorithm}:{}", found.key_id);
    let place = (user, device_id, algorithm, found.key_id.clone());
    batch.delete::<OneTimeKeyPlaces>(&place);
    let mut left = count.clone();
    for (counted, count) in &mut left.one_time {
        if *counted == place.2 {
            *count -= 1;
        }
    }
    left.one_time.retain(|(_, count)| *count > 0);
    left.handed_out.push(hash_of(id, &found.key));
    let forgotten = left
        .handed_out
        .len()
        .saturating_sub(KeyCount::MOST_HANDED_OUT);
    left.handed_out.drain(..forgotten);
    recount(batch, device, count, &left);
}

/// Writes how many keys are left. The row is expected as it was: whoever took the same key meanwhile has changed it.
fn recount(batch: &mut Batch, device: &DeviceRow, before: &KeyCount, left: &KeyCount) {
    batch.expect::<KeyCounts>(device, Some(before));
    batch.put::<KeyCounts>(device, left);
    batch.touch(Changed::KeyCounts(device.0).into());
}

fn handed_out(wanted: &KeyToClaim, key_id: &str, key: &RawJson) -> ClaimedKey {
    ClaimedKey {
        user_id: wanted.user_id.clone(),
        device_id: wanted.device_id.clone(),
        key_id: format!("{}:{key_id}", wanted.algorithm),
        key: key.clone(),
    }
}
