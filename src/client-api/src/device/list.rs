//! `GET /_matrix/client/v3/devices`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3devices>

use axum::extract::State;
use myelin_accounts::Accounts;
use myelin_rooms::Rooms;
use ruma::api::client::device::get_devices::v3::{Request as Operation, Response};

use super::wire;
use crate::{
    error::{Refusal, Result},
    extract::{Reply, Request},
};

/// Lists the caller's devices.
pub(crate) async fn list(
    State(accounts): State<Accounts>,
    State(rooms): State<Rooms>,
    request: Request<Operation>,
) -> Result<Reply<Response>> {
    let user = request.caller.user;
    let devices = rooms
        .store()
        .read(move |view| accounts.devices(view, user))
        .await
        .map_err(Refusal::internal)?;
    Ok(Reply(Response::new(
        devices.into_iter().map(wire).collect(),
    )))
}
