//! What the endpoints share through which other servers read of rooms.

use myelin_federation::Federation;
use myelin_rooms::remote::ServeError;
use myelin_rules::Pdu;
use ruma::{MilliSecondsSinceUnixEpoch, UInt};
use serde_json::value::RawValue;

use crate::error::{Refusal, Result};

/// What reads are refused with.
pub(crate) fn refuse(error: ServeError) -> Refusal {
    match error {
        ServeError::RoomNotFound => Refusal::no_such_room(),
        ServeError::EventNotFound => Refusal::not_found("There is no such event for your server."),
        ServeError::NotInRoom => Refusal::forbidden("Your server is not in this room."),
        ServeError::Incomplete => {
            Refusal::forbidden("This server does not know the whole state of the room yet.")
        }
        ServeError::Failure(failure) => Refusal::internal(failure),
    }
}

/// The event as servers exchange it.
pub(crate) fn text(event: &Pdu) -> Result<Box<RawValue>> {
    RawValue::from_string(event.json().to_owned()).map_err(Refusal::internal)
}

/// Events as servers exchange them.
pub(crate) fn texts<'a>(events: impl IntoIterator<Item = &'a Pdu>) -> Result<Vec<Box<RawValue>>> {
    events.into_iter().map(text).collect()
}

/// What time it is.
pub(crate) fn now(federation: &Federation) -> MilliSecondsSinceUnixEpoch {
    let now = federation.rooms().clock().now();
    MilliSecondsSinceUnixEpoch(UInt::new_saturating(now.0))
}
