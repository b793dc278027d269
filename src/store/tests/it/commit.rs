//! Batches: atomic, in order, positioned, refused when their assumptions fail.

use std::sync::{Arc, mpsc};

use futures_util::future::join_all;
use myelin_store::{Batch, CommitError, Observer, Scan, Store, StoreError, Topic};
use myelin_types::{Pos, RoomNum};
use parking_lot::Mutex;

use crate::support::{Blobs, Counts, Entry, Log, Names, Queue, fresh, open};

fn put(name: &str, number: u64) -> Batch {
    let mut batch = Batch::new();
    batch.put::<Names>(&name.to_owned(), &number);
    batch
}

fn number(store: &Store, name: &str) -> Option<u64> {
    store
        .view()
        .get::<Names>(&name.to_owned())
        .expect("names are readable")
}

/// Holds up the committer at its next commit until the sender is used or dropped.
struct Gate(Mutex<mpsc::Receiver<()>>);

impl Observer for Gate {
    fn committed(&self, _: Pos, _: &[Topic]) {
        // An error is a release too: the sender was dropped.
        self.0.lock().recv().ok();
    }
}

/// Makes everything committed before the returned sender is dropped one group. Commits a batch itself.
fn hold(store: &Store) -> mpsc::Sender<()> {
    let (release, gate) = mpsc::channel();
    store.observe(Arc::new(Gate(Mutex::new(gate))));
    let before = store.watermark();
    let held = store.commit(Batch::new());
    while store.watermark() == before {
        std::thread::yield_now();
    }
    drop(held);
    release
}

#[test]
fn rows_of_all_tables_are_there_after_a_commit_and_after_reopening() {
    let (dir, store) = fresh();
    let mut batch = put("ann", 1);
    batch.put::<Blobs>(&7, &vec![b'x'; 100_000]);
    batch.put::<Queue>(&(1, 2), &());
    batch.put::<Counts>(&5, &6);
    batch.put::<Log>(
        &(RoomNum(1), Pos::AT_COMMIT),
        &Entry {
            pos: Pos::AT_COMMIT,
            text: "hello".to_owned(),
        },
    );
    assert_eq!(store.commit(batch).wait().expect("commits"), Pos(1));
    let mut store = store;
    for reopened in [false, true] {
        if reopened {
            drop(store);
            store = open(dir.path());
        }
        let view = store.view();
        assert_eq!(view.pos(), Pos(1));
        assert_eq!(store.watermark(), Pos(1));
        assert_eq!(number(&store, "ann"), Some(1));
        let blob = view.get::<Blobs>(&7).expect("readable").expect("was put");
        assert_eq!(blob.len(), 100_000);
        assert!(view.contains::<Queue>(&(1, 2)).expect("readable"));
        assert!(!view.contains::<Queue>(&(1, 3)).expect("readable"));
        assert_eq!(
            view.multi_get::<Counts>(&[9, 5, 5]).expect("readable"),
            [None, Some(6), Some(6)]
        );
    }
}

#[test]
fn the_position_is_filled_in_keys_and_values() {
    let (_dir, store) = fresh();
    for turn in 1..=3 {
        let mut batch = Batch::new();
        for room in [1, 2] {
            batch.put::<Log>(
                &(RoomNum(room), Pos::AT_COMMIT),
                &Entry {
                    pos: Pos::AT_COMMIT,
                    text: turn.to_string(),
                },
            );
        }
        assert_eq!(store.commit(batch).wait().expect("commits"), Pos(turn));
    }
    let rows: Vec<_> = store
        .view()
        .scan::<Log>(Scan::prefix(&RoomNum(2)).reverse())
        .collect::<Result<_, _>>()
        .expect("readable");
    let expected = [3, 2, 1].map(|turn| {
        let entry = Entry {
            pos: Pos(turn),
            text: turn.to_string(),
        };
        ((RoomNum(2), Pos(turn)), entry)
    });
    assert_eq!(rows, expected);
}

