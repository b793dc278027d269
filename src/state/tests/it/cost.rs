//! What changes cost: nodes and bytes written, nodes read.
//!
//! `cargo test -p myelin-state -- --ignored --nocapture bytes_written` prints the figures on which the bucket size was
//! chosen.

use myelin_state::{Root, diff};
use myelin_types::{EventNum, StateKeyNum};

use crate::support::{Chance, Memory};

/// A room as a server with many rooms sees it: the numbers of its keys lie scattered among those of other rooms, and
/// come in runs where members arrived together.
fn room(size: u64, chance: &mut Chance) -> Vec<StateKeyNum> {
    let (mut member, mut other) = (StateKeyNum::MEMBER_BIT, 0);
    (0..size)
        .map(|at| {
            let step = if chance.below(3) == 0 {
                1 + chance.below(60) as u32
            } else {
                1
            };
            let next = if at < 20 { &mut other } else { &mut member };
            *next += step;
            StateKeyNum(*next)
        })
        .collect()
}

/// Fills a room of `size` keys, as by one join, then changes it `changes` times: nine in ten are changes of a member
/// drawn by a power law, the others new members. Returns nodes and bytes (with their names) written per change.
fn written(size: u64, changes: u64) -> (f64, f64) {
    let mut chance = Chance(size);
    let mut keys = room(size, &mut chance);
    let (mut memory, mut event) = (Memory::default(), 10_000_000);
    let first = keys
        .iter()
        .map(|key| (*key, EventNum(event + u64::from(key.0 & 0xfff))));
    let mut root = memory.build(first.collect::<Vec<_>>());
    let (mut nodes, mut bytes) = (0, 0);
    for _ in 0..changes {
        event += 1 + chance.below(200);
        let key = if chance.below(10) == 0 {
            let newcomer = StateKeyNum(keys[keys.len() - 1].0 + 1 + chance.below(60) as u32);
            keys.push(newcomer);
            newcomer
        } else {
            // Rank by 1/rank: the logarithm of the rank is uniform. The multiplication scatters the ranks.
            let rank = (keys.len() as f64).powf(chance.share()) as u64;
            keys[(rank * 7_919 % keys.len() as u64) as usize]
        };
        let updated = memory.apply(root, &vec![(key, Some(EventNum(event)))]);
        root = updated.root;
        nodes += updated.new_nodes.len();
        bytes += updated
            .new_nodes
            .iter()
            .map(|(_, bytes)| 16 + bytes.len())
            .sum::<usize>();
    }
    (nodes as f64 / changes as f64, bytes as f64 / changes as f64)
}

#[test]
#[ignore = "prints figures for the choice of the bucket size"]
#[expect(clippy::print_stderr, reason = "the figures are the purpose")]
fn bytes_written() {
    for size in [100, 1_000, 10_000, 100_000] {
        let (nodes, bytes) = written(size, 5_000);
        eprintln!("{size:>7} entries: {nodes:.2} nodes, {bytes:.0} bytes a change");
    }
}

#[test]
fn a_change_writes_no_more_than_was_decided_upon() {
    for (size, most_nodes, most_bytes) in LIMITS {
        let (nodes, bytes) = written(size, 500);
        assert!(nodes <= most_nodes, "{size} entries: {nodes} nodes");
        assert!(bytes <= most_bytes, "{size} entries: {bytes} bytes");
    }
}

/// Entries, nodes a change, bytes a change.
const LIMITS: [(u64, f64, f64); 4] = [
    (100, 4.0, 480.0),
    (1_000, 4.2, 580.0),
    (10_000, 5.3, 810.0),
    (100_000, 6.2, 1_110.0),
];

#[test]
fn a_difference_is_found_without_reading_the_rest() {
    let mut memory = Memory::default();
    let keys = room(100_000, &mut Chance(1));
    let old = memory.build(keys.iter().map(|key| (*key, EventNum(1))));
    let new = memory
        .apply(old, &vec![(keys[50_000], Some(EventNum(2)))])
        .root;
    let (reads, changes) = memory.count_reads(|memory| diff(memory, old, new));
    assert_eq!(changes.map(|changes| changes.len()), Ok(1));
    assert!(reads <= 14, "{reads}");
    let (reads, _) = memory.count_reads(|memory| diff(memory, new, new));
    assert_eq!(reads, 0);
    let (_, all) = memory.count_reads(|memory| diff(memory, Root::EMPTY, new));
    assert_eq!(all.map(|changes| changes.len()), Ok(100_000));
}
