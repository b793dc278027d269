//! What the tests of this family share.

use http::Method;
use serde_json::{Value, json};

use super::DEVICE;
use crate::{
    keys::testing::{Pen, device_keys},
    testing::{Answer, Server, User},
};

/// A device of `user` that has no session.
pub(super) fn dehydrated(user: &User, device_id: &str) -> User {
    User {
        device: device_id.to_owned(),
        ..user.clone()
    }
}

/// What makes a device.
pub(super) fn body(device: &User, pen: &Pen) -> Value {
    json!({
        "device_id": device.device,
        "device_data": { "algorithm": "m.dehydration.v2", "device_pickle": "abc" },
        "device_keys": device_keys(device, pen),
    })
}

/// Makes a request of this family; `rest` is what follows in its path.
pub(super) async fn request(
    server: &Server,
    method: Method,
    rest: &str,
    user: &User,
    body: &Value,
) -> Answer {
    let body = match body {
        Value::Null => Vec::new(),
        body => body.to_string().into_bytes(),
    };
    let path = format!("{DEVICE}{rest}");
    server.send(method, &path, Some(&user.token), body).await
}
