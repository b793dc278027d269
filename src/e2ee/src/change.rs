//! Changes that depend on what is there.

use std::sync::Arc;

use myelin_store::{Batch, CommitError, StoreError, View};

use crate::E2ee;

/// How often a lost race is run again. Every loss means that somebody else's change to the same rows went through.
const ATTEMPTS: usize = 64;

/// What a look at the store led to.
#[derive(Debug)]
pub(crate) struct Step<T> {
    /// What to write; none if everything is as wanted already.
    pub(crate) batch: Option<Batch>,
    /// What to tell the caller.
    pub(crate) outcome: T,
}

impl<T> Step<T> {
    pub(crate) fn write(batch: Batch, outcome: T) -> Self {
        Self {
            batch: Some(batch),
            outcome,
        }
    }

    pub(crate) fn nothing(outcome: T) -> Self {
        Self {
            batch: None,
            outcome,
        }
    }
}

impl E2ee {
    /// Looks, decides and commits, again and again until nobody came between. `decide` expects in its batch what it
    /// decided by, and has no other effect.
    pub(crate) async fn change<T, E>(
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
            let step = self.0.store.read(move |view| decide(view)).await?;
            let Some(batch) = step.batch else {
                return Ok(step.outcome);
            };
            match self.0.store.commit(batch).await {
                Ok(_) => return Ok(step.outcome),
                Err(CommitError::Expectation { .. }) if attempt < ATTEMPTS => {
                    tokio::task::yield_now().await;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}
