//! Which servers are in which rooms, and from when to when.

use myelin_store::{CodecError, Parser, Value, Writer};
use myelin_types::{Pos, RoomNum};

use crate::{Present, table};

table! {
    /// The servers that are in a room, ours among them, and those that left it and have not been told so yet.
    ///
    /// Floor: the row of a server that left goes when that server has been sent what happened until then; ours at once.
    /// The room's purge.
    RoomServers = "room_servers", Scan, (RoomNum, String) => ServerInRoom
}

table! {
    /// The rooms of a server: one row for each of [`RoomServers`], written and deleted with it.
    ServerRooms = "server_rooms", Scan, (String, RoomNum) => Present
}

/// How many stays of a server in a room are remembered: of more the oldest are forgotten, so that a server which was
/// away all the while is not sent what happened during them.
const MOST_STAYS: usize = 8;

/// A server's relation to a room.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerInRoom {
    /// How many of its users are joined.
    pub joined: u64,
    /// When it was in the room, in their order; only the last may last until now.
    pub stays: Vec<Stay>,
}

/// The time between the first user's coming and the last one's leaving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stay {
    /// The position of the batch with which it began; [`Pos::ZERO`] if that was not remembered.
    pub from: Pos,
    /// The position of the batch with which it ended; none while it lasts.
    pub to: Option<Pos>,
}

impl Stay {
    /// Whether a position lies in it, its ends included: who comes or goes hears of that.
    pub fn includes(&self, pos: Pos) -> bool {
        self.from <= pos && self.to.is_none_or(|to| pos <= to)
    }
}

impl ServerInRoom {
    /// A server that is in the room since before its stays were remembered.
    pub fn long_there(joined: u64) -> Self {
        Self {
            joined,
            stays: vec![Stay {
                from: Pos::ZERO,
                to: None,
            }],
        }
    }

    /// Whether what happened in the room at a position concerns the server.
    pub fn was_there(&self, pos: Pos) -> bool {
        self.stays.iter().any(|stay| stay.includes(pos))
    }

    /// Whether it says something that only the commit of its batch makes definite.
    pub fn is_open(&self) -> bool {
        self.stays
            .iter()
            .any(|stay| stay.from == Pos::AT_COMMIT || stay.to == Some(Pos::AT_COMMIT))
    }

    /// Counts a user in. Answers whether a stay begins with him.
    pub fn enter(&mut self) -> bool {
        self.joined += 1;
        if self.joined > 1 {
            return false;
        }
        match self.stays.last_mut() {
            // It left in the same batch, so it never did.
            Some(last) if last.to == Some(Pos::AT_COMMIT) => last.to = None,
            _ => {
                if self.stays.len() >= MOST_STAYS {
                    self.stays.remove(0);
                }
                self.stays.push(Stay {
                    from: Pos::AT_COMMIT,
                    to: None,
                });
            }
        }
        true
    }

    /// Counts a user out. Answers whether the stay ends with him.
    pub fn leave(&mut self) -> bool {
        let last = self.joined == 1;
        self.joined = self.joined.saturating_sub(1);
        if last && let Some(stay) = self.stays.last_mut() {
            stay.to = Some(Pos::AT_COMMIT);
        }
        last
    }
}

impl Value for ServerInRoom {
    const VERSION: u8 = 1;

    fn encode(&self, writer: &mut Writer) {
        writer.u64(self.joined);
        for stay in &self.stays {
            writer.pos(stay.from);
            writer.u8(u8::from(stay.to.is_some()));
            if let Some(to) = stay.to {
                writer.pos(to);
            }
        }
    }

    fn decode(version: u8, parser: &mut Parser<'_>) -> Result<Self, CodecError> {
        if version != 1 {
            return Err(CodecError::UnknownVersion(version));
        }
        let joined = parser.u64()?;
        let mut stays = Vec::new();
        while !parser.is_empty() {
            let from = parser.pos()?;
            let to = match parser.u8()? {
                0 => None,
                1 => Some(parser.pos()?),
                _ => return Err(CodecError::Invalid("end of a stay")),
            };
            stays.push(Stay { from, to });
        }
        Ok(Self { joined, stays })
    }
}

#[cfg(test)]
mod tests {
    use super::{MOST_STAYS, Parser, Pos, ServerInRoom, Stay, Value, Writer};

    /// The row as the store has it once its batch is at `pos`.
    fn stored(row: &ServerInRoom, pos: u64) -> ServerInRoom {
        let definite = |at: Pos| if at == Pos::AT_COMMIT { Pos(pos) } else { at };
        let stays = row.stays.iter().map(|stay| Stay {
            from: definite(stay.from),
            to: stay.to.map(definite),
        });
        let row = ServerInRoom {
            joined: row.joined,
            stays: stays.collect(),
        };
        let mut writer = Writer::new();
        row.encode(&mut writer);
        let mut parser = Parser::new(writer.as_bytes());
        let read = ServerInRoom::decode(1, &mut parser).expect("what was written can be read");
        parser.finish().expect("all of it");
        assert_eq!(read, row);
        row
    }

    #[test]
    fn stays_begin_and_end_with_the_first_and_the_last_user() {
        let mut row = ServerInRoom::default();
        assert!(row.enter());
        assert!(row.is_open());
        row = stored(&row, 10);
        assert!(!row.enter());
        assert!(!row.is_open());
        assert!(!row.leave());
        assert!(row.leave());
        row = stored(&row, 20);
        assert!(row.enter());
        row = stored(&row, 30);
        let there: Vec<u64> = [9, 10, 15, 20, 21, 29, 30, 99]
            .into_iter()
            .filter(|pos| row.was_there(Pos(*pos)))
            .collect();
        assert_eq!(there, [10, 15, 20, 30, 99]);
        assert_eq!(row.joined, 1);
    }

    #[test]
    fn who_leaves_and_comes_in_one_batch_has_not_left() {
        let mut row = ServerInRoom::long_there(1);
        assert!(row.leave());
        assert!(row.enter());
        assert_eq!(row, ServerInRoom::long_there(1));
    }

    #[test]
    fn the_oldest_stays_are_forgotten() {
        let mut row = ServerInRoom::default();
        for pos in 0..50 {
            row.enter();
            row = stored(&row, 2 * pos + 1);
            row.leave();
            row = stored(&row, 2 * pos + 2);
        }
        assert_eq!(row.stays.len(), MOST_STAYS);
        assert!(row.was_there(Pos(99)) && !row.was_there(Pos(1)));
        assert_eq!(row.joined, 0);
    }
}
