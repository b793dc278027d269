//! Typed tables over an ordered key-value engine, and the committer that gives every batch its place in the log.
//!
//! Is: the codecs of keys and values, batches with expectations, group commit, views at the watermark, RocksDB.
//! Is not: any knowledge of Matrix; it does not know what the tables mean. Nothing outside sees a RocksDB type.
//!
//! Three things are promised:
//! - A batch is durable and whole before its caller is answered, or it never happened.
//! - [`Pos`](myelin_types::Pos) order is the order of the calls of [`Store::commit`].
//! - A [`View`] shows exactly the batches up to its position, however long it is kept.
//!
//! RocksDB calls block. This crate decides where they run: [`Store::read`] tries inline against what is in memory
//! and goes to the blocking pool when the disk is needed; commits run on the committer's own thread. [`Store::change`] does
//! both for changes that depend on what is there.

mod batch;
mod change;
mod codec;
mod committer;
mod counters;
mod engine;
mod error;
mod identity;
mod key;
mod overlay;
mod queue;
mod rocks;
mod scan;
mod store;
mod table;
mod value;
mod view;

pub use batch::{Batch, Topic};
pub use change::Step;
pub use codec::{CodecError, Parser, Writer};
pub use committer::{Commit, Observer};
pub use counters::{Counters, Memory};
pub use engine::EngineError;
pub use error::{CommitError, OpenError, RowPart, StoreError};
pub use key::{Key, MAX_KEY_BYTES};
pub use scan::Scan;
pub use store::{Options, Store};
pub use table::{Profile, Table, TableSpec};
pub use value::Value;
pub use view::View;
