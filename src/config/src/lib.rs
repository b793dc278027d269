//! src/config
