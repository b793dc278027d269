//! One at a time on the keys of a device.

use std::{
    collections::{BTreeSet, hash_map::DefaultHasher},
    hash::{Hash, Hasher},
};

use myelin_types::UserNum;
use tokio::sync::{Mutex, MutexGuard};

/// How many locks there are. Devices that share one wait for each other, which costs nothing but a little time.
const LOCKS: usize = 1024;

/// Locks of devices.
///
/// What is true of a device's keys is decided by what a batch expects; a lost race begins again. The locks keep those who
/// want keys of the same device from losing again and again, as when a whole room begins to write to it at once.
pub(crate) struct DeviceLocks(Vec<Mutex<()>>);

impl DeviceLocks {
    pub(crate) fn new() -> Self {
        Self((0..LOCKS).map(|_| Mutex::new(())).collect())
    }

    /// Waits for the locks of some devices, always in the same order, so that no two wait for each other.
    pub(crate) async fn of<'a>(
        &self,
        devices: impl IntoIterator<Item = &'a (UserNum, String)>,
    ) -> Vec<MutexGuard<'_, ()>> {
        let places: BTreeSet<usize> = devices.into_iter().map(place).collect();
        let mut guards = Vec::with_capacity(places.len());
        for place in places {
            guards.push(self.0[place].lock().await);
        }
        guards
    }
}

fn place(device: &(UserNum, String)) -> usize {
    let mut hasher = DefaultHasher::new();
    device.hash(&mut hasher);
    // The remainder is less than the number of locks, which is a usize.
    (hasher.finish() % LOCKS as u64) as usize
}
