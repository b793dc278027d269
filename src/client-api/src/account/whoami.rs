//! `GET /_matrix/client/v3/account/whoami`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3accountwhoami>

use ruma::api::client::account::whoami::v3::{Request as Operation, Response};

use crate::extract::{Reply, Request};

/// Answers whose token it is.
pub(crate) async fn get(request: Request<Operation>) -> Reply<Response> {
    let mut response = Response::new(request.caller.user_id, false);
    response.device_id = Some(request.caller.device_id);
    Reply(response)
}
