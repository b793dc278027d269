//! How long it takes to change and to compare states of a large room.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use myelin_state::{NoNodes, Overlay, Root, diff, get, iter, update};
use myelin_types::{EventNum, StateKeyNum};

const MEMBERS: u32 = 100_000;

fn member(at: u32) -> StateKeyNum {
    StateKeyNum(StateKeyNum::MEMBER_BIT | (at * 7))
}

fn tree(c: &mut Criterion) {
    let mut nodes = Overlay::new(NoNodes);
    let joins: Vec<_> = (0..MEMBERS)
        .map(|at| (member(at), Some(EventNum(u64::from(at) + 1))))
        .collect();
    let full = update(&nodes, Root::EMPTY, &joins).expect("nothing is missing");
    nodes.add(&full).expect("fresh nodes are sound");
    let root = full.root;
    let mut turn = 0;
    let mut next = || {
        turn = (turn + 7_919) % MEMBERS;
        member(turn)
    };

    c.bench_function("update one of 100,000", |b| {
        b.iter_batched(
            &mut next,
            |key| update(&nodes, root, &[(key, Some(EventNum(u64::from(u32::MAX))))]),
            BatchSize::SmallInput,
        );
    });
    c.bench_function("get one of 100,000", |b| {
        b.iter_batched(
            &mut next,
            |key| get(&nodes, root, key),
            BatchSize::SmallInput,
        );
    });

    let ten: Vec<_> = (0..10).map(|_| (next(), None)).collect();
    let fewer = update(&nodes, root, &ten).expect("nothing is missing");
    nodes.add(&fewer).expect("fresh nodes are sound");
    c.bench_function("diff 10 of 100,000", |b| {
        b.iter(|| diff(&nodes, black_box(root), black_box(fewer.root)));
    });
    c.bench_function("iterate 100,000", |b| {
        b.iter(|| iter(&nodes, black_box(root)).flatten().count());
    });
}

criterion_group!(benches, tree);
criterion_main!(benches);
