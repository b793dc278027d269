//! What other servers sent and what waits to be dealt with.

use myelin_types::{Millis, RoomNum, UserNum};

use crate::{postcard_value, table};

table! {
    /// Events of other servers that were acknowledged and wait to be judged: each room's in the order in which they came.
    ///
    /// Floor: the batch that stores an event deletes its row, as does the decision to drop it; an event whose
    /// predecessors cannot be had is dropped after some attempts. How many rows there may be, and of how many bytes, in a
    /// room, of a server and in all, is bounded by the inbox. The room's purge.
    Inbox = "inbox", Churn, (RoomNum, u64) => InboxRow
}

table! {
    /// Receipts of other servers' users for events that have not come yet, by user and thread.
    ///
    /// Floor: the event's coming; the user's next receipt of the thread; a day. The inbox bounds how many wait in a room.
    /// The room's purge.
    AwaitedReceipts = "awaited_receipts", Churn, (RoomNum, UserNum, String) => AwaitedReceipt
}

/// An event that waits to be judged. Its format and its size were checked, nothing else.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct InboxRow {
    /// The server that sent it, which need not be its sender's.
    pub origin: String,
    /// Its id.
    pub event_id: String,
    /// When it came.
    pub received: Millis,
    /// Not before this is it tried again.
    pub due: Millis,
    /// How often it was tried in vain.
    pub attempts: u32,
    /// The event as canonical JSON, without `unsigned`.
    pub json: String,
}
postcard_value!(InboxRow, 1);

/// A receipt whose event is not known yet.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct AwaitedReceipt {
    /// The event.
    pub event_id: String,
    /// When the receipt was sent, as its server says.
    pub at: Millis,
    /// When it came.
    pub received: Millis,
}
postcard_value!(AwaitedReceipt, 1);
