//! Whatever is done to a tree, it holds what a `BTreeMap` would, and its root tells its content.

use std::collections::{BTreeMap, HashSet};

use myelin_state::{
    BUCKET, CachedNodes, Change, NoNodes, NodeCache, Nodes, Overlay, Root, diff, get, get_many,
    iter, len, len_of_range, range, reachable, update,
};
use myelin_types::{EventNum, StateKeyNum};
use proptest::{collection::vec, option, prelude::*};

use crate::support::{Chance, Edits, Memory, apply_to_model};

type Model = BTreeMap<StateKeyNum, EventNum>;

/// Keys close together, keys that differ in one digit, the edges, and keys from anywhere.
fn key() -> impl Strategy<Value = StateKeyNum> {
    prop_oneof![
        8 => 0..300_u32,
        8 => (0..300_u32).prop_map(|low| StateKeyNum::MEMBER_BIT + low),
        4 => (0..8_u32, 0..16_u32).prop_map(|(digit, value)| value << (4 * digit)),
        2 => (0..256_u32).prop_map(|scattered| scattered.wrapping_mul(0x9e37_79b9)),
        1 => Just(u32::MAX),
        1 => any::<u32>(),
    ]
    .prop_map(StateKeyNum)
}

fn event() -> impl Strategy<Value = EventNum> {
    prop_oneof![8 => 1..4_u64, 4 => 1..100_000_u64, 1 => any::<u64>()].prop_map(EventNum)
}

fn edits(most: usize) -> impl Strategy<Value = Edits> {
    vec((key(), option::weighted(0.6, event())), 0..most)
}

fn history() -> impl Strategy<Value = Vec<Edits>> {
    vec(prop_oneof![edits(4), edits(200)], 1..8)
}

fn content<N: Nodes>(nodes: &N, root: Root) -> Model {
    iter(nodes, root)
        .collect::<Result<_, _>>()
        .expect("every node is there")
}

fn model_diff(old: &Model, new: &Model) -> Vec<Change> {
    let keys: std::collections::BTreeSet<_> = old.keys().chain(new.keys()).copied().collect();
    keys.into_iter()
        .map(|key| Change {
            key,
            old: old.get(&key).copied(),
            new: new.get(&key).copied(),
        })
        .filter(|change| change.old != change.new)
        .collect()
}

