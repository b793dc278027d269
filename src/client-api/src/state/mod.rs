//! Reading a room's state and its members.

mod get_state;
mod get_state_event;
mod joined_members;
mod members;

use http::Method;
use ruma::api::client::{
    membership::{get_member_events, joined_members as joined_members_operation},
    state::{get_state_event_for_key, get_state_events},
};

use crate::{
    Access, Limit,
    routes::{Routes, STATE_WITHOUT_KEY},
};

/// The routes of this family.
pub(crate) fn routes(mut routes: Routes) -> Routes {
    for path in STATE_WITHOUT_KEY {
        routes = routes.path(
            &Method::GET,
            path,
            Access::User,
            Limit::Read,
            get_state_event::get,
        );
    }
    routes
        .operation::<get_state_events::v3::Request, _, _>(Limit::Read, get_state::get)
        .operation::<get_state_event_for_key::v3::Request, _, _>(Limit::Read, get_state_event::get)
        .operation::<get_member_events::v3::Request, _, _>(Limit::Read, members::list)
        .operation::<joined_members_operation::v3::Request, _, _>(Limit::Read, joined_members::list)
}
