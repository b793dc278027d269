//! Checkpoints taken while others write.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use myelin_store::{Batch, Scan, Store};
use myelin_types::Pos;

use crate::support::{Blobs, Counts, Queue, fresh, open};

/// Three rows in three tables that must agree.
fn write(store: &Store, number: u64) -> Pos {
    let mut batch = Batch::new();
    batch.put::<Queue>(&(0, number), &());
    batch.put::<Blobs>(&number, &vec![0; 2000]);
    batch.put::<Counts>(&0, &number);
    store.commit(batch).wait().expect("commits")
}

#[test]
fn a_checkpoint_is_whole_while_writes_go_on() {
    let (dir, store) = fresh();
    let copies = tempfile::tempdir_in(dir.path().parent().expect("a temporary directory has one"))
        .expect("temporary directories can be made");
    let done = Arc::new(AtomicBool::new(false));
    let writer = std::thread::spawn({
        let (store, done) = (store.clone(), Arc::clone(&done));
        move || {
            let mut number = 0;
            while !done.load(Ordering::SeqCst) {
                number += 1;
                write(&store, number);
            }
            number
        }
    });
    let mut previous = Pos::ZERO;
    for round in 0..4 {
        while store.watermark().0 < previous.0 + 20 {
            std::thread::yield_now();
        }
        let floor = store.watermark();
        let path = copies.path().join(round.to_string());
        store.checkpoint(&path).expect("the directory is new");
        let copy = open(&path);
        previous = copy.watermark();
        assert!(previous >= floor, "everything before the call is in it");
        let view = copy.view();
        let count = view.get::<Counts>(&0).expect("readable").expect("written");
        assert_eq!(count, previous.0, "position and rows are of one moment");
        assert_eq!(view.keys::<Queue>(Scan::all()).count() as u64, count);
        assert_eq!(view.keys::<Blobs>(Scan::all()).count() as u64, count);
        assert_eq!(
            write(&copy, count + 1),
            Pos(count + 1),
            "it is a database of its own"
        );
    }
    done.store(true, Ordering::SeqCst);
    let written = writer.join().expect("no panic");
    assert_eq!(store.watermark(), Pos(written));
    store
        .checkpoint(&copies.path().join("0"))
        .expect_err("the directory exists");
}
