//! `GET /_matrix/client/v3/login`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3login>

use ruma::api::client::session::get_login_types::v3::{
    LoginType, PasswordLoginType, Request as Operation, Response,
};

use crate::extract::{Reply, Request};

/// Answers with the ways to log in.
pub(crate) async fn get(_: Request<Operation>) -> Reply<Response> {
    Reply(Response::new(vec![LoginType::Password(
        PasswordLoginType::new(),
    )]))
}
