//! Real servers for tests: in this process, on loopback, with a real database in a temporary directory.
//!
//! Is: starting, stopping and restarting servers, and a small client that speaks JSON with them.
//! Is not: part of the product. Whatever does not go as a test expects panics with what was said on the wire.

mod client;
mod server;

pub use client::{Client, Reply, encoded, http_client};
pub use server::{Builder, TestServer};

/// The password of every user whom [`TestServer::register`] makes.
pub const PASSWORD: &str = "correct horse battery staple";
