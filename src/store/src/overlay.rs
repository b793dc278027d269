//! What the rows will be once the group in hand is written: the snapshot below, the group's accepted batches above.

use std::collections::HashMap;

use crate::{
    batch::{Batch, Expected},
    engine::{EngineError, ReadError, Snapshot, Tier, Write},
    error::CommitError,
};

/// Rows of a group that is being put together.
pub(crate) struct Overlay<'a> {
    base: &'a dyn Snapshot,
    /// The last edit of each key, with its turn.
    rows: HashMap<(&'static str, &'a [u8]), (usize, Edited<'a>)>,
    /// Deleted ranges (start inclusive, end exclusive) with their turns.
    ranges: Vec<(usize, &'static str, &'a [u8], &'a [u8])>,
    turn: usize,
}

/// What a group has made of a key.
#[derive(Clone, Copy)]
enum Edited<'a> {
    Untouched,
    Put(&'a [u8]),
    Deleted,
}

impl<'a> Overlay<'a> {
    pub(crate) fn new(base: &'a dyn Snapshot) -> Self {
        Self {
            base,
            rows: HashMap::new(),
            ranges: Vec::new(),
            turn: 0,
        }
    }

    /// Whether everything that `batch` assumes holds.
    pub(crate) fn check(&self, batch: &Batch) -> Result<(), CommitError> {
        for expected in batch.expectations() {
            let holds = match self.edited(expected.table, expected.key) {
                Edited::Put(value) => expected.holds(Some(value)),
                Edited::Deleted => expected.holds(None),
                Edited::Untouched => self.holds_below(&expected)?,
            };
            if !holds {
                return Err(CommitError::Expectation {
                    table: expected.table,
                });
            }
        }
        Ok(())
    }

    /// Lays the edits of `batch` on top.
    pub(crate) fn apply(&mut self, batch: &'a Batch) {
        for write in batch.writes() {
            self.turn += 1;
            match write {
                Write::Put { table, key, value } => {
                    self.rows
                        .insert((table, key), (self.turn, Edited::Put(value)));
                }
                Write::Delete { table, key } => {
                    self.rows.insert((table, key), (self.turn, Edited::Deleted));
                }
                Write::DeleteRange { table, start, end } => {
                    self.ranges.push((self.turn, table, start, end));
                }
            }
        }
    }

    /// Whether an assumption holds for a row that the group has not touched.
    fn holds_below(&self, expected: &Expected<'_>) -> Result<bool, CommitError> {
        let mut holds = None;
        let mut visit = |stored: &[u8]| holds = Some(expected.holds(Some(stored)));
        self.base
            .get(expected.table, expected.key, Tier::Disk, &mut visit)
            .map_err(|error| match error {
                ReadError::Failed(error) => error,
                ReadError::NotInMemory => {
                    EngineError::new("the engine did not go to the disk for a blocking read")
                }
            })?;
        Ok(holds.unwrap_or_else(|| expected.holds(None)))
    }

    fn edited(&self, table: &'static str, key: &[u8]) -> Edited<'a> {
        let row = self.rows.get(&(table, key)).copied();
        let deleted_at = self
            .ranges
            .iter()
            .filter(|(_, of, start, end)| *of == table && (*start..*end).contains(&key))
            .map(|(turn, ..)| *turn)
            .max();
        match (row, deleted_at) {
            (Some((edited_at, _)), Some(deleted_at)) if deleted_at > edited_at => Edited::Deleted,
            (Some((_, edited)), _) => edited,
            (None, Some(_)) => Edited::Deleted,
            (None, None) => Edited::Untouched,
        }
    }
}
