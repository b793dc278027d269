//! The engine over RocksDB. Its types stay in here.

mod open;
mod profile;
mod snapshot;

use std::{path::Path, sync::Arc};

use rocksdb::{
    Cache, ColumnFamily, DB, ErrorKind, FlushOptions, WriteBatch, WriteBufferManager, WriteOptions,
    checkpoint::Checkpoint,
};

use crate::{
    counters::Memory,
    engine::{Engine, EngineError, ReadError, Snapshot, Write},
};

pub(crate) use open::open;

/// An open RocksDB with a column family for each table.
pub(crate) struct Rocks {
    db: Arc<DB>,
    pools: Pools,
    tables: Vec<&'static str>,
}

/// The least and the most that rows which are not in files yet may take: less would make files of a few rows each, and
/// more would take minutes of a busy server's writes, which are no faster for it, and that long to read again after a crash.
const LEAST_UNFLUSHED: usize = 2 << 20;
const MOST_UNFLUSHED: usize = 64 << 20;

/// What all column families share.
pub(crate) struct Pools {
    budget: usize,
    /// How many bytes of rows make the engine write them to files. They go on taking memory while that is done, and others
    /// come meanwhile: under a steady load up to twice as much.
    unflushed: usize,
    /// Blocks, filters, indexes; memtables and blobs are charged to it, so that blocks make room for rows.
    cache: Cache,
    memtables: WriteBufferManager,
}

impl Pools {
    fn new(budget: usize) -> Self {
        let cache = Cache::new_lru_cache(budget);
        // Writers are not stalled when it is full: the column family with the oldest rows is flushed instead.
        let unflushed = (budget / 3).clamp(LEAST_UNFLUSHED, MOST_UNFLUSHED);
        let memtables = WriteBufferManager::new_write_buffer_manager_with_cache(
            unflushed,
            false,
            cache.clone(),
        );
        Self {
            budget,
            unflushed,
            cache,
            memtables,
        }
    }
}

impl Engine for Rocks {
    fn snapshot(&self) -> Box<dyn Snapshot> {
        Box::new(snapshot::RocksSnapshot::take(Arc::clone(&self.db)))
    }

    fn commit(&self, writes: &mut dyn Iterator<Item = Write<'_>>) -> Result<(), EngineError> {
        let mut batch = WriteBatch::default();
        for write in writes {
            match write {
                Write::Put { table, key, value } => {
                    batch.put_cf(column_family(&self.db, table)?, key, value);
                }
                Write::Delete { table, key } => {
                    batch.delete_cf(column_family(&self.db, table)?, key);
                }
                Write::DeleteRange { table, start, end } => {
                    batch.delete_range_cf(column_family(&self.db, table)?, start, end);
                }
            }
        }
        self.db.write_opt(batch, &durably()).map_err(failure)
    }

    fn checkpoint(&self, dir: &Path) -> Result<(), EngineError> {
        Checkpoint::new(&self.db)
            .and_then(|checkpoint| checkpoint.create_checkpoint(dir))
            .map_err(failure)
    }

    fn flush(&self) -> Result<(), EngineError> {
        let tables = self.tables.iter();
        let families = tables
            .map(|table| column_family(&self.db, table))
            .collect::<Result<Vec<_>, _>>()?;
        let families: Vec<&&ColumnFamily> = families.iter().collect();
        self.db
            .flush_cfs_opt(&families, &FlushOptions::default())
            .map_err(failure)
    }

    fn memory(&self) -> Memory {
        Memory {
            budget: self.pools.budget,
            block_cache: self.pools.cache.get_usage(),
            pinned: self.pools.cache.get_pinned_usage(),
            memtables: self.pools.memtables.get_usage(),
        }
    }
}

/// The write-ahead log is synced before the write counts.
fn durably() -> WriteOptions {
    let mut options = WriteOptions::default();
    options.set_sync(true);
    options
}

fn column_family<'a>(db: &'a DB, table: &str) -> Result<&'a ColumnFamily, EngineError> {
    db.cf_handle(table)
        .ok_or_else(|| EngineError::new(format!("the table {table} is not in the catalogue")))
}

fn failure(error: rocksdb::Error) -> EngineError {
    EngineError::new(error.into_string())
}

fn read_failure(error: rocksdb::Error) -> ReadError {
    match error.kind() {
        ErrorKind::Incomplete => ReadError::NotInMemory,
        _ => ReadError::Failed(failure(error)),
    }
}
