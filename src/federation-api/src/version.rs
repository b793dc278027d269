//! `GET /_matrix/federation/v1/version`
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1version>

use ruma::api::federation::discovery::get_server_version::v1::{Response, Server};

use crate::extract::Reply;

/// Which program this is. All crates of the workspace have one version.
pub(crate) async fn get() -> Reply<Response> {
    let mut server = Server::new();
    server.name = Some("Myelin".to_owned());
    server.version = Some(env!("CARGO_PKG_VERSION").to_owned());
    let mut response = Response::new();
    response.server = Some(server);
    Reply(response)
}
