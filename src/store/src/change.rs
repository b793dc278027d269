//! Changes that depend on what is there.

use std::sync::Arc;

use crate::{Batch, CommitError, Store, StoreError, View};

/// How often a lost race is run again. Every loss means that somebody else's change to the same rows went through.
const ATTEMPTS: usize = 64;

/// What a look at the store led to.
#[derive(Debug)]
pub struct Step<T> {
    /// What to write; none if everything is as wanted already.
    batch: Option<Batch>,
    /// What to tell the caller.
    outcome: T,
}

impl<T> Step<T> {
    /// Something is to be written.
    pub fn write(batch: Batch, outcome: T) -> Self {
        Self {
            batch: Some(batch),
            outcome,
        }
    }

    /// Everything is as wanted already.
    pub fn nothing(outcome: T) -> Self {
        Self {
            batch: None,
            outcome,
        }
    }
}

impl Store {
    /// Looks, decides and commits, again and again until nobody came between. `decide` expects in its batch what it
    /// decided by, and has no other effect. Returns the outcome when it is durable.
    pub async fn change<T, E>(
        &self,
        decide: impl Fn(&View) -> Result<Step<T>, E> + Send + Sync + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + From<CommitError> + Send + 'static,
    {
        let decide = Arc::new(decide);
        let mut attempt = 0;
        loop {
            attempt += 1;
            let decide = Arc::clone(&decide);
            let step = self.read(move |view| decide(view)).await?;
            let Some(batch) = step.batch else {
                return Ok(step.outcome);
            };
            match self.commit(batch).await {
                Ok(_) => return Ok(step.outcome),
                Err(CommitError::Expectation { .. }) if attempt < ATTEMPTS => {
                    tokio::task::yield_now().await;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}
