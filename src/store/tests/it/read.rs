//! Views: consistent, bounded, in order, and read again when memory does not suffice.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use myelin_store::{Batch, RowPart, Scan, Store, StoreError, Table};
use myelin_types::Pos;
use proptest::prelude::*;

use crate::support::{Blobs, Counts, Names, Queue, fresh, open, options};

/// Puts rows of the queue. Waits without blocking on a future, so that async tests can call it too.
fn put_all(store: &Store, keys: impl IntoIterator<Item = (u32, u64)>) {
    let mut batch = Batch::new();
    for key in keys {
        batch.put::<Queue>(&key, &());
    }
    finish(store, batch);
}

fn finish(store: &Store, batch: Batch) {
    let before = store.watermark();
    drop(store.commit(batch));
    while store.watermark() == before {
        std::thread::yield_now();
    }
}

fn keys(store: &Store, scan: Scan) -> Vec<(u32, u64)> {
    store
        .view()
        .keys::<Queue>(scan)
        .collect::<Result<_, _>>()
        .expect("readable")
}

#[test]
fn a_view_never_sees_later_commits() {
    let (_dir, store) = fresh();
    put_all(&store, [(1, 1)]);
    let view = store.view();
    let mut rows = view.keys::<Queue>(Scan::all());
    put_all(&store, [(1, 0), (1, 2)]);
    let mut batch = Batch::new();
    batch.delete::<Queue>(&(1, 1));
    store.commit(batch).wait().expect("commits");
    assert_eq!(view.pos(), Pos(1));
    assert!(view.contains::<Queue>(&(1, 1)).expect("readable"));
    assert!(!view.contains::<Queue>(&(1, 2)).expect("readable"));
    assert_eq!(
        view.multi_get::<Queue>(&[(1, 0), (1, 1)])
            .expect("readable"),
        [None, Some(())]
    );
    assert_eq!(rows.next().expect("one row").expect("readable"), (1, 1));
    assert!(rows.next().is_none());
    drop(rows);
    assert_eq!(keys(&store, Scan::all()), [(1, 0), (1, 2)]);
}

#[test]
fn scans_keep_their_bounds() {
    let (_dir, store) = fresh();
    put_all(&store, (1..=3).flat_map(|a| (0..4).map(move |b| (a, b))));
    let two = || Scan::prefix(&2_u32);
    let cases: [(Scan, &[(u32, u64)]); 15] = [
        (two(), &[(2, 0), (2, 1), (2, 2), (2, 3)]),
        (two().reverse().limit(2), &[(2, 3), (2, 2)]),
        (two().from(&(2_u32, 2_u64)), &[(2, 2), (2, 3)]),
        (two().after(&(2_u32, 2_u64)), &[(2, 3)]),
        (two().until(&(2_u32, 2_u64)), &[(2, 0), (2, 1)]),
        (two().through(&(2_u32, 1_u64)).reverse(), &[(2, 1), (2, 0)]),
        (two().from(&1_u32).until(&3_u32).limit(1), &[(2, 0)]),
        (two().after(&2_u32), &[]),
        (two().from(&3_u32), &[]),
        (two().until(&2_u32), &[]),
        (two().limit(0), &[]),
        (Scan::all().after(&2_u32).limit(1), &[(3, 0)]),
        (Scan::all().through(&1_u32).reverse().limit(1), &[(1, 3)]),
        (Scan::all().from(&(3_u32, 3_u64)), &[(3, 3)]),
        (Scan::prefix(&9_u32), &[]),
    ];
    for (scan, expected) in cases {
        assert_eq!(keys(&store, scan.clone()), expected, "{scan:?}");
    }
    let last = |prefix: u32| {
        store
            .view()
            .prefix_last::<Queue>(&prefix)
            .expect("readable")
    };
    assert_eq!(last(2), Some(((2, 3), ())));
    assert_eq!(last(4), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Against a sorted map.
    #[test]
    fn scans_agree_with_a_model(
        rows in prop::collection::btree_set((0..4_u32, 0..6_u64), 0..20),
        scans in prop::collection::vec((0..5_u32, any::<bool>(), 0..7_u64, 0..7_u64, any::<bool>(), 0..6_usize), 16),
    ) {
        let (_dir, store) = fresh();
        put_all(&store, rows.iter().copied());
        for (prefix, everything, from, until, reverse, limit) in scans {
            let scan = if everything { Scan::all() } else { Scan::prefix(&prefix) };
            let scan = scan.from(&(prefix, from)).until(&(prefix, until)).limit(limit);
            let mut expected: Vec<_> = rows
                .iter()
                .copied()
                .filter(|key| *key >= (prefix, from) && *key < (prefix, until))
                .collect();
            if reverse {
                expected.reverse();
            }
            expected.truncate(limit);
            let scan = if reverse { scan.reverse() } else { scan };
            prop_assert_eq!(keys(&store, scan), expected);
        }
    }
}

/// A store whose rows are in files and in nobody's memory: a checkpoint flushes, and a new cache is empty.
fn cold() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().expect("temporary directories can be made");
    let (first, second) = (dir.path().join("first"), dir.path().join("second"));
    let store = open(&first);
    put_all(&store, (0..2000).map(|n| (1, n)));
    let mut batch = Batch::new();
    batch.put::<Names>(&"ann".to_owned(), &7);
    // One in a block, one in a file of its own.
    batch.put::<Blobs>(&1, &vec![b'x'; 1000]);
    batch.put::<Blobs>(&2, &vec![b'x'; 100_000]);
    finish(&store, batch);
    store.checkpoint(&second).expect("the directory is new");
    (dir, open(&second))
}

