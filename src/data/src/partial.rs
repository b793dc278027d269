//! Rooms that were entered with a part of their state only, and what came into them meanwhile.

use myelin_store::{CodecError, Parser, Value, Writer};
use myelin_types::{EventNum, Pos, RoomNum};
use serde::{Deserialize, Serialize};

use crate::{Present, table};

table! {
    /// How far the state of a room is known that was entered without its members. One row at most for each room; of rooms
    /// whose state came at once there is none. Floor: the room's purge.
    PartialJoins = "partial_joins", Point, RoomNum => PartialJoin
}

table! {
    /// Events that were judged by a state that is not whole, and are judged again when it is. Floor: that, or the next time
    /// the room is entered; the room's purge.
    PartialEvents = "partial_events", Scan, (RoomNum, EventNum) => Present
}

/// How far the state of a room is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PartialJoin {
    /// Members are missing.
    Incomplete(Incomplete),
    /// Nothing has been missing since this position: the rest came, or the stay ended. What a client was told before may lack
    /// members.
    Complete(Pos),
}

/// What is needed to complete the state of a room.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incomplete {
    /// The join with which the room was entered: the state before it is what is missing.
    pub join: EventNum,
    /// The server that let the user in.
    pub server: String,
    /// Those that are in the room, by what it said.
    pub servers: Vec<String>,
}

impl Value for PartialJoin {
    const VERSION: u8 = 1;

    fn encode(&self, writer: &mut Writer) {
        match self {
            Self::Incomplete(incomplete) => {
                writer.u8(0);
                writer.postcard(incomplete);
            }
            Self::Complete(pos) => {
                writer.u8(1);
                writer.pos(*pos);
            }
        }
    }

    fn decode(version: u8, parser: &mut Parser<'_>) -> Result<Self, CodecError> {
        if version != 1 {
            return Err(CodecError::UnknownVersion(version));
        }
        match parser.u8()? {
            0 => parser.postcard().map(Self::Incomplete),
            1 => parser.pos().map(Self::Complete),
            _ => Err(CodecError::Invalid("how far a room's state is known")),
        }
    }
}

#[cfg(test)]
mod tests {
    use myelin_store::{Parser, Value, Writer};
    use myelin_types::{EventNum, Pos};

    use super::{Incomplete, PartialJoin};

    #[test]
    fn rows_are_read_as_they_were_written() {
        let incomplete = Incomplete {
            join: EventNum(7),
            server: "a.org".to_owned(),
            servers: vec!["a.org".to_owned(), "b.org".to_owned()],
        };
        for row in [
            PartialJoin::Incomplete(incomplete),
            PartialJoin::Complete(Pos(9)),
        ] {
            let mut writer = Writer::new();
            row.encode(&mut writer);
            let mut parser = Parser::new(writer.as_bytes());
            let read = PartialJoin::decode(PartialJoin::VERSION, &mut parser);
            assert_eq!(read.expect("what was written can be read"), row);
            parser.finish().expect("all of it");
        }
    }
}
