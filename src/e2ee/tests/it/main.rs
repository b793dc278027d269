//! End-to-end encryption against a real store.

mod backups;
mod support;
