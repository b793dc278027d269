//! One node: its two kinds, and their encoding.
//!
//! ```text
//! leaf:    version  0xff   varint(first key)  varint(base)  { varint(event - base)  varint(key gap - 1) }*  varint(event - base)
//! branch:  version  depth  varint(prefix)  u16(which children)  { varint(entries below)  16 bytes of hash }*
//! ```
//!
//! `base` is the smallest event of the leaf. Varints are LEB128: seven bits a byte, the lowest first, as short as
//! possible. Every node has exactly one encoding and the decoder refuses all others, since the hash stands for the
//! content only then.

use std::{mem, sync::Arc};

use myelin_types::{EventNum, StateKeyNum};
use thiserror::Error;

use crate::{
    NodeHash,
    nodes::TreeError,
    slot::{DIGITS, FANOUT, Link, Slot},
};

/// The greatest number of entries of a leaf. A subtree is a leaf exactly if it has no more than this, so another
/// number means another [`VERSION`].
pub const BUCKET: usize = 48;

/// The version of the encoding, the first byte of each node.
pub const VERSION: u8 = 1;

/// Stands in the place of a branch's depth.
const LEAF: u8 = 0xff;

/// One entry of a state: which event stands under which key.
pub type Entry = (StateKeyNum, EventNum);

/// A decoded node. Which node a set of entries has, follows from the set alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// 1 to [`BUCKET`] entries.
    Leaf(Leaf),
    /// More entries, shared out to children.
    Branch(Branch),
}

/// 1 to [`BUCKET`] entries, by ascending key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    entries: Box<[Entry]>,
}

/// Two to sixteen children, one for each digit with which keys go on after the digits they have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Branch {
    slot: Slot,
    present: u16,
    len: u32,
    children: Box<[Child]>,
}

/// A branch's child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Child {
    pub(crate) hash: NodeHash,
    /// Entries below.
    pub(crate) len: u32,
}

/// Why bytes are no node.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum CorruptNode {
    /// Written by a later release, or not a node at all.
    #[error("unknown version {0}")]
    Version(u8),
    /// The bytes end too early.
    #[error("cut short")]
    Short,
    /// Bytes follow after the end of the node.
    #[error("bytes after the end")]
    Long,
    /// A number is too great, or longer than it need be.
    #[error("bad number")]
    Number,
    /// Too few or too many entries or children for this kind of node, or not in the one form allowed.
    #[error("not of the one shape for its content")]
    Shape,
    /// The node is well formed, but its parent says that something else is here.
    #[error("not what its parent announces")]
    Misplaced,
}

impl Node {
    /// The answer of a [`Nodes`](crate::Nodes) whose store returned these bytes for `hash`, or nothing.
    pub fn found<E: std::error::Error>(
        hash: NodeHash,
        bytes: Option<&[u8]>,
    ) -> Result<Arc<Self>, TreeError<E>> {
        let bytes = bytes.ok_or(TreeError::Missing { hash })?;
        match Self::decode(bytes) {
            Ok(node) => Ok(Arc::new(node)),
            Err(source) => Err(TreeError::Corrupt { hash, source }),
        }
    }

    /// The node with this encoding.
    pub fn decode(bytes: &[u8]) -> Result<Self, CorruptNode> {
        let mut reader = Reader(bytes);
        let version = reader.byte()?;
        if version != VERSION {
            return Err(CorruptNode::Version(version));
        }
        let node = match reader.byte()? {
            LEAF => Leaf::decode(&mut reader).map(Self::Leaf)?,
            depth => Branch::decode(u32::from(depth), &mut reader).map(Self::Branch)?,
        };
        if reader.0.is_empty() {
            Ok(node)
        } else {
            Err(CorruptNode::Long)
        }
    }

    /// The node's one encoding.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Leaf(leaf) => leaf.encode(),
            Self::Branch(branch) => branch.encode(),
        }
    }

    /// How many entries are here and below.
    pub fn len(&self) -> u32 {
        match self {
            Self::Leaf(leaf) => leaf.entries.len() as u32,
            Self::Branch(branch) => branch.len,
        }
    }

    /// Never: the empty state has no node.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of memory that the decoded node takes.
    pub fn memory(&self) -> usize {
        mem::size_of::<Self>()
            + match self {
                Self::Leaf(leaf) => mem::size_of_val(&*leaf.entries),
                Self::Branch(branch) => mem::size_of_val(&*branch.children),
            }
    }

    /// The narrowest slot in which all the keys lie.
    pub(crate) fn slot(&self) -> Slot {
        match self {
            Self::Leaf(leaf) => leaf.slot(),
            Self::Branch(branch) => branch.slot,
        }
    }
}

impl Leaf {
    /// The leaf with these entries: 1 to [`BUCKET`], by strictly ascending key.
    pub(crate) fn new(entries: Vec<Entry>) -> Self {
        debug_assert!((1..=BUCKET).contains(&entries.len()));
        debug_assert!(entries.is_sorted_by(|left, right| left.0 < right.0));
        Self {
            entries: entries.into_boxed_slice(),
        }
    }

    /// The entries, by ascending key.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// What stands under `key`.
    pub(crate) fn get(&self, key: StateKeyNum) -> Option<EventNum> {
        let at = self.entries.binary_search_by_key(&key, |entry| entry.0);
        at.ok().map(|at| self.entries[at].1)
    }

    fn slot(&self) -> Slot {
        Slot::spanning(self.entries[0].0, self.entries[self.entries.len() - 1].0)
    }

