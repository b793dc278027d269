//! What the rest of the crate needs of an ordered key-value engine, so that another can stand beside RocksDB.

use std::{path::Path, sync::Arc};

use thiserror::Error;

use crate::counters::Memory;

/// The table that exists in every database and belongs to the store itself.
pub(crate) const META: &str = "default";

/// What the engine says went wrong, in its own words.
#[derive(Clone, Debug, Error)]
#[error("{0}")]
pub struct EngineError(pub(crate) Arc<str>);

impl EngineError {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self(message.into().into())
    }
}

/// Why a read of the engine gave no answer.
#[derive(Debug)]
pub(crate) enum ReadError {
    /// The answer is not in memory, and only memory was to be asked.
    NotInMemory,
    Failed(EngineError),
}

/// How far a read may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tier {
    /// Memtables and block cache; never waits for the disk.
    Memory,
    /// Everything; blocks.
    Disk,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Forward,
    Reverse,
}

/// One edit of a batch.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Write<'a> {
    Put {
        table: &'static str,
        key: &'a [u8],
        value: &'a [u8],
    },
    Delete {
        table: &'static str,
        key: &'a [u8],
    },
    DeleteRange {
        table: &'static str,
        start: &'a [u8],
        end: &'a [u8],
    },
}

/// An ordered key-value engine with atomic batches and snapshots.
pub(crate) trait Engine: Send + Sync + 'static {
    /// Everything committed so far, and nothing that comes later.
    fn snapshot(&self) -> Box<dyn Snapshot>;

    /// Applies all writes in order, atomically and durably. Blocks until they are on disk.
    fn commit(&self, writes: &mut dyn Iterator<Item = Write<'_>>) -> Result<(), EngineError>;

    /// Makes `dir`, which must not exist, a database with everything committed so far.
    fn checkpoint(&self, dir: &Path) -> Result<(), EngineError>;

    /// Brings rows that only the log and the memory hold into files, so that the next start has nothing to read again.
    fn flush(&self) -> Result<(), EngineError>;

    fn memory(&self) -> Memory;
}

/// The rows of an engine at one moment.
pub(crate) trait Snapshot: Send + Sync {
    /// Shows the value under `key` to `visit`, if there is one.
    fn get(
        &self,
        table: &'static str,
        key: &[u8],
        tier: Tier,
        visit: &mut dyn FnMut(&[u8]),
    ) -> Result<(), ReadError>;

    /// Shows the value under each key to `visit`, with the key's index.
    fn multi_get(
        &self,
        table: &'static str,
        keys: &[&[u8]],
        tier: Tier,
        visit: &mut dyn FnMut(usize, &[u8]),
    ) -> Result<(), ReadError>;

    /// Walks the keys from `start` up to `end`, exclusive. Does not look for the first before it is asked to.
    fn scan<'a>(
        &'a self,
        table: &'static str,
        start: Vec<u8>,
        end: Option<Vec<u8>>,
        direction: Direction,
        tier: Tier,
    ) -> Result<Box<dyn Cursor + 'a>, ReadError>;
}

/// A key and its value.
pub(crate) type Row<'a> = (&'a [u8], &'a [u8]);

/// A place in a scan.
pub(crate) trait Cursor {
    /// The next row, if there is one more.
    fn next(&mut self) -> Result<Option<Row<'_>>, ReadError>;
}
