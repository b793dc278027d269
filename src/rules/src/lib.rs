//! src/rules
