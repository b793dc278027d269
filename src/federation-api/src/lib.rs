//! federation-api
