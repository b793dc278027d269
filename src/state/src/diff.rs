//! Comparing two trees. Subtrees with equal names are equal and are not read.

use std::cmp::Ordering;

use myelin_types::{EventNum, StateKeyNum};

use crate::{
    Root,
    node::{Branch, Entry, Node},
    nodes::{Nodes, TreeError},
    read,
    slot::{FANOUT, Link, Slot},
};

/// One key that differs between two states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// The key.
    pub key: StateKeyNum,
    /// The event in the old state, if there is one.
    pub old: Option<EventNum>,
    /// The event in the new state, if there is one.
    pub new: Option<EventNum>,
}

/// What differs between `old` and `new`, by ascending key. Reads the nodes on the way to differences, whatever the
/// size of the states.
pub fn diff<N: Nodes + ?Sized>(
    nodes: &N,
    old: Root,
    new: Root,
) -> Result<Vec<Change>, TreeError<N::Error>> {
    let mut changes = Vec::new();
    compare(nodes, Link::to_root(old), Link::to_root(new), &mut changes)?;
    Ok(changes)
}

/// Compares what two links lead to. Changes are appended by ascending key.
fn compare<N: Nodes + ?Sized>(
    nodes: &N,
    old: Option<Link>,
    new: Option<Link>,
    changes: &mut Vec<Change>,
) -> Result<(), TreeError<N::Error>> {
    let (old, new) = match (old, new) {
        (Some(old), Some(new)) if old.hash == new.hash => return Ok(()),
        (Some(old), Some(new)) => (old, new),
        (old, new) => {
            let old = old.map_or(Ok(Vec::new()), |link| read::entries(nodes, link))?;
            let new = new.map_or(Ok(Vec::new()), |link| read::entries(nodes, link))?;
            compare_entries(&old, &new, changes);
            return Ok(());
        }
    };
    let (old_node, new_node) = (old.load(nodes)?, new.load(nodes)?);
    let slots = (old_node.slot(), new_node.slot());
    match (&*old_node, &*new_node) {
        (Node::Branch(left), Node::Branch(right)) if slots.0 == slots.1 => {
            for digit in 0..FANOUT {
                compare(nodes, left.child(digit), right.child(digit), changes)?;
            }
            Ok(())
        }
        (Node::Branch(left), Node::Branch(_)) if slots.0.covers(slots.1) => {
            for (child, whole) in beside(left, new, slots.1) {
                compare(nodes, child, whole, changes)?;
            }
            Ok(())
        }
        (Node::Branch(_), Node::Branch(right)) if slots.1.covers(slots.0) => {
            for (child, whole) in beside(right, old, slots.0) {
                compare(nodes, whole, child, changes)?;
            }
            Ok(())
        }
        // Branches without a common key, or a leaf: as good as all the entries differ, for a branch has more of them
        // than a leaf can have.
        _ => {
            let (old, new) = (read::entries(nodes, old)?, read::entries(nodes, new)?);
            compare_entries(&old, &new, changes);
            Ok(())
        }
    }
}

/// The children of `branch`, by ascending key, and beside them the one node `whole` whose keys all lie in `slot`:
/// with the child for that slot, if there is one.
fn beside(
    branch: &Branch,
    whole: Link,
    slot: Slot,
) -> impl Iterator<Item = (Option<Link>, Option<Link>)> + '_ {
    let home = branch.slot().digit(slot.first());
    (0..FANOUT).map(move |digit| (branch.child(digit), (digit == home).then_some(whole)))
}

/// Compares entries, both sides by ascending key.
fn compare_entries(old: &[Entry], new: &[Entry], changes: &mut Vec<Change>) {
    let (mut old, mut new) = (old.iter().peekable(), new.iter().peekable());
    loop {
        let order = match (old.peek(), new.peek()) {
            (None, None) => return,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(left), Some(right)) => left.0.cmp(&right.0),
        };
        let left = old.next_if(|_| order.is_le());
        let right = new.next_if(|_| order.is_ge());
        let Some((key, _)) = left.or(right) else {
            return;
        };
        let change = Change {
            key: *key,
            old: left.map(|entry| entry.1),
            new: right.map(|entry| entry.1),
        };
        if change.old != change.new {
            changes.push(change);
        }
    }
}
