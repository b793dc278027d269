//! What can go wrong, by operation.

use std::path::PathBuf;

use thiserror::Error;

use crate::{codec::CodecError, engine::EngineError};

/// Why a directory was not opened. Where nothing else is said, not a byte in it has been changed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// There is something in the directory, and it is not a database.
    #[error("{} is not empty and holds no database", dir.display())]
    NotADatabase {
        /// The directory.
        dir: PathBuf,
    },
    /// The database belongs to another program.
    #[error("{} holds the database of {}, not of {expected}", dir.display(), found.as_deref().unwrap_or("another program"))]
    ForeignProduct {
        /// The directory.
        dir: PathBuf,
        /// The product it names, if it names one as we do.
        found: Option<String>,
        /// The product that was to be opened.
        expected: &'static str,
    },
    /// A newer version of the program has written here.
    #[error("the database in {} has schema {found}, this program knows schemas up to {known}", dir.display())]
    NewerSchema {
        /// The directory.
        dir: PathBuf,
        /// Its schema.
        found: u32,
        /// The schema that was to be opened.
        known: u32,
    },
    /// The database says it has our schema, but a table of it is not there.
    #[error("the database in {} lacks the table {table}", dir.display())]
    MissingTable {
        /// The directory.
        dir: PathBuf,
        /// The table's name.
        table: &'static str,
    },
    /// Another process, or another store of this process, has it open.
    #[error("the database in {} is in use by another process", dir.display())]
    InUse {
        /// The directory.
        dir: PathBuf,
    },
    /// Two tables of the catalogue have the same name, or one has a name the store needs itself.
    #[error("the table name {table} is taken")]
    TableName {
        /// The name.
        table: &'static str,
    },
    /// The directory could not be read or made.
    #[error("access {}", dir.display())]
    Directory {
        /// The directory.
        dir: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The engine failed, for example because files are damaged. It may have written its own recovery.
    #[error("open the database in {}", dir.display())]
    Engine {
        /// The directory.
        dir: PathBuf,
        /// The cause.
        source: EngineError,
    },
    /// The committer's thread could not be started.
    #[error("start the committer")]
    Thread(#[source] std::io::Error),
}

/// Which half of a row could not be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowPart {
    /// The key.
    Key,
    /// The value.
    Value,
}

impl std::fmt::Display for RowPart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            RowPart::Key => "key",
            RowPart::Value => "value",
        })
    }
}

/// Why a read failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The row is not in memory and this view may not wait for the disk. [`Store::read`](crate::Store::read) turns
    /// this into a second attempt; its callers never see it.
    #[error("the row is not in memory")]
    WouldBlock,
    /// A stored row is not what its table's codec writes.
    #[error("decode a {part} of table {table}")]
    Codec {
        /// The table's name.
        table: &'static str,
        /// Key or value.
        part: RowPart,
        /// The cause.
        source: CodecError,
    },
    /// A row that another row points to is not there. Says of which table.
    #[error("a row of table {0} is missing")]
    Missing(&'static str),
    /// The engine failed.
    #[error("read from the database")]
    Engine(#[from] EngineError),
    /// The runtime is shutting down, and the read was not begun.
    #[error("the server is shutting down")]
    Closed,
}

/// Why a batch was not committed. Unless said otherwise, nothing of it was written.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum CommitError {
    /// Something the batch assumed is not so (any more).
    #[error("a row of table {table} is not as expected")]
    Expectation {
        /// The table's name.
        table: &'static str,
    },
    /// A key is longer than [`MAX_KEY_BYTES`](crate::MAX_KEY_BYTES).
    #[error("a key of table {table} is too long")]
    KeyTooLong {
        /// The table's name.
        table: &'static str,
    },
    /// The engine failed, now or for an earlier batch; the store takes no more batches. No reader of this process
    /// sees the batch. After a restart it is there whole or not at all.
    #[error("write to the database")]
    Engine(#[from] EngineError),
    /// The store has been closed.
    #[error("the store is closed")]
    Closed,
}
