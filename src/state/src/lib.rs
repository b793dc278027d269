//! src/state
