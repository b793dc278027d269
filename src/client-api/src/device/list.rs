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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use crate::testing::{Server, User, text};

    async fn ids(server: &Server, user: &User) -> BTreeSet<String> {
        let body = server.get("/devices", user).await.ok();
        let devices = body["devices"].as_array().expect("a list");
        devices
            .iter()
            .map(|device| text(&device["device_id"]))
            .collect()
    }

    #[tokio::test]
    async fn everybody_sees_his_own_devices() {
        let (server, alice, bob) = Server::with_two_users().await;
        assert_eq!(
            ids(&server, &alice).await,
            BTreeSet::from([alice.device.clone()])
        );
        let second = server.login("alice").await;
        let both = BTreeSet::from([alice.device.clone(), second.device.clone()]);
        assert_eq!(ids(&server, &alice).await, both);
        assert_eq!(ids(&server, &second).await, both);
        assert_eq!(
            ids(&server, &bob).await,
            BTreeSet::from([bob.device.clone()])
        );
    }
}
