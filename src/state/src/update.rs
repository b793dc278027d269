//! Changing a tree: one pass over the nodes that the changes touch.
//!
//! Steps, for the subtree under one link:
//! 1. without changes for it, the subtree stays as it is, unread;
//! 2. a leaf is merged with its changes and built anew from its entries;
//! 3. a branch hands each child its share of the changes and is put together again from what becomes of the children;
//!    keys that do not begin with the branch's digits are joined to the outcome.
//!
//! Building, putting together and joining all obey one rule, by which the shape follows from the content: no entries,
//! no node; up to [`BUCKET`] entries, a leaf; else a branch at the first digit in which the keys differ.
//!
//! A subtree gets its encoding only when its parent has taken it as a child, so nothing is written that a later step
//! of the same update merges away.

use std::collections::HashSet;

use myelin_types::{EventNum, StateKeyNum};

use crate::{
    NodeHash, Root,
    node::{BUCKET, Branch, Child, Entry, Leaf, Node},
    nodes::{Nodes, TreeError},
    read,
    slot::{FANOUT, Link, Slot},
};

/// A key, and the event to be put under it or `None` to remove what is there.
type Edit = (StateKeyNum, Option<EventNum>);

/// A changed state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Updated {
    /// The state after the changes.
    pub root: Root,
    /// The nodes of it that the state before did not have, each once, with name and encoding; children before
    /// parents. Writing one that is stored already, on account of another state, changes nothing.
    pub new_nodes: Vec<(NodeHash, Vec<u8>)>,
}

/// Puts (`Some`) and removes (`None`) entries. The changes may come in any order; of several for one key the last
/// decides. Removing what is not there, and putting what is, are no changes.
pub fn update<N: Nodes + ?Sized>(
    nodes: &N,
    root: Root,
    changes: &[(StateKeyNum, Option<EventNum>)],
) -> Result<Updated, TreeError<N::Error>> {
    let edits = normal(changes);
    let mut pass = Pass {
        nodes,
        known: HashSet::new(),
        new_nodes: Vec::new(),
    };
    let top = match Link::to_root(root) {
        Some(link) => pass.apply(link, &edits)?,
        None => build(&puts(&edits)),
    };
    let root = match pass.settle(top) {
        Some(child) => Root(child.hash),
        None => Root::EMPTY,
    };
    Ok(Updated {
        root,
        new_nodes: pass.new_nodes,
    })
}

/// The changes by ascending key, one for each key.
fn normal(changes: &[Edit]) -> Vec<Edit> {
    let mut edits = changes.to_vec();
    edits.reverse();
    // Stable: of the changes for one key, the one given last stays in front and is kept.
    edits.sort_by_key(|edit| edit.0);
    edits.dedup_by_key(|edit| edit.0);
    edits
}

/// The entries that the changes put.
fn puts(edits: &[Edit]) -> Vec<Entry> {
    let put = |edit: &Edit| edit.1.map(|event| (edit.0, event));
    edits.iter().filter_map(put).collect()
}

/// A subtree in the making.
enum Subtree {
    Empty,
    /// A node of the old tree, as it was.
    Kept(Link, u32),
    /// Entries which make a leaf.
    Leaf(Vec<Entry>),
    /// Children which make a branch: two or more, and more than [`BUCKET`] entries.
    Branch(Slot, Vec<(usize, Subtree)>),
}

impl Subtree {
    fn len(&self) -> usize {
        match self {
            Self::Empty => 0,
            Self::Kept(_, len) => *len as usize,
            Self::Leaf(entries) => entries.len(),
            Self::Branch(_, children) => children.iter().map(|(_, child)| child.len()).sum(),
        }
    }
}

/// The subtree of these entries, by ascending key.
fn build(entries: &[Entry]) -> Subtree {
    match entries {
        [] => Subtree::Empty,
        [(first, _), .., (last, _)] if entries.len() > BUCKET => {
            let slot = Slot::spanning(*first, *last);
            let same_child =
                |left: &Entry, right: &Entry| slot.digit(left.0) == slot.digit(right.0);
            let children = entries.chunk_by(same_child);
            let children = children.map(|group| (slot.digit(group[0].0), build(group)));
            Subtree::Branch(slot, children.collect())
        }
        _ => Subtree::Leaf(entries.to_vec()),
    }
}

struct Pass<'a, N: ?Sized> {
    nodes: &'a N,
    /// The nodes of the old tree that this pass has read, and those that it has made: neither are to be written again.
    known: HashSet<NodeHash>,
    new_nodes: Vec<(NodeHash, Vec<u8>)>,
}

