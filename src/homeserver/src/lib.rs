//! src/homeserver