#[tokio::test]
async fn a_read_that_needs_the_disk_runs_again_on_the_same_view() {
    let (_dir, store) = cold();
    let runs = Arc::new(AtomicUsize::new(0));
    let read = |store: &Store| {
        let runs = Arc::clone(&runs);
        let store = store.clone();
        async move {
            store
                .clone()
                .read(move |view| {
                    if runs.fetch_add(1, Ordering::SeqCst) == 0 {
                        // Between the two runs the store moves on; the second run must not see it.
                        put_all(&store, [(1, 9999)]);
                    }
                    let count = view.keys::<Queue>(Scan::prefix(&1_u32)).count();
                    let found = view.multi_get::<Queue>(&[(1, 5), (2, 5)])?;
                    Ok::<_, StoreError>((
                        view.pos(),
                        view.get::<Names>(&"ann".to_owned())?,
                        count,
                        found,
                    ))
                })
                .await
        }
    };
    // `count` swallows the error of the iterator: the view itself must remember it.
    let cold = read(&store).await.expect("readable");
    assert_eq!(cold, (Pos(2), Some(7), 2000, vec![Some(()), None]));
    assert_eq!(runs.load(Ordering::SeqCst), 2);
    assert_eq!(store.counters().reruns, 1);
    let warm = read(&store).await.expect("readable");
    assert_eq!(warm, (Pos(3), Some(7), 2001, vec![Some(()), None]));
    assert_eq!(
        runs.load(Ordering::SeqCst),
        3,
        "all of it is in memory by now"
    );
}

#[tokio::test]
async fn each_kind_of_read_notices_that_it_needs_the_disk() {
    type Read = fn(&myelin_store::View) -> Result<bool, StoreError>;
    let kinds: [Read; 8] = [
        |view| view.contains::<Queue>(&(1, 7)),
        |view| Ok(view.get::<Queue>(&(1, 7))?.is_some()),
        |view| Ok(view.multi_get::<Queue>(&[(1, 7), (1, 8)])?[1].is_some()),
        |view| {
            Ok(view
                .scan::<Queue>(Scan::prefix(&1_u32))
                .next()
                .is_some_and(|row| row.is_ok()))
        },
        |view| Ok(view.get::<Blobs>(&1)?.is_some()),
        |view| Ok(view.get::<Blobs>(&2)?.is_some()),
        |view| Ok(view.scan::<Blobs>(Scan::all()).count() == 2),
        |view| Ok(view.prefix_last::<Queue>(&1_u32)?.is_some()),
    ];
    for (kind, read) in kinds.into_iter().enumerate() {
        let (_dir, store) = cold();
        for _ in 0..2 {
            assert!(store.read(read).await.expect("readable"), "kind {kind}");
            assert_eq!(store.counters().reruns, 1, "kind {kind}");
        }
    }
}

