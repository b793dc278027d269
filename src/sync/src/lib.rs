//! src/sync
