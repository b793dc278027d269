//! Snapshots of RocksDB that keep their database alive.

use std::sync::Arc;

use rocksdb::{DB, DBRawIterator, ReadOptions, ReadTier, Snapshot as DbSnapshot};
use self_cell::self_cell;

use super::{column_family, read_failure};
use crate::engine::{Cursor, Direction, ReadError, Row, Snapshot, Tier};

self_cell!(
    /// RocksDB's snapshot borrows the database; together they can be handed around. The snapshot is dropped first.
    struct Held {
        owner: Arc<DB>,
        #[covariant]
        dependent: DbSnapshot,
    }
);

pub(crate) struct RocksSnapshot(Held);

impl RocksSnapshot {
    pub(crate) fn take(db: Arc<DB>) -> Self {
        Self(Held::new(db, |db| db.snapshot()))
    }
}

impl Snapshot for RocksSnapshot {
    fn get(
        &self,
        table: &'static str,
        key: &[u8],
        tier: Tier,
        visit: &mut dyn FnMut(&[u8]),
    ) -> Result<(), ReadError> {
        let family = column_family(self.0.borrow_owner(), table).map_err(ReadError::Failed)?;
        let found = self
            .0
            .borrow_dependent()
            .get_pinned_cf_opt(family, key, options(tier))
            .map_err(read_failure)?;
        if let Some(value) = found {
            visit(&value);
        }
        Ok(())
    }

    fn multi_get(
        &self,
        table: &'static str,
        keys: &[&[u8]],
        tier: Tier,
        visit: &mut dyn FnMut(usize, &[u8]),
    ) -> Result<(), ReadError> {
        // RocksDB's batched lookup reads blocks from disk whatever tier is asked for.
        if tier == Tier::Memory {
            for (index, key) in keys.iter().enumerate() {
                self.get(table, key, tier, &mut |value| visit(index, value))?;
            }
            return Ok(());
        }
        let db = self.0.borrow_owner();
        let family = column_family(db, table).map_err(ReadError::Failed)?;
        let mut options = options(tier);
        options.set_snapshot(self.0.borrow_dependent());
        let sorted = keys.is_sorted();
        let found = db.batched_multi_get_cf_opt(family, keys.iter().copied(), sorted, &options);
        for (index, value) in found.into_iter().enumerate() {
            if let Some(value) = value.map_err(read_failure)? {
                visit(index, &value);
            }
        }
        Ok(())
    }

    fn scan<'a>(
        &'a self,
        table: &'static str,
        start: Vec<u8>,
        end: Option<Vec<u8>>,
        direction: Direction,
        tier: Tier,
    ) -> Result<Box<dyn Cursor + 'a>, ReadError> {
        let family = column_family(self.0.borrow_owner(), table).map_err(ReadError::Failed)?;
        let mut options = options(tier);
        options.set_iterate_lower_bound(start);
        if let Some(end) = end {
            options.set_iterate_upper_bound(end);
        }
        let rows = self
            .0
            .borrow_dependent()
            .raw_iterator_cf_opt(family, options);
        Ok(Box::new(RocksCursor {
            rows,
            direction,
            started: false,
        }))
    }
}

fn options(tier: Tier) -> ReadOptions {
    let mut options = ReadOptions::default();
    if tier == Tier::Memory {
        options.set_read_tier(ReadTier::BlockCache);
    }
    options
}

struct RocksCursor<'a> {
    rows: DBRawIterator<'a>,
    direction: Direction,
    started: bool,
}

impl Cursor for RocksCursor<'_> {
    fn next(&mut self) -> Result<Option<Row<'_>>, ReadError> {
        match (self.direction, self.started) {
            (Direction::Forward, false) => self.rows.seek_to_first(),
            (Direction::Forward, true) => self.rows.next(),
            (Direction::Reverse, false) => self.rows.seek_to_last(),
            (Direction::Reverse, true) => self.rows.prev(),
        }
        self.started = true;
        if !self.rows.valid() {
            // The end, or a block that is not in memory: only the status tells them apart.
            self.rows.status().map_err(read_failure)?;
        }
        Ok(self.rows.item())
    }
}