#[test]
fn a_refused_batch_changes_nothing_and_takes_no_position() {
    let (_dir, store) = fresh();
    store.commit(put("ann", 1)).wait().expect("commits");
    let mut batch = put("ann", 2);
    batch.put::<Names>(&"ben".to_owned(), &2);
    batch.expect::<Names>(&"ann".to_owned(), Some(&9));
    assert!(matches!(
        store.commit(batch).wait(),
        Err(CommitError::Expectation { table: "names" })
    ));
    assert_eq!(
        (number(&store, "ann"), number(&store, "ben")),
        (Some(1), None)
    );
    let mut batch = put("ben", 3);
    batch.expect::<Names>(&"ann".to_owned(), Some(&1));
    batch.expect::<Names>(&"ben".to_owned(), None);
    assert_eq!(store.commit(batch).wait().expect("holds"), Pos(2));
}

#[test]
fn expectations_see_earlier_batches_of_their_group_but_not_refused_ones() {
    let (_dir, store) = fresh();
    store.commit(put("old", 0)).wait().expect("commits");
    let release = hold(&store);
    let ann = "ann".to_owned();
    let step = |from: Option<u64>, to: u64| {
        let mut batch = put("ann", to);
        batch.expect::<Names>(&"ann".to_owned(), from.as_ref());
        store.commit(batch)
    };
    let chain = [
        step(None, 1),
        step(Some(1), 2),
        step(Some(1), 3),
        step(Some(2), 4),
        step(Some(3), 5),
    ];
    let mut purge = Batch::new();
    purge.expect::<Names>(&"old".to_owned(), Some(&0));
    purge.delete_prefix::<Names>(&());
    let purge = store.commit(purge);
    let after_purge = [step(Some(4), 6), step(None, 7)];
    let mut delete = Batch::new();
    delete.delete::<Names>(&ann);
    let delete = store.commit(delete);
    let last = step(None, 8);
    drop(release);
    let outcomes = chain
        .into_iter()
        .chain([purge])
        .chain(after_purge)
        .chain([delete, last])
        .map(|commit| commit.wait().ok().map(|pos| pos.0));
    let expected = [
        Some(3),
        Some(4),
        None,
        Some(5),
        None,
        Some(6),
        None,
        Some(7),
        Some(8),
        Some(9),
    ];
    assert_eq!(outcomes.collect::<Vec<_>>(), expected);
    assert_eq!(number(&store, "ann"), Some(8));
    assert_eq!(number(&store, "old"), None);
    assert_eq!(store.counters().group_commits, 3, "all of it was one group");
}

#[test]
fn deletes_of_rows_and_prefixes_leave_their_neighbours() {
    let (_dir, store) = fresh();
    let mut batch = Batch::new();
    for key in [
        (1, 1),
        (2, 1),
        (2, 2),
        (3, 1),
        (u32::MAX, 0),
        (u32::MAX, u64::MAX),
    ] {
        batch.put::<Queue>(&key, &());
    }
    store.commit(batch).wait().expect("commits");
    let mut batch = Batch::new();
    batch.put::<Queue>(&(2, 3), &());
    batch.delete_prefix::<Queue>(&2_u32);
    batch.put::<Queue>(&(2, 4), &());
    batch.delete_prefix::<Queue>(&u32::MAX);
    batch.delete::<Queue>(&(3, 1));
    store.commit(batch).wait().expect("commits");
    let keys: Vec<_> = store
        .view()
        .keys::<Queue>(Scan::all())
        .collect::<Result<_, _>>()
        .expect("readable");
    assert_eq!(keys, [(1, 1), (2, 4)]);
}

#[test]
fn keys_that_are_too_long_are_refused() {
    let (_dir, store) = fresh();
    assert!(matches!(
        store.commit(put(&"x".repeat(5000), 1)).wait(),
        Err(CommitError::KeyTooLong { table: "names" })
    ));
    assert_eq!(number(&store, &"x".repeat(5000)), None);
}

