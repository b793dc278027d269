//! Tables from which it is counted what a user has not read.
//!
//! Each entry of a [`Timeline`](crate::rooms::Timeline) carries a running total of what notifies everybody. The tables
//! here say what such totals cannot: which entries are to be looked at one by one, and how far users have read by
//! writing themselves. None has a row for each member that an event reaches.

use myelin_store::{CodecError, Parser, Value, Writer};
use myelin_types::{Pos, RoomNum, UserNum};
use serde::{Deserialize, Serialize};

use crate::{Present, postcard_value, rooms::Place, table};

/// The name of the main timeline among threads.
pub const MAIN: &str = "main";

table! {
    /// The entries of a timeline of which running totals do not tell all: they may notify or highlight for some users
    /// only, are in a thread, or were redacted. Written with the entry, or with the redaction. History that is filled in
    /// notifies nobody and has no rows. Floor: the room's purge (and retention, per room), with the entries themselves.
    Notables = "notables", Scan, (RoomNum, Place) => Notable
}

table! {
    /// Where events stand that were redacted, by the position of the batch that did it: counts that were made before that
    /// may have counted them. At most one row an event. Floor as [`Notables`].
    RedactedPlaces = "redacted_places", Scan, (RoomNum, Pos, Place) => Present
}

table! {
    /// The newest message of a local user in each thread of a room (`main`, or the thread's root): whoever writes has read
    /// what stands above. Overwritten in place, and shown to nobody. Floor: the room's purge.
    LastSent = "last_sent", Churn, (RoomNum, UserNum, String) => Sent
}

table! {
    /// Unread counts of a user in a room (thread `main` or a thread's root event id, empty for the whole room), true at
    /// the place that each names. Floor: rows of threads go when a receipt overtakes them, all go with the membership.
    UnreadCounts = "unread_counts", Churn, (UserNum, RoomNum, String) => UnreadCount
}

/// What running totals do not tell of an entry of a timeline.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notable {
    /// The root of the thread that the event is in; none for the main timeline.
    pub thread: Option<String>,
    /// Whether the event was redacted, so that it counts for nobody.
    pub redacted: bool,
}
postcard_value!(Notable, 1);

/// The newest message of a user in a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// The position of the batch that stored it.
    pub pos: Pos,
    /// Where it stands.
    pub place: Place,
}

impl Value for Sent {
    const VERSION: u8 = 1;

    fn encode(&self, writer: &mut Writer) {
        writer.pos(self.pos);
        writer.postcard(&self.place);
    }

    fn decode(version: u8, parser: &mut Parser<'_>) -> Result<Self, CodecError> {
        match version {
            1 => Ok(Sent {
                pos: parser.pos()?,
                place: parser.postcard()?,
            }),
            other => Err(CodecError::UnknownVersion(other)),
        }
    }
}

/// Counts of what a user has not read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnreadCount {
    /// The place up to which events were counted.
    pub at: Place,
    /// The position at which was counted: what became true later, receipts, rules and redactions, is not in it.
    pub known: Pos,
    /// Events that notify.
    pub notifications: u64,
    /// Events that notify and highlight.
    pub highlights: u64,
    /// How many users were joined to the room then, which push rules may ask for.
    pub joined: u64,
}

impl Value for UnreadCount {
    const VERSION: u8 = 2;

    fn encode(&self, writer: &mut Writer) {
        writer.postcard(self);
    }

    fn decode(version: u8, parser: &mut Parser<'_>) -> Result<Self, CodecError> {
        match version {
            // Those were approximate where much was unread. Their position, of a receipt, is too old rather than too new.
            1 => {
                let (at, known, notifications, highlights) = parser.postcard()?;
                Ok(UnreadCount {
                    at,
                    known,
                    notifications,
                    highlights,
                    joined: 0,
                })
            }
            2 => parser.postcard(),
            other => Err(CodecError::UnknownVersion(other)),
        }
    }
}
