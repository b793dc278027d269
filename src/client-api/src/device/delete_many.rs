//! `POST /_matrix/client/v3/delete_devices`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3delete_devices>

use axum::extract::State;
use myelin_accounts::{Accounts, Flow, LogoutError, Operation as Confirmed, Requester, Stage};
use ruma::{
    OwnedDeviceId,
    api::client::device::delete_devices::v3::{Request as Operation, Response},
};

use crate::{
    error::{Refusal, Result},
    extract::{Reply, Request},
    uia,
};

fn refuse(error: LogoutError) -> Refusal {
    match error {
        LogoutError::Failed(cause) => Refusal::internal(cause),
    }
}

/// Deletes devices of the caller and ends their sessions.
pub(crate) async fn delete(
    State(accounts): State<Accounts>,
    request: Request<Operation>,
) -> Result<Reply<Response>> {
    let Request {
        body, caller, raw, ..
    } = request;
    delete_confirmed(
        &accounts,
        "POST /delete_devices",
        &caller,
        &body.devices,
        &raw,
    )
    .await?;
    Ok(Reply(Response::new()))
}

/// Deletes devices once the caller has confirmed, with his password, that it is him: for these devices and no others.
pub(super) async fn delete_confirmed(
    accounts: &Accounts,
    operation: &str,
    caller: &Requester,
    devices: &[OwnedDeviceId],
    body: &[u8],
) -> Result<()> {
    let subject: Vec<&str> = devices.iter().map(|device| device.as_str()).collect();
    let subject = subject.join("\0");
    let operation = Confirmed {
        name: operation,
        subject: subject.as_bytes(),
        flows: &[Flow(vec![Stage::Password])],
        requester: Some(caller),
    };
    uia::confirm(accounts, &operation, body).await?;
    accounts
        .delete_devices(caller.user, devices.to_vec())
        .await
        .map_err(refuse)?;
    Ok(())
}
