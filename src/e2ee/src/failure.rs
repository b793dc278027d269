//! What goes wrong on our side rather than the client's.

use myelin_store::{CommitError, StoreError};

/// The server could not do its part: nothing the client did, and nothing it can change.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The store could not be read.
    #[error("read keys")]
    Read(#[from] StoreError),
    /// The change could not be made durable, or others changed the same thing again and again.
    #[error("write keys")]
    Commit(#[from] CommitError),
    /// The task that did the work ended early: it panicked or the server is shutting down.
    #[error("the operation was cut short")]
    CutShort,
}

/// Lets an operation's error take in what went wrong on our side, by way of its variant `Failed`.
macro_rules! fails {
    ($($error:ty),+ $(,)?) => {$(
        impl From<myelin_store::StoreError> for $error {
            fn from(error: myelin_store::StoreError) -> Self {
                Self::Failed(error.into())
            }
        }

        impl From<myelin_store::CommitError> for $error {
            fn from(error: myelin_store::CommitError) -> Self {
                Self::Failed(error.into())
            }
        }
    )+};
}
pub(crate) use fails;
