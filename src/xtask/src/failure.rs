//! The one kind of failure a task has: a sentence for the person who ran it.

use std::{fmt, io, path::Path};

/// Why a task stopped, ready to be printed.
#[derive(Debug)]
pub(crate) struct Failure(String);

/// What a task returns.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    /// A failure that says `message`.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }

    /// A failure to do `action` (a bare verb) with the file at `path`.
    pub(crate) fn file(action: &str, path: &Path, cause: &io::Error) -> Self {
        Self(format!("{action} {}: {cause}", path.display()))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
