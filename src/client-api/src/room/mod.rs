//! Making rooms and sending events to them.

mod create_room;
mod redact;
mod send_message;
mod send_state;

use http::Method;
use ruma::api::client::{
    message::send_message_event, redact::redact_event, room::create_room as create_operation,
    state::send_state_event,
};

use crate::{
    Access, Limit,
    routes::{Routes, STATE_WITHOUT_KEY},
};

/// The routes of this family.
pub(crate) fn routes(mut routes: Routes) -> Routes {
    for path in STATE_WITHOUT_KEY {
        routes = routes.path(
            &Method::PUT,
            path,
            Access::User,
            Limit::Send,
            send_state::send,
        );
    }
    routes
        .operation::<create_operation::v3::Request, _, _>(Limit::Join, create_room::create)
        .operation::<send_message_event::v3::Request, _, _>(Limit::Send, send_message::send)
        .operation::<send_state_event::v3::Request, _, _>(Limit::Send, send_state::send)
        .operation::<redact_event::v3::Request, _, _>(Limit::Send, redact::redact)
}
