//! The store over a real RocksDB in a temporary directory.

mod checkpoint;
mod commit;
mod crash;
mod open;
mod read;
mod support;
