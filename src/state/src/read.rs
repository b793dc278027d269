//! Reading a tree: single keys, many keys, ranges, counts, and the nodes themselves.

use std::{collections::HashSet, fmt, ops::RangeInclusive, sync::Arc};

use myelin_types::{EventNum, StateKeyNum};

use crate::{
    NodeHash, Root,
    node::{BUCKET, Entry, Node},
    nodes::{Nodes, TreeError},
    slot::{Link, Slot},
};

/// The event under `key`, if there is one.
pub fn get<N: Nodes + ?Sized>(
    nodes: &N,
    root: Root,
    key: StateKeyNum,
) -> Result<Option<EventNum>, TreeError<N::Error>> {
    let mut link = Link::to_root(root);
    while let Some(here) = link {
        match &*here.load(nodes)? {
            Node::Leaf(leaf) => return Ok(leaf.get(key)),
            Node::Branch(branch) if branch.slot().holds(key) => {
                link = branch.child(branch.slot().digit(key));
            }
            Node::Branch(_) => return Ok(None),
        }
    }
    Ok(None)
}

/// The events under `keys`, in the order of `keys`, which may be any. Each node is read once.
pub fn get_many<N: Nodes + ?Sized>(
    nodes: &N,
    root: Root,
    keys: &[StateKeyNum],
) -> Result<Vec<Option<EventNum>>, TreeError<N::Error>> {
    let mut found = vec![None; keys.len()];
    let mut wanted: Vec<(StateKeyNum, usize)> = keys.iter().copied().zip(0..).collect();
    wanted.sort_unstable();
    if let Some(link) = Link::to_root(root) {
        get_below(nodes, link, &wanted, &mut found)?;
    }
    Ok(found)
}

/// Looks up `wanted`, ascending keys with their places in `found`, below one node.
fn get_below<N: Nodes + ?Sized>(
    nodes: &N,
    link: Link,
    wanted: &[(StateKeyNum, usize)],
    found: &mut [Option<EventNum>],
) -> Result<(), TreeError<N::Error>> {
    if wanted.is_empty() {
        return Ok(());
    }
    match &*link.load(nodes)? {
        Node::Leaf(leaf) => {
            for (key, place) in wanted {
                found[*place] = leaf.get(*key);
            }
        }
        Node::Branch(branch) => {
            let slot = branch.slot();
            let (_, inside, _) = slot.split(wanted, |(key, _)| *key);
            for group in inside.chunk_by(|left, right| slot.digit(left.0) == slot.digit(right.0)) {
                if let Some(child) = branch.child(slot.digit(group[0].0)) {
                    get_below(nodes, child, group, found)?;
                }
            }
        }
    }
    Ok(())
}

/// The entries whose keys lie in `keys`, by ascending key.
pub fn range<N: Nodes + ?Sized>(
    nodes: &N,
    root: Root,
    keys: RangeInclusive<StateKeyNum>,
) -> Result<Vec<Entry>, TreeError<N::Error>> {
    Iter::new(nodes, Link::to_root(root), keys).collect()
}

/// All entries, by ascending key. Nodes are read as the iterator gets to them; after an error it is at its end.
pub fn iter<N: Nodes + ?Sized>(nodes: &N, root: Root) -> Iter<'_, N> {
    Iter::new(
        nodes,
        Link::to_root(root),
        Slot::ALL.first()..=Slot::ALL.last(),
    )
}

/// All entries below one node, by ascending key.
pub(crate) fn entries<N: Nodes + ?Sized>(
    nodes: &N,
    link: Link,
) -> Result<Vec<Entry>, TreeError<N::Error>> {
    Iter::new(nodes, Some(link), link.slot.first()..=link.slot.last()).collect()
}

/// The entries of a tree one by one, see [`iter`].
pub struct Iter<'a, N: ?Sized> {
    nodes: &'a N,
    keys: RangeInclusive<StateKeyNum>,
    /// Nodes to be visited, the next one last.
    ahead: Vec<Link>,
    /// The leaf at hand, and how many of its entries are done with.
    leaf: Option<(Arc<Node>, usize)>,
}

impl<'a, N: Nodes + ?Sized> Iter<'a, N> {
    fn new(nodes: &'a N, top: Option<Link>, keys: RangeInclusive<StateKeyNum>) -> Self {
        Self {
            nodes,
            keys,
            ahead: top.into_iter().collect(),
            leaf: None,
        }
    }

