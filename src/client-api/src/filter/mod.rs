//! Filters that clients store.

mod define;
mod get;

use ruma::api::client::filter::{create_filter, get_filter};

use crate::{Limit, routes::Routes};

/// The routes of this family.
pub(crate) fn routes(routes: Routes) -> Routes {
    routes
        .operation::<create_filter::v3::Request, _, _>(Limit::Read, define::define)
        .operation::<get_filter::v3::Request, _, _>(Limit::Read, get::get)
}
