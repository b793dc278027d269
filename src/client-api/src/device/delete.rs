//! `DELETE /_matrix/client/v3/devices/{deviceId}`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#delete_matrixclientv3devicesdeviceid>

use axum::extract::State;
use myelin_accounts::Accounts;
use ruma::api::client::device::delete_device::v3::{Request as Operation, Response};

use super::delete_many::delete_confirmed;
use crate::{
    error::Result,
    extract::{Reply, Request},
};

/// Deletes one of the caller's devices and ends its session.
pub(crate) async fn delete(
    State(accounts): State<Accounts>,
    request: Request<Operation>,
) -> Result<Reply<Response>> {
    let Request {
        body, caller, raw, ..
    } = request;
    delete_confirmed(
        &accounts,
        "DELETE /devices/{deviceId}",
        &caller,
        &[body.device_id],
        &raw,
    )
    .await?;
    Ok(Reply(Response::new()))
}
