//! The rows of the store as they are at one position.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use myelin_types::Pos;

use crate::{
    codec::Parser,
    counters::{Tallies, add},
    engine::{Cursor, Direction, ReadError, Snapshot, Tier},
    error::{RowPart, StoreError},
    key::{Key, encoded},
    scan::Scan,
    table::Table,
    value,
};

/// Key and value of a row of table `T`.
type RowOf<T> = (<T as Table>::Key, <T as Table>::Value);

/// What the committer publishes after each of its writes.
pub(crate) struct Published {
    pub(crate) pos: Pos,
    pub(crate) snapshot: Box<dyn Snapshot>,
    pub(crate) tallies: Arc<Tallies>,
}

/// All tables, exactly as the batches up to [`pos`](View::pos) left them. Cheap to clone.
///
/// Reads block where they need the disk, unless the view was made by [`Store::read`](crate::Store::read). While a view
/// lives, the engine keeps what it shows: hold one for a request, not for a connection.
#[derive(Clone)]
pub struct View {
    published: Arc<Published>,
    tier: Tier,
    /// Set once a read needed the disk and may not wait for it.
    missed: Arc<AtomicBool>,
}

impl View {
    pub(crate) fn new(published: Arc<Published>, tier: Tier) -> Self {
        Self {
            published,
            tier,
            missed: Arc::default(),
        }
    }

    /// The same rows, read from `tier`.
    pub(crate) fn at_tier(&self, tier: Tier) -> Self {
        Self::new(Arc::clone(&self.published), tier)
    }

    pub(crate) fn missed(&self) -> bool {
        self.missed.load(Ordering::Relaxed)
    }

    /// The position of the last batch that this view shows.
    pub fn pos(&self) -> Pos {
        self.published.pos
    }

    /// The row under `key`.
    pub fn get<T: Table>(&self, key: &T::Key) -> Result<Option<T::Value>, StoreError> {
        let mut found = None;
        self.visit::<T>(key, &mut |bytes| found = Some(decode_value::<T>(bytes)))?;
        found.transpose()
    }

    /// Whether there is a row under `key`. Does not decode it.
    pub fn contains<T: Table>(&self, key: &T::Key) -> Result<bool, StoreError> {
        let mut found = false;
        self.visit::<T>(key, &mut |_| found = true)?;
        Ok(found)
    }

    /// The rows under `keys`, in their order. One call is cheaper than many of [`get`](View::get).
    pub fn multi_get<T: Table>(
        &self,
        keys: &[T::Key],
    ) -> Result<Vec<Option<T::Value>>, StoreError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        add(&self.published.tallies.gets, keys.len());
        let keys: Vec<Vec<u8>> = keys.iter().map(encoded).collect();
        let slices: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
        let mut found: Vec<Option<Result<T::Value, StoreError>>> = Vec::new();
        found.resize_with(keys.len(), || None);
        let mut visit = |index: usize, bytes: &[u8]| found[index] = Some(decode_value::<T>(bytes));
        self.published
            .snapshot
            .multi_get(T::NAME, &slices, self.tier, &mut visit)
            .map_err(|error| self.note(error))?;
        found.into_iter().map(Option::transpose).collect()
    }

    /// The rows that `scan` describes, in its order. After an error there are no more.
    pub fn scan<T: Table>(
        &self,
        scan: Scan,
    ) -> impl Iterator<Item = Result<RowOf<T>, StoreError>> + '_ {
        self.rows(T::NAME, scan, decode_row::<T>)
    }

    /// The keys that `scan` describes, in its order, without decoding their values.
    pub fn keys<T: Table>(
        &self,
        scan: Scan,
    ) -> impl Iterator<Item = Result<T::Key, StoreError>> + '_ {
        self.rows(T::NAME, scan, |key, _| decode_key::<T>(key))
    }

    /// The greatest row whose key begins with the fields of `prefix`.
    pub fn prefix_last<T: Table>(&self, prefix: &impl Key) -> Result<Option<RowOf<T>>, StoreError> {
        self.scan::<T>(Scan::prefix(prefix).reverse().limit(1))
            .next()
            .transpose()
    }

    fn rows<R>(&self, table: &'static str, scan: Scan, decode: Decode<R>) -> Rows<'_, R> {
        add(&self.published.tallies.scans, 1);
        let empty = scan.limit == 0 || scan.end.as_ref().is_some_and(|end| *end <= scan.start);
        let direction = if scan.reverse {
            Direction::Reverse
        } else {
            Direction::Forward
        };
        let cursor = (!empty).then(|| {
            self.published
                .snapshot
                .scan(table, scan.start, scan.end, direction, self.tier)
        });
        let (cursor, failed) = match cursor.transpose() {
            Ok(cursor) => (cursor, None),
            Err(error) => (None, Some(self.note(error))),
        };
        Rows {
            view: self,
            cursor,
            failed,
            left: scan.limit,
            decode,
        }
    }

    /// Remembers that the disk was needed, so that the caller of the reading function can tell although the function
    /// may have swallowed the error.
    fn note(&self, error: ReadError) -> StoreError {
        match error {
            ReadError::NotInMemory => {
                self.missed.store(true, Ordering::Relaxed);
                StoreError::WouldBlock
            }
            ReadError::Failed(error) => StoreError::Engine(error),
        }
    }

    fn visit<T: Table>(
        &self,
        key: &T::Key,
        visit: &mut dyn FnMut(&[u8]),
    ) -> Result<(), StoreError> {
        add(&self.published.tallies.gets, 1);
        self.published
            .snapshot
            .get(T::NAME, &encoded(key), self.tier, visit)
            .map_err(|error| self.note(error))
    }
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View")
            .field("pos", &self.pos())
            .field("tier", &self.tier)
            .finish_non_exhaustive()
    }
}

type Decode<R> = fn(&[u8], &[u8]) -> Result<R, StoreError>;

/// The rows of a scan.
struct Rows<'a, R> {
    view: &'a View,
    /// None before an error is told and after the end.
    cursor: Option<Box<dyn Cursor + 'a>>,
    failed: Option<StoreError>,
    left: usize,
    decode: Decode<R>,
}

impl<R> Iterator for Rows<'_, R> {
    type Item = Result<R, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(error) = self.failed.take() {
            return Some(Err(error));
        }
        if self.left == 0 {
            self.cursor = None;
        }
        let row = match self.cursor.as_mut()?.next() {
            Ok(Some((key, value))) => (self.decode)(key, value),
            Ok(None) => {
                self.cursor = None;
                return None;
            }
            Err(error) => Err(self.view.note(error)),
        };
        self.left -= 1;
        add(&self.view.published.tallies.rows_scanned, 1);
        if row.is_err() {
            self.cursor = None;
        }
        Some(row)
    }
}

fn decode_row<T: Table>(key: &[u8], value: &[u8]) -> Result<RowOf<T>, StoreError> {
    Ok((decode_key::<T>(key)?, decode_value::<T>(value)?))
}

fn decode_key<T: Table>(bytes: &[u8]) -> Result<T::Key, StoreError> {
    let mut parser = Parser::new(bytes);
    T::Key::decode(&mut parser)
        .and_then(|key| parser.finish().map(|()| key))
        .map_err(|source| StoreError::Codec {
            table: T::NAME,
            part: RowPart::Key,
            source,
        })
}

fn decode_value<T: Table>(bytes: &[u8]) -> Result<T::Value, StoreError> {
    value::read(bytes).map_err(|source| StoreError::Codec {
        table: T::NAME,
        part: RowPart::Value,
        source,
    })
}