impl<N: Nodes + ?Sized> Pass<'_, N> {
    /// What becomes of the subtree under `link`.
    fn apply(&mut self, link: Link, edits: &[Edit]) -> Result<Subtree, TreeError<N::Error>> {
        if let (true, Some(len)) = (edits.is_empty(), link.len) {
            return Ok(Subtree::Kept(link, len));
        }
        let node = link.load(self.nodes)?;
        self.known.insert(link.hash);
        match &*node {
            Node::Leaf(leaf) => {
                let merged = merge(leaf.entries(), edits);
                if merged == leaf.entries() {
                    Ok(Subtree::Kept(link, node.len()))
                } else {
                    Ok(build(&merged))
                }
            }
            Node::Branch(branch) => {
                let (before, inside, after) = branch.slot().split(edits, |edit| edit.0);
                let kept = self.apply_to_children(link, branch, inside)?;
                let mut outside = puts(before);
                outside.extend(puts(after));
                self.join(kept, branch.slot(), &outside)
            }
        }
    }

    /// What becomes of a branch by edits of keys that begin with its digits.
    fn apply_to_children(
        &mut self,
        link: Link,
        branch: &Branch,
        edits: &[Edit],
    ) -> Result<Subtree, TreeError<N::Error>> {
        let slot = branch.slot();
        let mut children = Vec::with_capacity(FANOUT);
        let mut changed = false;
        for digit in 0..FANOUT {
            let (_, share, _) = slot.child(digit).split(edits, |edit| edit.0);
            let subtree = match branch.child(digit) {
                Some(child) => self.apply(child, share)?,
                None => build(&puts(share)),
            };
            changed |= match (&subtree, branch.child(digit)) {
                (Subtree::Kept(now, _), Some(then)) => *now != then,
                (Subtree::Empty, None) => false,
                _ => true,
            };
            children.push((digit, subtree));
        }
        if changed {
            self.assemble(slot, children)
        } else {
            Ok(Subtree::Kept(link, branch.len()))
        }
    }

    /// The subtree whose parts are `children`, given with their digits in ascending order.
    fn assemble(
        &mut self,
        slot: Slot,
        mut children: Vec<(usize, Subtree)>,
    ) -> Result<Subtree, TreeError<N::Error>> {
        children.retain(|(_, child)| !matches!(child, Subtree::Empty));
        if children.len() < 2 {
            return Ok(children.pop().map_or(Subtree::Empty, |(_, only)| only));
        }
        let len: usize = children.iter().map(|(_, child)| child.len()).sum();
        if len > BUCKET {
            return Ok(Subtree::Branch(slot, children));
        }
        let mut entries = Vec::with_capacity(len);
        for (_, child) in children {
            entries.extend(self.entries(child)?);
        }
        Ok(Subtree::Leaf(entries))
    }

    /// The subtree of `kept`, all of whose keys lie in `slot`, and of entries none of which do.
    fn join(
        &mut self,
        kept: Subtree,
        slot: Slot,
        outside: &[Entry],
    ) -> Result<Subtree, TreeError<N::Error>> {
        let (Some((first, _)), Some((last, _))) = (outside.first(), outside.last()) else {
            return Ok(kept);
        };
        if matches!(kept, Subtree::Empty) {
            return Ok(build(outside));
        }
        let around = Slot::spanning((*first).min(slot.first()), (*last).max(slot.last()));
        let home = around.digit(slot.first());
        let mut children = Vec::with_capacity(FANOUT);
        let mut kept = Some(kept);
        for digit in 0..FANOUT {
            let (_, share, _) = around.child(digit).split(outside, |entry| entry.0);
            let subtree = match kept.take_if(|_| digit == home) {
                Some(kept) => self.join(kept, slot, share)?,
                None => build(share),
            };
            children.push((digit, subtree));
        }
        self.assemble(around, children)
    }

    /// The entries of a subtree that is to be merged into a leaf.
    fn entries(&mut self, subtree: Subtree) -> Result<Vec<Entry>, TreeError<N::Error>> {
        match subtree {
            Subtree::Empty => Ok(Vec::new()),
            Subtree::Kept(link, _) => {
                self.known.insert(link.hash);
                read::entries(self.nodes, link)
            }
            Subtree::Leaf(entries) => Ok(entries),
            Subtree::Branch(_, children) => {
                let mut entries = Vec::new();
                for (_, child) in children {
                    entries.extend(self.entries(child)?);
                }
                Ok(entries)
            }
        }
    }

    /// Names a subtree that is part of the new state, and emits what of it is new.
    fn settle(&mut self, subtree: Subtree) -> Option<Child> {
        let node = match subtree {
            Subtree::Empty => return None,
            Subtree::Kept(Link { hash, .. }, len) => return Some(Child { hash, len }),
            Subtree::Leaf(entries) => Node::Leaf(Leaf::new(entries)),
            Subtree::Branch(slot, children) => {
                let settled = children.into_iter();
                let settled =
                    settled.filter_map(|(digit, child)| Some((digit, self.settle(child)?)));
                Node::Branch(Branch::new(slot, &settled.collect::<Vec<_>>()))
            }
        };
        let encoding = node.encode();
        let hash = NodeHash::of(&encoding);
        if self.known.insert(hash) {
            self.new_nodes.push((hash, encoding));
        }
        Some(Child {
            hash,
            len: node.len(),
        })
    }
}

/// The entries after the edits; both are by ascending key.
fn merge(entries: &[Entry], edits: &[Edit]) -> Vec<Entry> {
    let mut merged = Vec::with_capacity(entries.len() + edits.len());
    let mut entries = entries.iter().copied().peekable();
    for (key, event) in edits {
        while let Some(entry) = entries.next_if(|entry| entry.0 < *key) {
            merged.push(entry);
        }
        entries.next_if(|entry| entry.0 == *key);
        merged.extend(event.map(|event| (*key, event)));
    }
    merged.extend(entries);
    merged
}
