//! How many one-time and fallback keys a device has on the server: every answer says it, and it is remembered.

use std::{collections::BTreeMap, sync::Arc};

use myelin_data::{e2ee::KeyCounts, topic::Changed};
use myelin_rooms::read::Viewer;
use myelin_store::{Observer, StoreError, Topic, View};
use myelin_types::{Pos, UserNum};
use quick_cache::sync::Cache;

use crate::changes::LastChanges;

/// What the counts of a device take in memory.
const DEVICE: usize = 320;
/// The algorithm of which clients want to be told even that they have no keys: some upload none before they were.
const ALWAYS_TOLD: &str = "signed_curve25519";

/// What is told of a device's keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    /// One-time keys by algorithm.
    pub(crate) one_time: BTreeMap<String, u64>,
    /// The algorithms whose fallback key was not used.
    pub(crate) unused_fallback: Vec<String>,
}

/// The counts of devices that sync. An entry holds as long as no keys of its user come or go.
pub(crate) struct KeyCountsCache {
    devices: Cache<(UserNum, String), (Pos, Arc<Told>)>,
    changes: LastChanges,
}

impl KeyCountsCache {
    /// A cache of at most about so many bytes.
    pub(crate) fn new(bytes: usize) -> Self {
        Self {
            devices: Cache::new((bytes / 2 / DEVICE).max(16)),
            changes: LastChanges::new(bytes / 2),
        }
    }

    /// Says that nothing up to `watermark` will be noted.
    pub(crate) fn start(&self, watermark: Pos) {
        self.changes.start(watermark);
    }

    /// What is told of the keys of the device that asks.
    pub(crate) fn of(&self, view: &View, viewer: &Viewer) -> Result<Arc<Told>, StoreError> {
        let Some(device_id) = &viewer.device_id else {
            return Ok(Arc::default());
        };
        let device = (viewer.user, device_id.clone());
        let last = self.changes.last(view, viewer.user);
        if let Some((at, told)) = self.devices.get(&device)
            && last.is_some_and(|last| last <= at.min(view.pos()))
        {
            return Ok(told);
        }
        let count = view.get::<KeyCounts>(&device)?.unwrap_or_default();
        let mut told = Told {
            one_time: count.one_time.into_iter().collect(),
            unused_fallback: count.unused_fallback,
        };
        told.one_time.entry(ALWAYS_TOLD.to_owned()).or_default();
        let told = Arc::new(told);
        self.devices.insert(device, (view.pos(), Arc::clone(&told)));
        Ok(told)
    }
}

impl Observer for KeyCountsCache {
    fn committed(&self, pos: Pos, topics: &[Topic]) {
        for topic in topics {
            if let Some(Changed::KeyCounts(user)) = Changed::from_topic(*topic) {
                self.changes.note(pos, user);
            }
        }
        self.changes.noted(pos);
    }
}
