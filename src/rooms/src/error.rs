//! What can go wrong in every operation that appends: faults of the server itself, and refusals by the room's rules.

use std::sync::Arc;

use myelin_data::interner::InternError;
use myelin_store::{CommitError, StoreError};
use myelin_types::RoomNum;
use thiserror::Error;

/// A fault of the server: the caller did nothing wrong and cannot help it.
#[derive(Clone, Debug, Error)]
pub enum Failure {
    /// The store could not be read.
    #[error("read the store")]
    Store(#[source] Arc<StoreError>),
    /// The batch did not become durable. Nothing of it is visible.
    #[error("commit to the store")]
    Commit(#[source] Arc<CommitError>),
    /// A number could not be given.
    #[error("intern identifiers")]
    Intern(#[source] Arc<InternError>),
    /// Stored data contradicts itself.
    #[error("room {room} is damaged: {what}")]
    Damaged {
        /// The room.
        room: RoomNum,
        /// What is wrong.
        what: &'static str,
    },
    /// The task that did the work ended early: it panicked or the runtime is shutting down.
    #[error("the operation was cut short")]
    CutShort,
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Store(Arc::new(error))
    }
}

impl From<CommitError> for Failure {
    fn from(error: CommitError) -> Self {
        Self::Commit(Arc::new(error))
    }
}

impl From<InternError> for Failure {
    fn from(error: InternError) -> Self {
        Self::Intern(Arc::new(error))
    }
}

/// Why an event could not become part of a room.
#[derive(Clone, Debug, Error)]
pub enum AppendError {
    /// The room's authorisation rules refuse it.
    #[error("the rules of the room refuse it: {0}")]
    Forbidden(String),
    /// Its content is none that anybody could send in the room.
    #[error("the content is not acceptable: {0}")]
    Unacceptable(String),
    /// It is over one of the size limits of events.
    #[error("the event is too large: {0}")]
    TooLarge(String),
    /// It is no well-formed event of the room's version.
    #[error("the event is malformed: {0}")]
    Malformed(String),
    /// A fault of the server.
    #[error(transparent)]
    Failure(#[from] Failure),
}

impl From<StoreError> for AppendError {
    fn from(error: StoreError) -> Self {
        Self::Failure(error.into())
    }
}

impl From<CommitError> for AppendError {
    fn from(error: CommitError) -> Self {
        Self::Failure(error.into())
    }
}

impl From<InternError> for AppendError {
    fn from(error: InternError) -> Self {
        Self::Failure(error.into())
    }
}

/// Why a room could not be locked: conditions that every operation's error has.
#[derive(Clone, Debug)]
pub(crate) enum LockError {
    /// The server does not know the room.
    RoomNotFound,
    /// A fault of the server.
    Failure(Failure),
}

impl From<Failure> for LockError {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

impl From<StoreError> for LockError {
    fn from(error: StoreError) -> Self {
        Self::Failure(error.into())
    }
}

/// Lets `?` turn a room that could not be locked into an operation's own error.
macro_rules! lock_errors {
    ($($error:ty),+ $(,)?) => {
        $(
            impl From<$crate::error::LockError> for $error {
                fn from(error: $crate::error::LockError) -> Self {
                    match error {
                        $crate::error::LockError::RoomNotFound => Self::RoomNotFound,
                        $crate::error::LockError::Failure(failure) => failure.into(),
                    }
                }
            }
        )+
    };
}
pub(crate) use lock_errors;

/// Lets `?` turn a fault of the server into an operation's own error, by way of [`AppendError`].
macro_rules! failures_append {
    ($($error:ty),+ $(,)?) => {
        $(
            impl From<$crate::Failure> for $error {
                fn from(failure: $crate::Failure) -> Self {
                    Self::Append(failure.into())
                }
            }
        )+
    };
}
pub(crate) use failures_append;
