//! `GET /_matrix/client/versions`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientversions>

use ruma::api::client::discovery::get_supported_versions::{Request as Operation, Response};

use crate::extract::{Reply, Request};

/// The versions of the specification whose clients find what they need here. A version is added when what it asks of a
/// server works.
const VERSIONS: [&str; 10] = [
    "v1.1", "v1.2", "v1.3", "v1.4", "v1.5", "v1.6", "v1.7", "v1.8", "v1.9", "v1.10",
];

/// Answers with the versions.
pub(crate) async fn get(_: Request<Operation>) -> Reply<Response> {
    Reply(Response::new(VERSIONS.map(str::to_owned).to_vec()))
}
