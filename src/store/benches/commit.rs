//! How long a commit takes until it is durable, alone and as one of 64 that share their syncs; how long opening takes.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use futures_util::future::join_all;
use myelin_store::{Batch, Options, Profile, Store, Table, TableSpec};
use myelin_types::{Pos, RoomNum};

struct Events;

impl Table for Events {
    const NAME: &'static str = "events";
    const PROFILE: Profile = Profile::Blob;
    type Key = (RoomNum, Pos);
    type Value = Vec<u8>;
}

struct Ids;

impl Table for Ids {
    const NAME: &'static str = "ids";
    const PROFILE: Profile = Profile::Point;
    type Key = u64;
    type Value = Pos;
}

/// About what a message writes: a row of a kilobyte and two small ones.
fn message(id: u64) -> Batch {
    let mut batch = Batch::new();
    batch.put::<Events>(&(RoomNum(1), Pos::AT_COMMIT), &vec![b'x'; 1024]);
    batch.put::<Ids>(&id, &Pos::AT_COMMIT);
    batch.expect::<Ids>(&id, None);
    batch
}

fn commit(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().expect("temporary directories can be made");
    let options = Options {
        memory_budget: 256 << 20,
        product: "bench",
        schema: 1,
        tables: vec![TableSpec::of::<Events>(), TableSpec::of::<Ids>()],
    };
    let store = Store::open(dir.path(), options).expect("empty directory");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .build()
        .expect("threads can be started");
    let mut group = criterion.benchmark_group("commit");
    let mut next = 0;
    for writers in [1_u64, 64] {
        group.throughput(Throughput::Elements(writers));
        group.bench_function(format!("{writers} writers"), |bencher| {
            bencher.iter(|| {
                let first = next;
                next += writers;
                runtime.block_on(async {
                    let tasks = (first..next).map(|id| {
                        let store = store.clone();
                        tokio::spawn(async move { store.commit(message(id)).await })
                    });
                    for outcome in join_all(tasks).await {
                        outcome.expect("no panic").expect("the disk works");
                    }
                });
            });
        });
    }
    group.finish();
}

/// As many tables as a server has.
fn open(criterion: &mut Criterion) {
    let names = (0..80).map(|n| -> &'static str { format!("table{n}").leak() });
    let options = Options {
        memory_budget: 256 << 20,
        product: "bench",
        schema: 1,
        tables: names
            .map(|name| TableSpec {
                name,
                profile: Profile::Scan,
            })
            .collect(),
    };
    let mut group = criterion.benchmark_group("open");
    group.sample_size(10);
    group.bench_function("new", |bencher| {
        bencher.iter_with_large_drop(|| {
            let dir = tempfile::tempdir().expect("temporary directories can be made");
            let store = Store::open(dir.path(), options.clone()).expect("empty directory");
            (store, dir)
        });
    });
    let dir = tempfile::tempdir().expect("temporary directories can be made");
    group.bench_function("again", |bencher| {
        bencher.iter(|| Store::open(dir.path(), options.clone()).expect("our own"));
    });
    group.finish();
}

criterion_group!(benches, commit, open);
criterion_main!(benches);
