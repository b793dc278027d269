//! src/runtime
