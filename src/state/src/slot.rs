//! Where in the key space a node lies: arithmetic on the digits of a key.
//!
//! A key is read as 8 hexadecimal digits, the most significant first.

use std::{ops::RangeInclusive, sync::Arc};

use myelin_types::StateKeyNum;

use crate::{
    NodeHash, Root,
    node::{CorruptNode, Node},
    nodes::{Nodes, TreeError},
};

/// Bits of a key that one level of branching consumes.
pub(crate) const DIGIT_BITS: u32 = 4;

/// The greatest number of children of a branch.
pub(crate) const FANOUT: usize = 1 << DIGIT_BITS;

/// Digits of a key: a branch lies at a depth below this.
pub(crate) const DIGITS: u32 = u32::BITS / DIGIT_BITS;

/// The keys that begin with the given digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    /// How many digits the keys have in common, at most [`DIGITS`].
    depth: u32,
    /// These digits as a number, below `FANOUT ^ depth`.
    prefix: u32,
}

impl Slot {
    /// All keys.
    pub(crate) const ALL: Slot = Slot {
        depth: 0,
        prefix: 0,
    };

    /// The first `depth` digits of `key`.
    pub(crate) fn of(key: StateKeyNum, depth: u32) -> Self {
        let prefix = key.0.checked_shr(u32::BITS - depth * DIGIT_BITS);
        Self {
            depth,
            prefix: prefix.unwrap_or(0),
        }
    }

    /// The slot with these digits, if there is one.
    pub(crate) fn new(depth: u32, prefix: u32) -> Option<Self> {
        let fits = depth <= DIGITS && u64::from(prefix) < 1 << (depth * DIGIT_BITS);
        fits.then_some(Self { depth, prefix })
    }

    /// The narrowest slot that both keys lie in.
    pub(crate) fn spanning(first: StateKeyNum, last: StateKeyNum) -> Self {
        Self::of(first, (first.0 ^ last.0).leading_zeros() / DIGIT_BITS)
    }

    /// The part of this slot in which the next digit is `digit`. The slot must not be a single key.
    pub(crate) fn child(self, digit: usize) -> Self {
        Self {
            depth: self.depth + 1,
            prefix: self.prefix << DIGIT_BITS | digit as u32,
        }
    }

    /// The digit of `key` which follows those that this slot fixes. The slot must not be a single key.
    pub(crate) fn digit(self, key: StateKeyNum) -> usize {
        (key.0 >> (u32::BITS - (self.depth + 1) * DIGIT_BITS)) as usize % FANOUT
    }

    pub(crate) fn depth(self) -> u32 {
        self.depth
    }

    pub(crate) fn prefix(self) -> u32 {
        self.prefix
    }

    /// The smallest key here.
    pub(crate) fn first(self) -> StateKeyNum {
        let free = u32::BITS - self.depth * DIGIT_BITS;
        StateKeyNum(self.prefix.checked_shl(free).unwrap_or(0))
    }

    /// The greatest key here.
    pub(crate) fn last(self) -> StateKeyNum {
        let free = u32::MAX.checked_shr(self.depth * DIGIT_BITS);
        StateKeyNum(self.first().0 | free.unwrap_or(0))
    }

    /// Whether all of `other` lies here.
    pub(crate) fn covers(self, other: Slot) -> bool {
        self.depth <= other.depth && self == Self::of(other.first(), self.depth)
    }

    /// Whether `key` lies here.
    pub(crate) fn holds(self, key: StateKeyNum) -> bool {
        self == Self::of(key, self.depth)
    }

    /// Whether any of `keys` lies here.
    pub(crate) fn meets(self, keys: &RangeInclusive<StateKeyNum>) -> bool {
        !keys.is_empty() && *keys.start() <= self.last() && self.first() <= *keys.end()
    }

    /// Divides `items`, sorted by key, into those before, in and after this slot.
    pub(crate) fn split<T>(
        self,
        items: &[T],
        key: impl Fn(&T) -> StateKeyNum,
    ) -> (&[T], &[T], &[T]) {
        let start = items.partition_point(|item| key(item) < self.first());
        let (before, rest) = items.split_at(start);
        let end = rest.partition_point(|item| key(item) <= self.last());
        let (inside, after) = rest.split_at(end);
        (before, inside, after)
    }
}

/// A node not yet read, with what its parent says about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) hash: NodeHash,
    pub(crate) slot: Slot,
    /// Entries below, where a parent knows it.
    pub(crate) len: Option<u32>,
}

impl Link {
    /// The topmost node of a state, unless the state is empty.
    pub(crate) fn to_root(root: Root) -> Option<Self> {
        (!root.is_empty()).then_some(Self {
            hash: root.0,
            slot: Slot::ALL,
            len: None,
        })
    }

    /// Reads the node and checks it against what the parent says; this is what bounds every descent to nine nodes,
    /// whatever the store returns.
    pub(crate) fn load<N: Nodes + ?Sized>(
        self,
        nodes: &N,
    ) -> Result<Arc<Node>, TreeError<N::Error>> {
        let node = nodes.node(self.hash)?;
        let in_place =
            self.slot.covers(node.slot()) && self.len.is_none_or(|len| len == node.len());
        if in_place {
            Ok(node)
        } else {
            Err(TreeError::Corrupt {
                hash: self.hash,
                source: CorruptNode::Misplaced,
            })
        }
    }
}
