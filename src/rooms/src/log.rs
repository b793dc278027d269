//! The floor of the log: what the server's janitor calls from time to time.

use myelin_data::log::{Cursors, Log};
use myelin_store::{Batch, Scan, StoreError, View};
use myelin_types::Pos;

use crate::{Failure, Rooms};

/// How many rows are deleted in one batch, so that a janitor with much to do lets requests through.
const ROWS_A_BATCH: usize = 1_000;

impl Rooms {
    /// Deletes rows of the log that every reader has dealt with, a bounded number at a time. Answers how many; call again
    /// while it is not 0. Without readers everything up to the watermark goes.
    pub async fn trim_log(&self) -> Result<usize, Failure> {
        let read = |view: &View| {
            let mut floor = view.pos();
            for row in view.scan::<Cursors>(Scan::all()) {
                floor = floor.min(row?.1.0);
            }
            let done = Scan::all()
                .until(&Pos(floor.0.saturating_add(1)))
                .limit(ROWS_A_BATCH);
            view.scan::<Log>(done)
                .map(|row| row.map(|(pos, _)| pos))
                .collect::<Result<Vec<_>, StoreError>>()
        };
        let done = self.0.store.read(read).await?;
        if done.is_empty() {
            return Ok(0);
        }
        let mut batch = Batch::new();
        for pos in &done {
            batch.delete::<Log>(pos);
        }
        self.0.store.commit(batch).await?;
        Ok(done.len())
    }
}
