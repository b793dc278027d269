//! What the store has done so far, in numbers that do not depend on the machine.

use std::sync::atomic::{AtomicU64, Ordering};

/// Work done since the store was opened. Tests and benchmarks compare these.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Batches committed.
    pub batches: u64,
    /// Rows put.
    pub puts: u64,
    /// Rows deleted one by one.
    pub deletes: u64,
    /// Prefixes deleted.
    pub range_deletes: u64,
    /// Bytes of keys and values written.
    pub bytes: u64,
    /// Synced writes; each carries one batch or more.
    pub group_commits: u64,
    /// Keys looked up, whether found or not.
    pub gets: u64,
    /// Ranges walked.
    pub scans: u64,
    /// Rows seen while walking.
    pub rows_scanned: u64,
    /// Reads that needed the disk and ran a second time, on the blocking pool.
    pub reruns: u64,
}

/// Memory held by the store's engine, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// What everything together is bounded by.
    pub budget: usize,
    /// Blocks read from disk, and whatever else is charged to their cache (the memtables are).
    pub block_cache: usize,
    /// The part of it that is in use at the moment and cannot be given up.
    pub pinned: usize,
    /// Rows written and not yet in files.
    pub memtables: usize,
}

macro_rules! tallies {
    ($($field:ident),*) => {
        /// The counters while they count.
        #[derive(Debug, Default)]
        pub(crate) struct Tallies {
            $(pub(crate) $field: AtomicU64,)*
        }

        impl Tallies {
            pub(crate) fn read(&self) -> Counters {
                Counters { $($field: self.$field.load(Ordering::Relaxed),)* }
            }
        }
    };
}

tallies!(
    batches,
    puts,
    deletes,
    range_deletes,
    bytes,
    group_commits,
    gets,
    scans,
    rows_scanned,
    reruns
);

/// Adds to a tally. Relaxed: nothing is ordered by these numbers.
pub(crate) fn add(tally: &AtomicU64, count: usize) {
    tally.fetch_add(count as u64, Ordering::Relaxed);
}