proptest! {
    #[test]
    fn a_tree_holds_what_the_model_holds(history in history(), probes in vec(key(), 0..40)) {
        let (mut memory, mut root, mut model) = (Memory::default(), Root::EMPTY, Model::new());
        for edits in &history {
            root = memory.apply(root, edits).root;
            apply_to_model(&mut model, edits);
            prop_assert_eq!(content(&memory, root), model.clone());
            prop_assert_eq!(len(&memory, root), Ok(model.len()));
            prop_assert_eq!(root.is_empty(), model.is_empty());
        }
        let expected: Vec<_> = probes.iter().map(|key| model.get(key).copied()).collect();
        for (key, expected) in probes.iter().zip(&expected) {
            prop_assert_eq!(&get(&memory, root, *key), &Ok(*expected));
        }
        prop_assert_eq!(get_many(&memory, root, &probes), Ok(expected));
    }

    #[test]
    fn ranges_and_their_lengths_are_the_models(edits in edits(400), start in key(), end in key()) {
        let (mut memory, mut model) = (Memory::default(), Model::new());
        let root = memory.apply(Root::EMPTY, &edits).root;
        apply_to_model(&mut model, &edits);
        let inside: Vec<_> = model
            .iter()
            .filter(|(key, _)| (start..=end).contains(key))
            .map(|(key, event)| (*key, *event))
            .collect();
        prop_assert_eq!(len_of_range(&memory, root, start..=end), Ok(inside.len()));
        prop_assert_eq!(range(&memory, root, start..=end), Ok(inside));
    }

    #[test]
    fn equal_content_has_one_root_whatever_its_history(history in history(), seed: u64) {
        let (mut memory, mut root, mut model) = (Memory::default(), Root::EMPTY, Model::new());
        for edits in &history {
            root = memory.apply(root, edits).root;
            apply_to_model(&mut model, edits);
        }
        let mut fresh = Memory::default();
        prop_assert_eq!(fresh.build(model.clone()), root);

        // One by one, in another order, with an intruder that leaves again.
        let mut order: Vec<_> = model.into_iter().collect();
        let mut chance = Chance(seed);
        order.sort_by_cached_key(|_| chance.next());
        let intruder = StateKeyNum(chance.next() as u32);
        let own = order.iter().any(|(key, _)| *key == intruder);
        let mut slow = Memory::default();
        let mut slow_root = slow.build([(intruder, EventNum(1))]);
        for (key, event) in order {
            slow_root = slow.apply(slow_root, &vec![(key, Some(event))]).root;
        }
        if !own {
            slow_root = slow.apply(slow_root, &vec![(intruder, None)]).root;
        }
        prop_assert_eq!(slow_root, root);
    }

    #[test]
    fn different_content_has_different_roots(first in edits(100), second in edits(100)) {
        let (mut memory, mut left, mut right) = (Memory::default(), Model::new(), Model::new());
        apply_to_model(&mut left, &first);
        apply_to_model(&mut right, &second);
        let roots = (memory.build(left.clone()), memory.build(right.clone()));
        prop_assert_eq!(roots.0 == roots.1, left == right);
    }

    #[test]
    fn diffs_are_the_models(
        common in edits(300), first in prop_oneof![edits(4), edits(200)], second in prop_oneof![edits(4), edits(200)],
    ) {
        let (mut memory, mut model) = (Memory::default(), Model::new());
        let base = memory.apply(Root::EMPTY, &common).root;
        apply_to_model(&mut model, &common);
        let (mut left, mut right) = (model.clone(), model);
        apply_to_model(&mut left, &first);
        apply_to_model(&mut right, &second);
        let old = memory.apply(base, &first).root;
        let new = memory.apply(base, &second).root;
        prop_assert_eq!(diff(&memory, old, new), Ok(model_diff(&left, &right)));
        prop_assert_eq!(diff(&memory, new, old), Ok(model_diff(&right, &left)));
        prop_assert_eq!(diff(&memory, old, old), Ok(vec![]));
    }

    #[test]
    fn an_update_done_twice_does_nothing_the_second_time(common in edits(300), edits in edits(100)) {
        let mut memory = Memory::default();
        let base = memory.apply(Root::EMPTY, &common).root;
        let once = memory.apply(base, &edits);
        let twice = memory.apply(once.root, &edits);
        prop_assert_eq!(twice.root, once.root);
        prop_assert_eq!(twice.new_nodes, vec![]);
    }

    #[test]
    fn removing_everything_leaves_the_empty_root(edits in edits(400)) {
        let mut memory = Memory::default();
        let root = memory.apply(Root::EMPTY, &edits).root;
        let removals: Edits = edits.iter().map(|(key, _)| (*key, None)).collect();
        let emptied = memory.apply(root, &removals);
        prop_assert_eq!(emptied.root, Root::EMPTY);
        prop_assert_eq!(emptied.new_nodes, vec![]);
    }

    #[test]
    fn an_update_writes_exactly_the_nodes_that_the_old_tree_lacks(common in edits(300), edits in edits(100)) {
        let mut memory = Memory::default();
        let base = memory.apply(Root::EMPTY, &common).root;
        let updated = memory.apply(base, &edits);

        let (mut before, mut after) = (HashSet::new(), HashSet::new());
        reachable(&memory, &[base], &mut before).expect("every node is there");
        reachable(&memory, &[updated.root], &mut after).expect("every node is there");
        let written: HashSet<_> = updated.new_nodes.iter().map(|(hash, _)| *hash).collect();
        prop_assert_eq!(written.len(), updated.new_nodes.len());
        prop_assert_eq!(written, after.difference(&before).copied().collect::<HashSet<_>>());
    }

    #[test]
    fn only_reachable_nodes_are_needed(history in history()) {
        let (mut memory, mut root) = (Memory::default(), Root::EMPTY);
        for edits in &history {
            root = memory.apply(root, edits).root;
        }
        let expected = content(&memory, root);
        let mut kept = HashSet::new();
        reachable(&memory, &[root, Root::EMPTY], &mut kept).expect("every node is there");
        memory.nodes.retain(|hash, _| kept.contains(hash));
        prop_assert_eq!(memory.nodes.len(), kept.len());
        prop_assert_eq!(content(&memory, root), expected);
    }
}

