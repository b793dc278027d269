//! Batches: everything that must become true together.

use std::ops::Range;

use myelin_types::Pos;

use crate::{
    codec::{CodecError, Writer},
    engine::Write,
    key::{Key, MAX_KEY_BYTES, successor},
    table::Table,
    value,
};

/// Something a commit may wake readers of. Its number means nothing to the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Topic(pub u64);

/// Puts, deletes, and what they assume, applied as one or not at all. Later entries win over earlier ones.
///
/// Keys and values may hold [`Pos::AT_COMMIT`] where they write a position with [`Writer::pos`]; the committer fills
/// in the position that the batch gets.
#[derive(Debug, Default)]
pub struct Batch {
    /// The bytes of all keys and values, one after the other.
    data: Writer,
    edits: Vec<Edit>,
    expectations: Vec<Expectation>,
    topics: Vec<Topic>,
    /// The table of a key that is too long.
    oversized: Option<&'static str>,
}

/// Where in `Batch::data` something lies.
type Span = Range<usize>;

#[derive(Debug)]
struct Edit {
    table: &'static str,
    key: Span,
    kind: EditKind,
}

#[derive(Debug)]
enum EditKind {
    Put(Span),
    Delete,
    /// Up to this key, exclusive.
    DeleteRange(Vec<u8>),
}

#[derive(Debug)]
struct Expectation {
    table: &'static str,
    key: Span,
    value: Option<Span>,
    rewrite: fn(&[u8]) -> Result<Vec<u8>, CodecError>,
}

/// What a batch assumes of one key.
pub(crate) struct Expected<'a> {
    pub(crate) table: &'static str,
    pub(crate) key: &'a [u8],
    value: Option<&'a [u8]>,
    rewrite: fn(&[u8]) -> Result<Vec<u8>, CodecError>,
}

impl Expected<'_> {
    /// Whether `stored` is what was assumed. A value in an old version counts as what it is read as.
    pub(crate) fn holds(&self, stored: Option<&[u8]>) -> bool {
        match (self.value, stored) {
            (None, None) => true,
            (Some(expected), Some(stored)) if expected == stored => true,
            (Some(expected), Some(stored)) if expected.first() != stored.first() => {
                (self.rewrite)(stored).is_ok_and(|stored| stored == expected)
            }
            _ => false,
        }
    }
}

impl Batch {
    /// A batch that does nothing but take a position.
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes a row, whether or not there is one under `key`.
    pub fn put<T: Table>(&mut self, key: &T::Key, value: &T::Value) {
        let key = self.write_key::<T>(key);
        let value = self.write(|data| value::write(value, data));
        self.edits.push(Edit {
            table: T::NAME,
            key,
            kind: EditKind::Put(value),
        });
    }

    /// Deletes a row, whether or not there is one.
    pub fn delete<T: Table>(&mut self, key: &T::Key) {
        let key = self.write_key::<T>(key);
        self.edits.push(Edit {
            table: T::NAME,
            key,
            kind: EditKind::Delete,
        });
    }

    /// Deletes all rows whose key begins with the fields of `prefix`, earlier puts of this batch included.
    ///
    /// Leaves a mark that later reads of the range step over until compaction: right for a purge, while a handful of
    /// known rows is better deleted one by one. `Pos::AT_COMMIT` is not filled in here.
    pub fn delete_prefix<T: Table>(&mut self, prefix: &impl Key) {
        let key = self.write(|data| data.literally(|data| prefix.encode(data)));
        let bytes = self.data.as_bytes()[key.clone()].to_vec();
        // Where no key comes after the prefix, one that is longer than any key may be does.
        let end = successor(bytes).unwrap_or_else(|| vec![0xFF; MAX_KEY_BYTES + 1]);
        self.edits.push(Edit {
            table: T::NAME,
            key,
            kind: EditKind::DeleteRange(end),
        });
    }

    /// Refuses the whole batch unless, at its turn, the row under `key` is `value` (`None`: there is none).
    ///
    /// Earlier batches count even if they are written together with this one; edits of this batch do not.
    /// `Pos::AT_COMMIT` is not filled in here.
    pub fn expect<T: Table>(&mut self, key: &T::Key, value: Option<&T::Value>) {
        let key = self.write(|data| data.literally(|data| key.encode(data)));
        let value =
            value.map(|value| self.write(|data| data.literally(|data| value::write(value, data))));
        self.expectations.push(Expectation {
            table: T::NAME,
            key,
            value,
            rewrite: value::rewritten::<T::Value>,
        });
    }

    /// Names readers that the commit of this batch concerns.
    pub fn touch(&mut self, topic: Topic) {
        if self.topics.last() != Some(&topic) {
            self.topics.push(topic);
        }
    }

    /// Whether the batch edits nothing and assumes nothing.
    pub fn is_empty(&self) -> bool {
        self.edits.is_empty() && self.expectations.is_empty()
    }

    /// How much it weighs in the committer's queue, in bytes.
    pub fn weight(&self) -> usize {
        // What a batch holds besides the data; an estimate is enough to bound the queue.
        const PER_ENTRY: usize = 64;
        let entries = self.edits.len() + self.expectations.len() + 1;
        self.data.len() + entries * PER_ENTRY
    }

    /// What it touches, in the order in which it was named.
    pub fn topics(&self) -> &[Topic] {
        &self.topics
    }

    pub(crate) fn oversized(&self) -> Option<&'static str> {
        self.oversized
    }

    pub(crate) fn fill(&mut self, pos: Pos) {
        self.data.fill(pos);
    }

    pub(crate) fn has_expectations(&self) -> bool {
        !self.expectations.is_empty()
    }

    pub(crate) fn expectations(&self) -> impl Iterator<Item = Expected<'_>> {
        let data = self.data.as_bytes();
        self.expectations.iter().map(|expectation| Expected {
            table: expectation.table,
            key: &data[expectation.key.clone()],
            value: expectation.value.clone().map(|value| &data[value]),
            rewrite: expectation.rewrite,
        })
    }

    pub(crate) fn writes(&self) -> impl Iterator<Item = Write<'_>> {
        let data = self.data.as_bytes();
        self.edits.iter().map(|edit| {
            let (table, key) = (edit.table, &data[edit.key.clone()]);
            match &edit.kind {
                EditKind::Put(value) => Write::Put {
                    table,
                    key,
                    value: &data[value.clone()],
                },
                EditKind::Delete => Write::Delete { table, key },
                EditKind::DeleteRange(end) => Write::DeleteRange {
                    table,
                    start: key,
                    end,
                },
            }
        })
    }

    fn write_key<T: Table>(&mut self, key: &T::Key) -> Span {
        let span = self.write(|data| key.encode(data));
        if span.len() > MAX_KEY_BYTES {
            self.oversized = Some(T::NAME);
        }
        span
    }

    fn write(&mut self, write: impl FnOnce(&mut Writer)) -> Span {
        let start = self.data.len();
        write(&mut self.data);
        start..self.data.len()
    }
}
