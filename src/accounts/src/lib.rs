//! src/accounts