#[test]
fn positions_follow_the_order_of_calls_and_groups_form() {
    let (_dir, store) = fresh();
    let release = hold(&store);
    let commits: Vec<_> = (0..100).map(|n| store.commit(put("ann", n))).collect();
    drop(release);
    for (index, commit) in commits.into_iter().enumerate() {
        assert_eq!(commit.wait().expect("commits"), Pos(index as u64 + 2));
    }
    assert_eq!(number(&store, "ann"), Some(99));
    let counters = store.counters();
    assert_eq!((counters.batches, counters.puts), (101, 100));
    assert_eq!(counters.group_commits, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_increments_lose_nothing() {
    let (_dir, store) = fresh();
    let tasks = (0..8).map(|_| {
        let store = store.clone();
        tokio::spawn(async move {
            for _ in 0..25 {
                loop {
                    let old = store.read(|view| view.get::<Counts>(&1)).await?;
                    let mut batch = Batch::new();
                    batch.expect::<Counts>(&1, old.as_ref());
                    batch.put::<Counts>(&1, &(old.unwrap_or(0) + 1));
                    if store.commit(batch).await.is_ok() {
                        break;
                    }
                }
            }
            Ok::<_, StoreError>(())
        })
    });
    for outcome in join_all(tasks).await {
        outcome.expect("no panic").expect("readable");
    }
    let total = store.view().get::<Counts>(&1).expect("readable");
    assert_eq!(total, Some(200));
    assert_eq!(store.watermark(), Pos(200));
}

#[derive(Default)]
struct Recorder {
    seen: Mutex<Vec<(Pos, Vec<Topic>, Pos)>>,
    store: Mutex<Option<Store>>,
}

impl Observer for Recorder {
    fn committed(&self, pos: Pos, topics: &[Topic]) {
        let watermark = self
            .store
            .lock()
            .as_ref()
            .map_or(Pos::ZERO, Store::watermark);
        self.seen.lock().push((pos, topics.to_vec(), watermark));
    }
}

#[tokio::test]
async fn observers_are_told_in_order_after_the_watermark_and_before_the_caller() {
    let (_dir, store) = fresh();
    let recorder = Arc::new(Recorder::default());
    *recorder.store.lock() = Some(store.clone());
    store.observe(Arc::<Recorder>::clone(&recorder));
    let mut watch = store.watch();
    let commits: Vec<_> = (1..=50)
        .map(|n| {
            let mut batch = put("ann", n);
            batch.touch(Topic(n));
            batch.touch(Topic(n));
            batch.touch(Topic(0));
            store.commit(batch)
        })
        .collect();
    for (index, commit) in commits.into_iter().enumerate() {
        let pos = commit.await.expect("commits");
        let (seen, topics, watermark) = recorder.seen.lock()[index].clone();
        assert_eq!(seen, pos);
        assert_eq!(topics, [Topic(pos.0), Topic(0)]);
        assert!(watermark >= pos);
        watch
            .wait_for(|at| *at >= pos)
            .await
            .expect("the store is open");
        assert!(store.view().pos() >= pos);
    }
    store.close();
    recorder.store.lock().take();
}

struct Panics;

impl Observer for Panics {
    fn committed(&self, _: Pos, _: &[Topic]) {
        panic!("an observer's mistake");
    }
}

#[test]
fn a_panicking_observer_stops_nothing() {
    let (_dir, store) = fresh();
    store.observe(Arc::new(Panics));
    store.commit(put("ann", 1)).wait().expect("commits");
    store.commit(put("ann", 2)).wait().expect("commits");
    assert_eq!(number(&store, "ann"), Some(2));
}

#[test]
fn closing_writes_what_is_queued_and_refuses_what_comes_later() {
    let (dir, store) = fresh();
    let commits: Vec<_> = (0..200).map(|n| store.commit(put("ann", n))).collect();
    store.close();
    for commit in commits {
        commit.wait().expect("was queued before the end");
    }
    assert!(matches!(
        store.commit(Batch::new()).wait(),
        Err(CommitError::Closed)
    ));
    assert_eq!(number(&store, "ann"), Some(199), "reads go on");
    store.close();
    drop(store);
    assert_eq!(number(&open(dir.path()), "ann"), Some(199));
}

#[test]
fn the_last_handle_may_go_with_an_observer() {
    let (dir, store) = fresh();
    let recorder = Arc::new(Recorder::default());
    *recorder.store.lock() = Some(store.clone());
    store.observe(Arc::<Recorder>::clone(&recorder));
    store.commit(put("ann", 1)).wait().expect("commits");
    store.close();
    drop(store);
    drop(recorder);
    assert_eq!(number(&open(dir.path()), "ann"), Some(1));
}
