//! What the rows will be once the group in hand is written: the snapshot below, the group's accepted batches above.

use std::collections::HashMap;

use crate::{
    batch::Batch,
    engine::{EngineError, ReadError, Snapshot, Tier, Write},
    error::CommitError,
};

/// Rows of a group that is being put together.
pub(crate) struct Overlay<'a> {
    base: &'a dyn Snapshot,
    /// The last edit of a key: its turn, and the value if it was not a delete.
    rows: HashMap<(&'static str, &'a [u8]), (usize, Option<&'a [u8]>)>,
    /// Deleted ranges (start inclusive, end exclusive) with their turns.
    ranges: Vec<(usize, &'static str, &'a [u8], &'a [u8])>,
    turn: usize,
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
                Some(value) => expected.holds(value),
                None => {
                    let mut holds = None;
                    let mut visit = |stored: &[u8]| holds = Some(expected.holds(Some(stored)));
                    self.base
                        .get(expected.table, expected.key, Tier::Disk, &mut visit)
                        .map_err(|error| match error {
                            ReadError::Failed(error) => CommitError::Engine(error),
                            ReadError::NotInMemory => CommitError::Engine(EngineError::new(
                                "a blocking read did not reach the disk",
                            )),
                        })?;
                    holds.unwrap_or_else(|| expected.holds(None))
                }
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
                    self.rows.insert((table, key), (self.turn, Some(value)));
                }
                Write::Delete { table, key } => {
                    self.rows.insert((table, key), (self.turn, None));
                }
                Write::DeleteRange { table, start, end } => {
                    self.ranges.push((self.turn, table, start, end));
                }
            }
        }
    }

    /// What the group has made of a key, if it has touched it.
    fn edited(&self, table: &'static str, key: &[u8]) -> Option<Option<&'a [u8]>> {
        let row = self.rows.get(&(table, key)).copied();
        let deleted_at = self
            .ranges
            .iter()
            .filter(|(_, of, start, end)| *of == table && (*start..*end).contains(&key))
            .map(|(turn, ..)| *turn)
            .max();
        match (row, deleted_at) {
            (Some((put_at, _)), Some(deleted_at)) if deleted_at > put_at => Some(None),
            (Some((_, value)), _) => Some(value),
            (None, Some(_)) => Some(None),
            (None, None) => None,
        }
    }
}
