//! src/rooms
