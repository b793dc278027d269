//! The log itself, the cursors of its readers, and the counters that numbers are taken from.

use myelin_store::{CodecError, Parser, Value, Writer};
use myelin_types::{EventNum, Pos, RoomNum};

use crate::{postcard_value, table};

table! {
    /// What each position appended: the events of its batch, for readers that tell others (federation, push, bridges).
    ///
    /// Floor: rows below the lowest cursor of [`Cursors`] are range-deleted by the rooms' janitor; without readers
    /// everything up to the watermark goes.
    Log = "log", Scan, Pos => LogRow
}

table! {
    /// How far each durable reader of the log has come, by the reader's name. Bounded by the number of readers.
    Cursors = "cursors", Counter, String => Cursor
}

table! {
    /// The next number of each kind that is reserved, by the kind's name. A handful of rows.
    Counters = "counters", Counter, String => Counter
}

/// The events that one batch appended, in the order of their timeline.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LogRow {
    /// Room and number of each event.
    pub events: Vec<(RoomNum, EventNum)>,
}
postcard_value!(LogRow, 1);

/// The last position that a reader has dealt with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor(pub Pos);

impl Value for Cursor {
    const VERSION: u8 = 1;

    fn encode(&self, writer: &mut Writer) {
        writer.pos(self.0);
    }

    fn decode(version: u8, parser: &mut Parser<'_>) -> Result<Self, CodecError> {
        match version {
            1 => parser.pos().map(Cursor),
            other => Err(CodecError::UnknownVersion(other)),
        }
    }
}

/// A counter's value: every number below it may be in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Counter(pub u64);
postcard_value!(Counter, 1);
