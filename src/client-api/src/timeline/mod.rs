//! Reading what happened in a room.

mod context;
mod event;
mod messages;
mod timestamp;

use ruma::api::client::{
    context::get_context,
    message::get_message_events,
    room::{get_event_by_timestamp, get_room_event},
};

use crate::{Limit, routes::Routes};

/// The routes of this family.
pub(crate) fn routes(routes: Routes) -> Routes {
    routes
        .operation::<get_message_events::v3::Request, _, _>(Limit::Read, messages::page)
        .operation::<get_context::v3::Request, _, _>(Limit::Read, context::get)
        .operation::<get_room_event::v3::Request, _, _>(Limit::Read, event::get)
        .operation::<get_event_by_timestamp::v1::Request, _, _>(Limit::Read, timestamp::get)
}
