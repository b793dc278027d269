//! `PUT /_matrix/client/v3/devices/{deviceId}`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3devicesdeviceid>

use axum::extract::State;
use myelin_accounts::{Accounts, DeviceError};
use ruma::api::client::device::update_device::v3::{Request as Operation, Response};

use crate::{
    error::{Refusal, Result},
    extract::{Reply, Request},
};

fn refuse(error: DeviceError) -> Refusal {
    match error {
        DeviceError::NotFound => Refusal::not_found("You have no such device."),
        DeviceError::NameTooLong => Refusal::too_large("The name is too long."),
        DeviceError::Failed(cause) => Refusal::internal(cause),
    }
}

/// Gives one of the caller's devices another name.
pub(crate) async fn rename(
    State(accounts): State<Accounts>,
    request: Request<Operation>,
) -> Result<Reply<Response>> {
    let Request { body, caller, .. } = request;
    accounts
        .set_device_name(caller.user, &body.device_id, body.display_name)
        .await
        .map_err(refuse)?;
    Ok(Reply(Response::new()))
}
