//! The devices of a user.

mod delete;
mod delete_many;
mod get;
mod list;
mod rename;

use myelin_accounts::DeviceInfo;
use ruma::{
    MilliSecondsSinceUnixEpoch, UInt,
    api::client::device::{
        Device, delete_device, delete_devices, get_device, get_devices, update_device,
    },
};

use crate::{Limit, routes::Routes};

/// The routes of this family.
pub(crate) fn routes(routes: Routes) -> Routes {
    routes
        .operation::<get_devices::v3::Request, _, _>(Limit::Read, list::list)
        .operation::<get_device::v3::Request, _, _>(Limit::Read, get::get)
        .operation::<update_device::v3::Request, _, _>(Limit::Read, rename::rename)
        .operation::<delete_device::v3::Request, _, _>(Limit::Login, delete::delete)
        .operation::<delete_devices::v3::Request, _, _>(Limit::Login, delete_many::delete)
}

/// A device as the API shows it.
fn wire(info: DeviceInfo) -> Device {
    let mut device = Device::new(info.device_id);
    device.display_name = info.display_name;
    device.last_seen_ip = info.last_seen_ip;
    device.last_seen_ts = info
        .last_seen_at
        .and_then(|at| UInt::new(at.0))
        .map(MilliSecondsSinceUnixEpoch);
    device
}