    /// The next entry of the leaf at hand.
    fn step(&mut self) -> Option<Entry> {
        let (node, done) = self.leaf.as_mut()?;
        let Node::Leaf(leaf) = &**node else {
            return None;
        };
        let entry = *leaf.entries().get(*done)?;
        *done += 1;
        self.keys.contains(&entry.0).then_some(entry)
    }

    /// Reads the next node, and takes it up if it is a leaf.
    fn advance(&mut self, link: Link) -> Result<(), TreeError<N::Error>> {
        let node = link.load(self.nodes)?;
        match &*node {
            Node::Leaf(leaf) => {
                let before = |entry: &Entry| entry.0 < *self.keys.start();
                let done = leaf.entries().partition_point(before);
                self.leaf = Some((node, done));
            }
            Node::Branch(branch) => {
                let meets = |link: &Link| link.slot.meets(&self.keys);
                self.ahead.extend(branch.links().rev().filter(meets));
            }
        }
        Ok(())
    }
}

impl<N: Nodes + ?Sized> Iterator for Iter<'_, N> {
    type Item = Result<Entry, TreeError<N::Error>>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(entry) = self.step() {
                return Some(Ok(entry));
            }
            self.leaf = None;
            let link = self.ahead.pop()?;
            if let Err(error) = self.advance(link) {
                self.ahead.clear();
                return Some(Err(error));
            }
        }
    }
}

impl<N: ?Sized> fmt::Debug for Iter<'_, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Iter")
            .field("keys", &self.keys)
            .field("ahead", &self.ahead)
            .finish_non_exhaustive()
    }
}

/// How many entries the state has. Reads one node at most.
pub fn len<N: Nodes + ?Sized>(nodes: &N, root: Root) -> Result<usize, TreeError<N::Error>> {
    len_of_range(nodes, root, Slot::ALL.first()..=Slot::ALL.last())
}

/// How many entries have keys in `keys`. Reads the nodes along the two ends of the range, not those within.
pub fn len_of_range<N: Nodes + ?Sized>(
    nodes: &N,
    root: Root,
    keys: RangeInclusive<StateKeyNum>,
) -> Result<usize, TreeError<N::Error>> {
    match Link::to_root(root) {
        Some(link) => len_below(nodes, link, &keys),
        None => Ok(0),
    }
}

fn len_below<N: Nodes + ?Sized>(
    nodes: &N,
    link: Link,
    keys: &RangeInclusive<StateKeyNum>,
) -> Result<usize, TreeError<N::Error>> {
    let within = |slot: Slot| *keys.start() <= slot.first() && slot.last() <= *keys.end();
    if !link.slot.meets(keys) {
        return Ok(0);
    }
    if let Some(len) = link.len.filter(|_| within(link.slot)) {
        return Ok(len as usize);
    }
    let node = link.load(nodes)?;
    match &*node {
        _ if within(node.slot()) => Ok(node.len() as usize),
        Node::Leaf(leaf) => {
            let inside = |entry: &&Entry| keys.contains(&entry.0);
            Ok(leaf.entries().iter().filter(inside).count())
        }
        Node::Branch(branch) => branch
            .links()
            .map(|child| len_below(nodes, child, keys))
            .sum(),
    }
}

/// Adds to `seen` the name of every node that can be reached from `roots`. What is in `seen` already is taken to
/// have been walked with all that lies below it, so a second call with the same set walks only what is new.
/// Leaves are not read. After an error `seen` must not be used.
pub fn reachable<N: Nodes + ?Sized>(
    nodes: &N,
    roots: &[Root],
    seen: &mut HashSet<NodeHash>,
) -> Result<(), TreeError<N::Error>> {
    let mut ahead: Vec<Link> = roots.iter().copied().filter_map(Link::to_root).collect();
    while let Some(link) = ahead.pop() {
        let is_leaf = link.len.is_some_and(|len| len as usize <= BUCKET);
        if !seen.insert(link.hash) || is_leaf {
            continue;
        }
        if let Node::Branch(branch) = &*link.load(nodes)? {
            ahead.extend(branch.links());
        }
    }
    Ok(())
}
