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

/// Gives one of the caller's devices another name. A device that is not there is not made: the specification allows that to
/// application services alone, and none is known here. Once one can call, this is where it makes its devices (answered with
/// 201, and counted as a login).
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::testing::Server;

    #[tokio::test]
    async fn a_device_bears_its_new_name() {
        let (server, alice, bob) = Server::with_two_users().await;
        let path = format!("/devices/{}", alice.device);
        let name = async || server.get(&path, &alice).await.ok()["display_name"].clone();
        for _ in 0..2 {
            let body = json!({ "display_name": "new device display" });
            assert_eq!(server.put(&path, &alice, &body).await.ok(), json!({}));
            assert_eq!(name().await, "new device display");
        }
        // Without a name there is nothing to change.
        server.put(&path, &alice, &json!({})).await.ok();
        assert_eq!(name().await, "new device display");

        let body = json!({ "display_name": "x" });
        server
            .put("/devices/unknown_device", &alice, &body)
            .await
            .refused(404, "M_NOT_FOUND");
        server
            .put(&path, &bob, &body)
            .await
            .refused(404, "M_NOT_FOUND");
        let body = json!({ "display_name": "x".repeat(300) });
        server
            .put(&path, &alice, &body)
            .await
            .refused(413, "M_TOO_LARGE");
        let body = json!({ "display_name": 5 });
        server
            .put(&path, &alice, &body)
            .await
            .refused(400, "M_BAD_JSON");
        assert_ne!(name().await, Value::Null);
    }
}
