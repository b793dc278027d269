//! Typing, receipts and read markers.

mod read_markers;
mod receipt;
mod typing;

use myelin_rooms::ReceiptError;
use ruma::api::client::{
    read_marker::set_read_marker, receipt::create_receipt, typing::create_typing_event,
};

use crate::{
    Limit,
    error::Refusal,
    routes::Routes,
    shared::{not_in_room, refuse_failure},
};

/// The routes of this family.
pub(crate) fn routes(routes: Routes) -> Routes {
    routes
        .operation::<create_typing_event::v3::Request, _, _>(Limit::Send, typing::set)
        .operation::<create_receipt::v3::Request, _, _>(Limit::Send, receipt::set)
        .operation::<set_read_marker::v3::Request, _, _>(Limit::Send, read_markers::set)
}

/// What receipts and read markers are refused with.
fn refuse_receipt(error: ReceiptError) -> Refusal {
    match error {
        ReceiptError::RoomNotFound | ReceiptError::NotInRoom => not_in_room(),
        ReceiptError::NotInThread => Refusal::invalid("The event is not in that thread."),
        ReceiptError::Failure(failure) => refuse_failure(failure),
    }
}
