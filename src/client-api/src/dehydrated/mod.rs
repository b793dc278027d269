//! Dehydrated devices, which take keys for a user who is nowhere logged in.
//!
//! MSC3814, under its unstable prefix:
//! <https://github.com/matrix-org/matrix-spec-proposals/blob/main/proposals/3814-dehydrated-devices-with-ssss.md>

mod delete;
mod events;
mod get;
mod put;
#[cfg(test)]
mod testing;

use http::Method;
use serde::Serialize;

use crate::{
    Limit,
    routes::{Access, Routes},
};

const DEVICE: &str = "/_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device";
const EVENTS: &str =
    "/_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device/{device_id}/events";

/// The routes of this family.
pub(crate) fn routes(routes: Routes) -> Routes {
    let (user, read) = (Access::User, Limit::Read);
    routes
        .path(&Method::PUT, DEVICE, user, read, put::put)
        .path(&Method::GET, DEVICE, user, read, get::get)
        .path(&Method::DELETE, DEVICE, user, read, delete::delete)
        .path(&Method::POST, EVENTS, user, read, events::list)
}

/// The answer that names a device.
#[derive(Serialize)]
pub(crate) struct Named {
    device_id: String,
}
