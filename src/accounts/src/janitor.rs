//! What is thrown away when its time has come.

use std::time::Duration;

use myelin_data::accounts::{OpenIdTokens, Transactions, TransactionsByTime};
use myelin_store::{Batch, CommitError, Scan};

use crate::{Accounts, Failure};

/// How long a transaction is remembered. A client that repeats a request after that makes it anew.
const TRANSACTIONS_KEPT: Duration = Duration::from_hours(24);

/// How many transactions are deleted with one batch.
const AT_ONCE: usize = 1000;

impl Accounts {
    /// Does one bounded piece of tidying: forgets user-interactive sessions that have expired, and deletes up to a
    /// thousand transactions that are older than a day, and as many OpenID tokens that have ended. Returns whether there
    /// may be more to do at once.
    ///
    /// Access and refresh tokens need no tidying: they go with their session, and a session has two of each at most.
    pub async fn tidy(&self) -> Result<bool, Failure> {
        let now = self.now();
        self.0.uia.sweep(now);
        let oldest_kept = u64::try_from(TRANSACTIONS_KEPT.as_millis())
            .map_or(0, |kept| now.0.saturating_sub(kept));
        let (batch, most) = self
            .0
            .store
            .read(move |view| -> Result<_, Failure> {
                let mut batch = Batch::new();
                let mut tokens = 0;
                let ended = Scan::all().until(&(now.0, [0; 32])).limit(AT_ONCE);
                for key in view.keys::<OpenIdTokens>(ended) {
                    batch.delete::<OpenIdTokens>(&key?);
                    tokens += 1;
                }
                let mut count = 0;
                let old = Scan::all().until(&oldest_kept).limit(AT_ONCE);
                for key in view.keys::<TransactionsByTime>(old) {
                    let key = key?;
                    batch.delete::<TransactionsByTime>(&key);
                    count += 1;
                    let (at, user, device, path, id) = key;
                    let transaction = (user, device, path, id);
                    // The device may have been deleted, and another of that name have made the same transaction since.
                    if let Some(row) = view.get::<Transactions>(&transaction)?
                        && row.at.0 == at
                    {
                        batch.expect::<Transactions>(&transaction, Some(&row));
                        batch.delete::<Transactions>(&transaction);
                    }
                }
                Ok((batch, count.max(tokens)))
            })
            .await?;
        if most == 0 {
            return Ok(false);
        }
        match self.0.store.commit(batch).await {
            Ok(_) => Ok(most == AT_ONCE),
            // One of them was made anew just now: the next round sees that.
            Err(CommitError::Expectation { .. }) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }
}
