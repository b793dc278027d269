//! src/testkit
