//! src/client-api
