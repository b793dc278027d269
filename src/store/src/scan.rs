//! Ranges of keys to walk.

use crate::key::{Key, encoded, successor};

/// Which rows to walk, and in which direction.
///
/// Bounds may be whole keys or their first fields; those of a scan with a prefix must lie under that prefix to have
/// an effect.
#[derive(Clone, Debug)]
pub struct Scan {
    /// The smallest key, inclusive.
    pub(crate) start: Vec<u8>,
    /// The key after the greatest; none if there is no such bound.
    pub(crate) end: Option<Vec<u8>>,
    pub(crate) reverse: bool,
    pub(crate) limit: usize,
}

impl Scan {
    /// Every row.
    pub fn all() -> Self {
        Self {
            start: Vec::new(),
            end: None,
            reverse: false,
            limit: usize::MAX,
        }
    }

    /// The rows whose key begins with the fields of `prefix`.
    pub fn prefix(prefix: &impl Key) -> Self {
        let start = encoded(prefix);
        Self {
            end: successor(start.clone()),
            start,
            ..Self::all()
        }
    }

    /// Only from `key` on, inclusive.
    #[must_use]
    pub fn from(self, key: &impl Key) -> Self {
        self.starting_at(encoded(key))
    }

    /// Only what comes after `key`, and after everything that begins with it.
    #[must_use]
    pub fn after(self, key: &impl Key) -> Self {
        match successor(encoded(key)) {
            Some(start) => self.starting_at(start),
            None => Self {
                end: Some(Vec::new()),
                ..self
            },
        }
    }

    /// Only what comes before `key`, exclusive.
    #[must_use]
    pub fn until(self, key: &impl Key) -> Self {
        self.ending_at(encoded(key))
    }

    /// Only up to `key` and everything that begins with it, inclusive.
    #[must_use]
    pub fn through(self, key: &impl Key) -> Self {
        match successor(encoded(key)) {
            Some(end) => self.ending_at(end),
            None => self,
        }
    }

    /// From the greatest key down.
    #[must_use]
    pub fn reverse(self) -> Self {
        Self {
            reverse: true,
            ..self
        }
    }

    /// At most `count` rows.
    #[must_use]
    pub fn limit(self, count: usize) -> Self {
        Self {
            limit: count,
            ..self
        }
    }

    fn starting_at(self, start: Vec<u8>) -> Self {
        Self {
            start: start.max(self.start),
            ..self
        }
    }

    fn ending_at(self, end: Vec<u8>) -> Self {
        let end = match self.end {
            Some(bound) => bound.min(end),
            None => end,
        };
        Self {
            end: Some(end),
            ..self
        }
    }
}
