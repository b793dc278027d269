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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::Method;
    use serde_json::Value;

    use crate::testing::{PASSWORD, Server, proof, text};

    #[tokio::test]
    async fn a_device_is_shown_to_its_owner() {
        let (server, mut alice, bob) = Server::with_two_users().await;
        let mut body = proof(&alice, PASSWORD);
        body["device_id"] = "login_device".into();
        body["initial_device_display_name"] = "device display".into();
        let answer = server.stranger(Method::POST, "/login", &body).await.ok();
        let first = std::mem::replace(&mut alice.token, text(&answer["access_token"]));
        for _ in 0..2 {
            let mut device = Value::Null;
            // Nobody waits for the note of the last request to be written.
            for _ in 0..1000 {
                device = server.get("/devices/login_device", &alice).await.ok();
                if device["last_seen_ts"].is_number() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            assert_eq!(device["device_id"], "login_device");
            assert_eq!(device["display_name"], "device display");
            assert_eq!(device["last_seen_ip"], "127.0.0.1");
            assert_eq!(device["last_seen_ts"], 1_700_000_000_000_u64);
        }
        alice.token = first;
        server.get("/devices/login_device", &alice).await.ok();
        server
            .get("/devices/unknown_device", &alice)
            .await
            .refused(404, "M_NOT_FOUND");
        server
            .get("/devices/login_device", &bob)
            .await
            .refused(404, "M_NOT_FOUND");
    }
}
