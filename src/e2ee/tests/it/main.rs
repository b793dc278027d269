//! End-to-end encryption against a real store.

mod backups;
mod cross_signing;
mod keys;
mod support;
