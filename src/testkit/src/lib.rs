//! Real servers for tests: in this process, on loopback, with a real database in a temporary directory.
//!
//! Is: starting, stopping, killing and restarting servers, alone or several that know each other ([`Federated`]), and a
//! small client that speaks JSON with them.
//! Is not: part of the product. Whatever does not go as a test expects panics with what was said on the wire.

mod client;
mod federated;
mod ports;
mod server;
mod tls;

pub use client::{Client, Reply, encoded, http_client};
pub use federated::{Federated, FederatedBuilder};
pub use ports::ReservedPort;
pub use server::{Builder, TestServer};
pub use tls::Authority;

/// The password of every user whom [`TestServer::register`] makes.
pub const PASSWORD: &str = "correct horse battery staple";
