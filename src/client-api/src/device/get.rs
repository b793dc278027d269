//! `GET /_matrix/client/v3/devices/{deviceId}`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3devicesdeviceid>

use axum::extract::State;
use myelin_accounts::Accounts;
use myelin_rooms::Rooms;
use ruma::api::client::device::get_device::v3::{Request as Operation, Response};

use super::wire;
use crate::{
    error::{Refusal, Result},
    extract::{Reply, Request},
};

/// Answers with one of the caller's devices.
pub(crate) async fn get(
    State(accounts): State<Accounts>,
    State(rooms): State<Rooms>,
    request: Request<Operation>,
) -> Result<Reply<Response>> {
    let user = request.caller.user;
    let device_id = request.body.device_id;
    let device = rooms
        .store()
        .read(move |view| accounts.device(view, user, &device_id))
        .await
        .map_err(Refusal::internal)?
        .ok_or_else(|| Refusal::not_found("You have no such device."))?;
    Ok(Reply(Response::new(wire(device))))
}
