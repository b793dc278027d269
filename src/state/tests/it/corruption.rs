//! Damaged nodes are errors, never panics and never endless walks.

use std::collections::HashSet;

use myelin_state::{
    CorruptNode, Node, NodeHash, Root, TreeError, VERSION, diff, get, iter, len, reachable, update,
};
use myelin_types::{EventNum, StateKeyNum};
use proptest::{collection::vec, prelude::*};

use crate::support::{Chance, Memory};

/// A state of a few hundred entries at varied depths.
fn some_state(memory: &mut Memory) -> Root {
    let mut chance = Chance(3);
    let mut entries = Vec::new();
    for at in 0..400 {
        let key = if at % 4 == 0 {
            chance.next() as u32
        } else {
            at
        };
        entries.push((StateKeyNum(key), EventNum(chance.below(1_000))));
    }
    memory.build(entries)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn what_decodes_encodes_to_the_same_bytes(bytes in vec(any::<u8>(), 0..200), leaf: bool) {
        for start in [vec![], vec![VERSION], vec![VERSION, if leaf { 0xff } else { bytes.len() as u8 % 8 }]] {
            let bytes = [start, bytes.clone()].concat();
            if let Ok(node) = Node::decode(&bytes) {
                prop_assert_eq!(node.encode(), bytes);
            }
        }
    }
}

proptest! {
    #[test]
    fn nodes_survive_their_encoding_and_no_damage_goes_unnoticed(at: usize, flip in 1..=255_u8, cut: usize) {
        let mut memory = Memory::default();
        some_state(&mut memory);
        for (hash, bytes) in &memory.nodes {
            let node = Node::decode(bytes).expect("it was just encoded");
            prop_assert_eq!(&node.encode(), bytes);
            prop_assert_eq!(NodeHash::of(bytes), *hash);

            prop_assert!(Node::decode(&[bytes.as_slice(), &[0]].concat()) != Ok(node.clone()));
            prop_assert!(Node::decode(&bytes[..cut % bytes.len()]) != Ok(node.clone()));
            let mut damaged = bytes.clone();
            damaged[at % bytes.len()] ^= flip;
            prop_assert!(Node::decode(&damaged) != Ok(node));
        }
    }

    #[test]
    fn trees_of_shuffled_nodes_are_walked_to_an_end(seed: u64) {
        let mut memory = Memory::default();
        let root = some_state(&mut memory);
        let mut chance = Chance(seed);
        let mut contents: Vec<_> = memory.nodes.values().cloned().collect();
        contents.sort_by_cached_key(|_| chance.next());
        for (content, at) in memory.nodes.values_mut().zip(contents) {
            *content = at;
        }
        let edits: Vec<_> = (0..50).map(|key| (StateKeyNum(key), Some(EventNum(1)))).collect();
        let walked = iter(&memory, root).count();
        prop_assert!(walked <= 401);
        let _ = (len(&memory, root), get(&memory, root, StateKeyNum(7)), update(&memory, root, &edits));
        let _ = (diff(&memory, root, Root::EMPTY), reachable(&memory, &[root], &mut HashSet::new()));
    }
}

#[test]
fn a_missing_node_is_named() {
    let mut memory = Memory::default();
    let root = some_state(&mut memory);
    memory.nodes.remove(&root.0);
    let missing = TreeError::Missing { hash: root.0 };
    assert_eq!(get(&memory, root, StateKeyNum(1)), Err(missing.clone()));
    assert_eq!(iter(&memory, root).collect::<Vec<_>>(), vec![Err(missing)]);
}

#[test]
fn a_node_in_the_place_of_another_is_corrupt() {
    let mut memory = Memory::default();
    let root = some_state(&mut memory);
    let mut names = HashSet::new();
    reachable(&memory, &[root], &mut names).expect("every node is there");
    let top = memory.nodes[&root.0].clone();
    // Every node is the topmost one: a cycle, were it believed.
    memory
        .nodes
        .values_mut()
        .for_each(|bytes| bytes.clone_from(&top));
    let found = get(&memory, root, StateKeyNum(1));
    assert!(
        matches!(
            found,
            Err(TreeError::Corrupt {
                source: CorruptNode::Misplaced,
                ..
            })
        ),
        "{found:?}"
    );
}

#[test]
fn later_versions_are_refused() {
    assert_eq!(
        Node::decode(&[VERSION + 1, 0]),
        Err(CorruptNode::Version(VERSION + 1))
    );
    assert_eq!(Node::decode(&[]), Err(CorruptNode::Short));
}

#[test]
fn the_encoding_does_not_change_unnoticed() {
    let mut memory = Memory::default();
    let leaf = memory.build([
        (StateKeyNum(3), EventNum(300)),
        (StateKeyNum(4), EventNum(1_000)),
        (StateKeyNum(0x8000_0000), EventNum(301)),
    ]);
    let bytes = [
        1, 0xff, // version, leaf
        3, 0xac, 0x02, 0, // key 3, base 300, event 300
        0, 0xbc, 0x05, // key 4, event 1000
        0xfb, 0xff, 0xff, 0xff, 0x07, 1, // key 0x80000000, event 301
    ];
    assert_eq!(memory.nodes[&leaf.0], bytes);
}