/// Every entry of `0..count` members, all by the same event.
fn members(count: u32) -> impl Iterator<Item = (StateKeyNum, EventNum)> {
    (0..count).map(|low| (StateKeyNum(StateKeyNum::MEMBER_BIT | low), EventNum(9)))
}

#[test]
fn of_several_changes_for_one_key_the_last_decides() {
    let (mut memory, key) = (Memory::default(), StateKeyNum(5));
    let put = memory.apply(Root::EMPTY, &vec![(key, None), (key, Some(EventNum(2)))]);
    assert_eq!(get(&memory, put.root, key), Ok(Some(EventNum(2))));
    let gone = memory.apply(put.root, &vec![(key, Some(EventNum(3))), (key, None)]);
    assert_eq!(gone.root, Root::EMPTY);
}

#[test]
fn a_leaf_splits_beyond_the_bucket_and_closes_again() {
    let mut memory = Memory::default();
    let full = memory.build(members(BUCKET as u32));
    let one_more = (StateKeyNum(1), Some(EventNum(1)));
    let split = memory.apply(full, &vec![one_more]);
    // The full leaf stays; a leaf for the newcomer and a branch above both are new.
    assert_eq!(split.new_nodes.len(), 2);
    let closed = memory.apply(split.root, &vec![(one_more.0, None)]);
    assert_eq!(closed.root, full);
    assert_eq!(closed.new_nodes, vec![]);
}

#[test]
fn the_state_after_one_update_is_readable_before_it_is_written() {
    let mut pending = Overlay::new(NoNodes);
    let mut root = Root::EMPTY;
    for (key, event) in members(200) {
        let updated = update(&pending, root, &[(key, Some(event))]).expect("nothing is missing");
        pending.add(&updated).expect("fresh nodes are sound");
        root = updated.root;
    }
    assert_eq!(len(&pending, root), Ok(200));
    assert!(pending.fresh_len() > 200);
}

#[test]
fn cached_nodes_are_read_once_and_within_the_capacity() {
    let mut memory = Memory::default();
    let root = memory.build(members(20_000));
    let roomy = NodeCache::new(16 << 20);
    let (first, _) = memory.count_reads(|memory| content(&CachedNodes::new(&roomy, memory), root));
    let (second, _) = memory.count_reads(|memory| content(&CachedNodes::new(&roomy, memory), root));
    assert!(first > 400, "{first}");
    assert_eq!(second, 0);

    let tight = NodeCache::new(64 << 10);
    let all = content(&CachedNodes::new(&tight, &memory), root);
    assert_eq!(all.len(), 20_000);
    assert!(tight.used() <= 64 << 10, "{tight:?}");
}

#[test]
fn no_descent_reads_more_than_nine_nodes() {
    let mut memory = Memory::default();
    // The zero key shares its first digits with ever fewer others: one branch for each digit.
    let crowd = (0..8).flat_map(|digit| (1..16).map(move |value| value << (4 * digit)));
    let dense = (0..=0xff).chain(crowd);
    let root = memory.build(dense.map(|key| (StateKeyNum(key), EventNum(1))));
    for key in [0, 1, 0xff, 0x100, 0xf000_0000, u32::MAX] {
        let (reads, _) = memory.count_reads(|memory| get(memory, root, StateKeyNum(key)));
        assert!(reads <= 9, "{reads}");
    }
}
