//! Presence: who is there.

mod get;
mod set;

use myelin_rooms::PresenceError;
use ruma::api::client::presence::{get_presence, set_presence};

use crate::{Limit, error::Refusal, routes::Routes, shared::refuse_failure};

/// The routes of this family.
pub(crate) fn routes(routes: Routes) -> Routes {
    routes
        .operation::<get_presence::v3::Request, _, _>(Limit::Read, get::get)
        .operation::<set_presence::v3::Request, _, _>(Limit::Read, set::set)
}

fn refuse(error: PresenceError) -> Refusal {
    match error {
        PresenceError::TooLong => Refusal::invalid("The status message is too long."),
        PresenceError::NotShared => {
            Refusal::forbidden("You are not allowed to see their presence.")
        }
        PresenceError::Failure(failure) => refuse_failure(failure),
    }
}
