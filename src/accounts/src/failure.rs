//! What goes wrong on our side rather than the client's.

use myelin_data::interner::InternError;
use myelin_store::{CommitError, StoreError};

/// The server could not do its part: nothing the client did, and nothing it can change.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The store could not be read.
    #[error("read accounts")]
    Read(#[from] StoreError),
    /// The change could not be made durable, or others changed the same thing again and again.
    #[error("write accounts")]
    Commit(#[from] CommitError),
    /// A user could not be given a number.
    #[error("number a user")]
    Intern(#[from] InternError),
    /// A password could not be hashed.
    #[error("hash a password")]
    Hash,
    /// Something of ours could not be written as JSON.
    #[error("write JSON")]
    Json(#[from] serde_json::Error),
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