    fn encode(&self) -> Vec<u8> {
        let base = self.entries.iter().map(|entry| entry.1.0).min();
        let base = base.unwrap_or(0);
        let mut out = Vec::with_capacity(12 + self.entries.len() * 5);
        out.extend([VERSION, LEAF]);
        let mut before = None;
        for (key, event) in &self.entries {
            match before {
                None => {
                    put_varint(&mut out, u64::from(key.0));
                    put_varint(&mut out, base);
                }
                Some(before) => put_varint(&mut out, u64::from(key.0 - before - 1)),
            }
            put_varint(&mut out, event.0 - base);
            before = Some(key.0);
        }
        out
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, CorruptNode> {
        let mut key = reader.number()?;
        let base = reader.varint()?;
        let mut entries = Vec::with_capacity(BUCKET);
        let mut base_used = false;
        loop {
            let above = reader.varint()?;
            base_used |= above == 0;
            let event = base.checked_add(above).ok_or(CorruptNode::Number)?;
            entries.push((StateKeyNum(key), EventNum(event)));
            if reader.0.is_empty() {
                break;
            }
            if entries.len() == BUCKET {
                return Err(CorruptNode::Shape);
            }
            let gap = reader.number()?.checked_add(1);
            key = gap
                .and_then(|gap| key.checked_add(gap))
                .ok_or(CorruptNode::Number)?;
        }
        if base_used {
            entries.shrink_to_fit();
            Ok(Self {
                entries: entries.into_boxed_slice(),
            })
        } else {
            Err(CorruptNode::Shape)
        }
    }
}

impl Branch {
    /// The branch over these children, given with their digits in ascending order: two or more, and more than
    /// [`BUCKET`] entries in all.
    pub(crate) fn new(slot: Slot, digits: &[(usize, Child)]) -> Self {
        debug_assert!(digits.len() > 1);
        debug_assert!(digits.is_sorted_by(|left, right| left.0 < right.0));
        Self {
            slot,
            present: digits.iter().fold(0, |bits, (digit, _)| bits | 1 << digit),
            len: digits.iter().map(|(_, child)| child.len).sum(),
            children: digits.iter().map(|(_, child)| *child).collect(),
        }
    }

    /// The digits that all keys here have in common.
    pub(crate) fn slot(&self) -> Slot {
        self.slot
    }

    /// How many entries are below.
    pub(crate) fn len(&self) -> u32 {
        self.len
    }

    /// The names of the children, by ascending key.
    pub fn child_hashes(&self) -> impl Iterator<Item = NodeHash> + '_ {
        self.children.iter().map(|child| child.hash)
    }

    /// The child for the keys that go on with `digit`.
    pub(crate) fn child(&self, digit: usize) -> Option<Link> {
        let bit = 1 << digit;
        if self.present & bit == 0 {
            return None;
        }
        let child = self.children[(self.present & (bit - 1)).count_ones() as usize];
        Some(Link {
            hash: child.hash,
            slot: self.slot.child(digit),
            len: Some(child.len),
        })
    }

    /// All children, by ascending digit.
    pub(crate) fn links(&self) -> impl DoubleEndedIterator<Item = Link> + '_ {
        (0..FANOUT).filter_map(|digit| self.child(digit))
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(9 + self.children.len() * (NodeHash::LEN + 3));
        out.extend([VERSION, self.slot.depth() as u8]);
        put_varint(&mut out, u64::from(self.slot.prefix()));
        out.extend(self.present.to_be_bytes());
        for child in &self.children {
            put_varint(&mut out, u64::from(child.len));
            out.extend(child.hash.0);
        }
        out
    }

    fn decode(depth: u32, reader: &mut Reader<'_>) -> Result<Self, CorruptNode> {
        let prefix = reader.number()?;
        let slot = Slot::new(depth, prefix).filter(|slot| slot.depth() < DIGITS);
        let slot = slot.ok_or(CorruptNode::Shape)?;
        let present = u16::from_be_bytes(reader.array()?);
        let mut len = 0_u32;
        let mut children = Vec::with_capacity(present.count_ones() as usize);
        for _ in 0..present.count_ones() {
            let child = Child {
                len: reader.number()?,
                hash: NodeHash(reader.array()?),
            };
            len = len.checked_add(child.len).ok_or(CorruptNode::Number)?;
            if child.len == 0 {
                return Err(CorruptNode::Shape);
            }
            children.push(child);
        }
        if children.len() < 2 || len as usize <= BUCKET {
            return Err(CorruptNode::Shape);
        }
        Ok(Self {
            slot,
            present,
            len,
            children: children.into_boxed_slice(),
        })
    }
}

fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn byte(&mut self) -> Result<u8, CorruptNode> {
        self.array().map(u8::from_be_bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], CorruptNode> {
        let (head, rest) = self.0.split_first_chunk().ok_or(CorruptNode::Short)?;
        self.0 = rest;
        Ok(*head)
    }

    fn number(&mut self) -> Result<u32, CorruptNode> {
        u32::try_from(self.varint()?).map_err(|_| CorruptNode::Number)
    }

    fn varint(&mut self) -> Result<u64, CorruptNode> {
        let mut number = 0_u64;
        for shift in (0..u64::BITS).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            let overflows = bits << shift >> shift != bits;
            let padded = byte == 0 && shift > 0;
            if overflows || padded {
                return Err(CorruptNode::Number);
            }
            number |= bits << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(CorruptNode::Number)
    }
}
