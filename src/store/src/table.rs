//! Tables as types.

use crate::{key::Key, value::Value};

/// A table: what it is called, what its rows are, how it is used.
pub trait Table: 'static {
    /// The name on disk. Never reused for something else.
    const NAME: &'static str;
    /// How its rows are read and written.
    const PROFILE: Profile;
    /// What rows are found by, in order.
    type Key: Key;
    /// What a row holds.
    type Value: Value;
}

/// What a table is mostly used for; the engine chooses its settings from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Looked up by exact keys, often ones that do not exist.
    Point,
    /// Walked in ranges; lookups mostly find something.
    Scan,
    /// Rows come and go within hours: queues, sessions, one-time keys.
    Churn,
    /// Values of a kilobyte and more, written once.
    Blob,
    /// Small rows that are overwritten again and again.
    Counter,
}

/// The parts of a [`Table`] that opening needs, as a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableSpec {
    /// [`Table::NAME`].
    pub name: &'static str,
    /// [`Table::PROFILE`].
    pub profile: Profile,
}

impl TableSpec {
    /// The spec of table `T`.
    pub const fn of<T: Table>() -> Self {
        Self {
            name: T::NAME,
            profile: T::PROFILE,
        }
    }
}
