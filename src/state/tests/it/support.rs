//! A tree in memory, and the entries that tests fill it with.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap},
    convert::Infallible,
    sync::Arc,
};

use myelin_state::{Entry, Node, NodeHash, Nodes, Root, TreeError, Updated, update};
use myelin_types::{EventNum, StateKeyNum};

/// Changes as [`update`] takes them.
pub(crate) type Edits = Vec<(StateKeyNum, Option<EventNum>)>;

/// A store of nodes that remembers which ones were read.
#[derive(Default)]
pub(crate) struct Memory {
    pub(crate) nodes: HashMap<NodeHash, Vec<u8>>,
    pub(crate) reads: RefCell<Vec<NodeHash>>,
}

impl Nodes for Memory {
    type Error = Infallible;

    fn node(&self, hash: NodeHash) -> Result<Arc<Node>, TreeError<Infallible>> {
        self.reads.borrow_mut().push(hash);
        Node::found(hash, self.nodes.get(&hash).map(Vec::as_slice))
    }
}

impl Memory {
    /// Updates `root` and stores the new nodes.
    pub(crate) fn apply(&mut self, root: Root, edits: &Edits) -> Updated {
        let updated = update(self, root, edits).expect("the memory has every node");
        self.nodes.extend(updated.new_nodes.iter().cloned());
        updated
    }

    /// The state with these entries.
    pub(crate) fn build(&mut self, entries: impl IntoIterator<Item = Entry>) -> Root {
        let edits = entries.into_iter().map(|(key, event)| (key, Some(event)));
        self.apply(Root::EMPTY, &edits.collect()).root
    }

    /// How many nodes `work` reads, and what it returns.
    pub(crate) fn count_reads<T>(&self, work: impl FnOnce(&Self) -> T) -> (usize, T) {
        self.reads.borrow_mut().clear();
        let outcome = work(self);
        (self.reads.borrow().len(), outcome)
    }
}

/// What `edits` do to `model`.
pub(crate) fn apply_to_model(model: &mut BTreeMap<StateKeyNum, EventNum>, edits: &Edits) {
    for (key, event) in edits {
        match event {
            Some(event) => model.insert(*key, *event),
            None => model.remove(key),
        };
    }
}

/// A small generator of numbers that look random (splitmix64).
pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// From 0 below 1.
    pub(crate) fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}
