//! The log itself, the cursors of its readers, and the counters that numbers are taken from.

use myelin_store::{CodecError, Parser, Value, Writer};
use myelin_types::{EventNum, Pos, RoomNum};

use crate::{postcard_value, table};

table! {
    /// What each position appended: the events of its batch, for readers that tell others (federation, push, bridges).
    ///
    /// Floor: rows below the lowest cursor of [`Cursors`] are deleted by the rooms' janitor; without readers everything up
    /// to the watermark goes.
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
    /// What was appended.
    pub events: Vec<Logged>,
    /// The room into which a server came, or which one left, with the batch.
    pub servers_of: Option<RoomNum>,
}

/// An event of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Logged {
    /// Its room.
    pub room: RoomNum,
    /// Its number.
    pub event: EventNum,
    /// Whether it is for this server to send it to the other servers of the room, as
    /// [`EventTraits`](crate::rooms::EventTraits) has it.
    pub outgoing: bool,
}

impl Value for LogRow {
    const VERSION: u8 = 2;

    fn encode(&self, writer: &mut Writer) {
        writer.postcard(self);
    }

    fn decode(version: u8, parser: &mut Parser<'_>) -> Result<Self, CodecError> {
        match version {
            1 => {
                let events: Vec<(RoomNum, EventNum)> = parser.postcard()?;
                let events = events.into_iter().map(|(room, event)| Logged {
                    room,
                    event,
                    // Nothing was sent to other servers then.
                    outgoing: false,
                });
                Ok(LogRow {
                    events: events.collect(),
                    servers_of: None,
                })
            }
            2 => parser.postcard(),
            other => Err(CodecError::UnknownVersion(other)),
        }
    }
}

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

#[cfg(test)]
mod tests {
    use super::{EventNum, LogRow, Logged, Parser, RoomNum, Value, Writer};

    #[test]
    fn rows_of_the_first_version_are_read() {
        let mut writer = Writer::new();
        writer.postcard(&vec![(RoomNum(3), EventNum(7))]);
        let row = LogRow::decode(1, &mut Parser::new(writer.as_bytes())).expect("it is known");
        let logged = Logged {
            room: RoomNum(3),
            event: EventNum(7),
            outgoing: false,
        };
        assert_eq!((row.events, row.servers_of), (vec![logged], None));
    }
}
