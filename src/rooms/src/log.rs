//! The floors of the log and of transactions: what the server's janitor calls from time to time.

use std::time::Duration;

use myelin_data::{
    accounts::{Transactions, TransactionsByTime},
    log::{Cursors, Log},
};
use myelin_store::{Batch, Scan, StoreError, View};
use myelin_types::{Millis, Pos};

use crate::{Failure, Rooms};

/// How long the server knows a transaction id. Clients repeat a request within minutes.
const TRANSACTION_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

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

    /// Deletes transactions older than a day, a bounded number at a time. Answers how many; call again while it is not 0.
    pub async fn expire_transactions(&self, now: Millis) -> Result<usize, Failure> {
        let until = now.0.saturating_sub(TRANSACTION_LIFETIME.as_millis() as u64);
        let read = move |view: &View| {
            let old = Scan::all().until(&until).limit(ROWS_A_BATCH);
            view.scan::<TransactionsByTime>(old)
                .map(|row| row.map(|(key, _)| key))
                .collect::<Result<Vec<_>, StoreError>>()
        };
        let old = self.0.store.read(read).await?;
        if old.is_empty() {
            return Ok(0);
        }
        let mut batch = Batch::new();
        for key in &old {
            batch.delete::<TransactionsByTime>(key);
            let (_, user, device_id, path, id) = key.clone();
            batch.delete::<Transactions>(&(user, device_id, path, id));
        }
        self.0.store.commit(batch).await?;
        Ok(old.len())
    }
}
