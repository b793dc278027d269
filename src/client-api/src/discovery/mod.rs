//! What the server is, what it can do, and where it is found.

mod capabilities;
mod versions;
mod well_known_client;
mod well_known_server;
mod well_known_support;

use http::Method;
use myelin_config::{BaseUrl, SupportContact};
use ruma::{
    OwnedServerName,
    api::client::discovery::{
        discover_homeserver, discover_support, get_capabilities, get_supported_versions,
    },
};

use crate::{Access, Limit, routes::Routes};

/// What the server says of itself without looking into its store.
#[derive(Clone, Debug)]
pub struct About {
    /// Where clients find it; without it they are told nothing.
    pub client_base_url: Option<BaseUrl>,
    /// Where other servers find it, if not at its name.
    pub federation: Option<OwnedServerName>,
    /// A page with help.
    pub support_page: Option<BaseUrl>,
    /// Whom to ask for help.
    pub support_contacts: Vec<SupportContact>,
    /// The version of rooms that are created without saying one.
    pub default_room_version: myelin_rules::RoomVersion,
}

/// The routes of this family.
pub(crate) fn routes(routes: Routes) -> Routes {
    routes
        .operation::<get_supported_versions::Request, _, _>(Limit::Free, versions::get)
        .operation::<get_capabilities::v3::Request, _, _>(Limit::Read, capabilities::get)
        .operation::<discover_homeserver::Request, _, _>(Limit::Free, well_known_client::get)
        .operation::<discover_support::Request, _, _>(Limit::Free, well_known_support::get)
        .path(
            &Method::GET,
            "/.well-known/matrix/server",
            Access::Public,
            Limit::Free,
            well_known_server::get,
        )
}
