//! `GET /_matrix/federation/v1/user/devices/{userId}`
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1userdevicesuserid>

use axum::{Json, extract::State};
use myelin_e2ee::{OwnDevice, OwnList};
use myelin_federation::Federation;
use ruma::{OwnedUserId, api::federation::device::get_devices::v1::Request as Operation};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::{
    error::{Refusal, Result},
    extract::Request,
};

/// The answer. Keys are copied as they are.
#[derive(Serialize)]
pub(crate) struct Answer {
    user_id: OwnedUserId,
    stream_id: u64,
    devices: Vec<Entry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    master_key: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    self_signing_key: Option<Box<RawValue>>,
}

#[derive(Serialize)]
struct Entry {
    device_id: String,
    keys: Box<RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device_display_name: Option<String>,
}

impl From<OwnDevice> for Entry {
    fn from(device: OwnDevice) -> Self {
        Self {
            device_id: device.device_id,
            keys: device.keys.0,
            device_display_name: device.display_name,
        }
    }
}

/// The devices of a user of this server that have keys.
pub(crate) async fn get(
    State(federation): State<Federation>,
    request: Request<Operation>,
) -> Result<Json<Answer>> {
    let user_id = request.body.user_id;
    if user_id.server_name() != federation.server_name() {
        return Err(Refusal::invalid("The user is not of this server."));
    }
    let (e2ee, user) = (federation.e2ee().clone(), user_id.clone());
    let list = federation
        .rooms()
        .store()
        .read(move |view| e2ee.own_list(view, &user))
        .await
        .map_err(Refusal::internal)?
        .ok_or_else(|| Refusal::not_found("There is no such user."))?;
    let OwnList {
        stream_id,
        devices,
        master,
        self_signing,
    } = list;
    Ok(Json(Answer {
        user_id,
        stream_id,
        devices: devices.into_iter().map(Entry::from).collect(),
        master_key: master.map(|key| key.0),
        self_signing_key: self_signing.map(|key| key.0),
    }))
}

#[cfg(test)]
mod tests {
    use http::Method;
    use myelin_data::{
        RawJson,
        e2ee::{CrossSigningKeys, CrossSigningUsage, DeviceKeys, DeviceListChange, record_change},
    };
    use myelin_store::Batch;
    use serde_json::json;

    use crate::testing::Here;

    #[tokio::test]
    async fn a_list_has_the_devices_with_keys_and_its_version() {
        let here = Here::new().await;
        let alice = here.register("alice").await;
        let get = async |user: &str| {
            let path = format!("/_matrix/federation/v1/user/devices/{user}");
            here.signed(Method::GET, &path, None).await
        };
        let empty = get("@alice:here.example").await.ok();
        let expected = json!({ "user_id": "@alice:here.example", "stream_id": 0, "devices": [] });
        assert_eq!(empty, expected);

        let keys = json!({ "user_id": "@alice:here.example", "device_id": "D", "keys": {} });
        let master = json!({ "user_id": "@alice:here.example", "usage": ["master"], "keys": {} });
        let store = here.rooms.store();
        let mut batch = Batch::new();
        let json = |value| RawJson::of(value).expect("it is JSON");
        batch.put::<DeviceKeys>(&(alice, "D".to_owned()), &json(&keys));
        batch.put::<CrossSigningKeys>(&(alice, CrossSigningUsage::Master), &json(&master));
        // What is no change of a device has a number that others do not see.
        let changes = [
            DeviceListChange::Device("D".to_owned()),
            DeviceListChange::CrossSigning,
        ];
        record_change(&store.view(), &mut batch, alice, changes).expect("the store reads");
        store.commit(batch).await.expect("the store works");
        let list = get("@alice:here.example").await.ok();
        let expected = json!({
            "user_id": "@alice:here.example",
            "stream_id": 1,
            "devices": [{ "device_id": "D", "keys": keys }],
            "master_key": master,
        });
        assert_eq!(list, expected);
    }

    #[tokio::test]
    async fn only_lists_of_users_of_this_server_are_told() {
        let here = Here::new().await;
        for (user, status, errcode) in [
            ("@nobody:here.example", 404, "M_NOT_FOUND"),
            ("@charlie:there.example", 400, "M_INVALID_PARAM"),
            ("nobody", 400, "M_INVALID_PARAM"),
        ] {
            let path = format!("/_matrix/federation/v1/user/devices/{user}");
            here.signed(Method::GET, &path, None)
                .await
                .refused(status, errcode);
        }
    }
}