#[tokio::test]
async fn a_read_at_a_view_stays_at_it() {
    let (_dir, store) = fresh();
    put_all(&store, [(1, 1)]);
    let view = store.view();
    put_all(&store, [(1, 2)]);
    let count = store
        .read_at(&view, |view| {
            Ok::<_, StoreError>(view.keys::<Queue>(Scan::all()).count())
        })
        .await
        .expect("readable");
    assert_eq!(count, 1);
}

/// The names table, read as something it is not.
struct NotNames;

impl Table for NotNames {
    const NAME: &'static str = Names::NAME;
    const PROFILE: myelin_store::Profile = Names::PROFILE;
    type Key = [u8; 2];
    type Value = [u8; 3];
}

struct NoTable;

impl Table for NoTable {
    const NAME: &'static str = "nowhere";
    const PROFILE: myelin_store::Profile = Names::PROFILE;
    type Key = u32;
    type Value = u32;
}

#[test]
fn errors_name_the_table() {
    let (_dir, store) = fresh();
    let mut batch = Batch::new();
    batch.put::<Names>(&String::new(), &7);
    store.commit(batch).wait().expect("commits");
    let view = store.view();
    assert!(matches!(
        view.get::<NotNames>(&[0, 0]),
        Err(StoreError::Codec {
            table: "names",
            part: RowPart::Value,
            ..
        })
    ));
    let mut batch = Batch::new();
    batch.put::<Names>(&"longer".to_owned(), &7);
    store.commit(batch).wait().expect("commits");
    let mut rows = store.view();
    assert!(rows.keys::<NotNames>(Scan::all()).any(|row| matches!(
        row,
        Err(StoreError::Codec {
            table: "names",
            part: RowPart::Key,
            ..
        })
    )));
    rows = store.view();
    let error = rows.get::<NoTable>(&1).expect_err("there is no such table");
    assert!(matches!(&error, StoreError::Engine(cause) if cause.to_string().contains("nowhere")));
    assert!(matches!(
        rows.scan::<NoTable>(Scan::all()).next(),
        Some(Err(StoreError::Engine(_)))
    ));
}

#[test]
fn work_is_counted() {
    let (_dir, store) = fresh();
    put_all(&store, (0..10).map(|n| (1, n)));
    let mut batch = Batch::new();
    batch.delete::<Queue>(&(1, 0));
    batch.delete_prefix::<Queue>(&9_u32);
    batch.put::<Counts>(&1, &1);
    store.commit(batch).wait().expect("commits");
    let view = store.view();
    view.get::<Counts>(&1).expect("readable");
    view.multi_get::<Counts>(&[1, 2, 3]).expect("readable");
    assert_eq!(view.keys::<Queue>(Scan::prefix(&1_u32).limit(4)).count(), 4);
    let counters = store.counters();
    assert_eq!((counters.batches, counters.group_commits), (2, 2));
    assert_eq!(
        (counters.puts, counters.deletes, counters.range_deletes),
        (11, 1, 1)
    );
    assert_eq!(
        (counters.gets, counters.scans, counters.rows_scanned),
        (4, 1, 4)
    );
    // Ten queue rows of 12 + 1 bytes, one deleted key, a range of two 4-byte keys, a count of 4 + 9 bytes.
    assert_eq!(counters.bytes, 130 + 12 + 8 + 13);
    let memory = store.memory();
    assert_eq!(memory.budget, options().memory_budget);
    assert!(memory.memtables > 0);
}
