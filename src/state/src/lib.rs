//! Room state as persistent trees: maps from [`StateKeyNum`](myelin_types::StateKeyNum) to
//! [`EventNum`](myelin_types::EventNum) that share what they have in common.
//!
//! Is: the trees' shape, encoding, reading, changing and comparing, pure over the [`Nodes`] trait.
//! Is not: a store. It knows no table, no event and no async, and never writes: [`update`] returns what is to be
//! written.
//!
//! # Shape
//!
//! A key is read as eight hexadecimal digits, the most significant first. A set of entries has exactly one tree:
//!
//! - no entries: no node, [`Root::EMPTY`];
//! - up to [`BUCKET`] entries: one leaf that holds them;
//! - more: a branch at the first digit in which the keys differ, with a child for each value of this digit that occurs;
//!   each child is the tree of its share of the entries.
//!
//! A node depends on the entries below it and on nothing else, neither on the order in which they came nor on what was
//! there before. So equal states have equal roots, and two states share the node of every subtree in which they agree.
//! The test `equal_content_has_one_root_whatever_its_history` holds the code to it, and the decoder refuses every
//! encoding but the one that [`Node::encode`] gives.
//!
//! A path from the root has at most eight branches and a leaf. Nodes are checked against what their parents say of
//! them, so this holds for damaged stores as well. `m.room.member` keys have the top bit set and therefore are the
//! upper half of each tree: the members are one [`range`].
//!
//! What the events of a state rest on, their auth chains, is kept by node as well: [`full_auth_chain`].
//!
//! Why sixteen bytes of hash are enough, and how [`BUCKET`] was chosen: `docs/decisions/0002-state-trees.md`.
//!
//! # Use
//!
//! One [`NodeCache`] for the server, one [`CachedNodes`] for each view of the store, and an [`Overlay`] on top where
//! several updates go into one batch.

mod cache;
mod chains;
mod diff;
mod hash;
mod node;
mod nodes;
mod read;
mod slot;
mod update;

pub use cache::{CachedNodes, NodeCache};
pub use chains::{AuthEvents, Chain, ChainCache, auth_difference, full_auth_chain};
pub use diff::{Change, diff};
pub use hash::{NodeHash, Root};
pub use node::{BUCKET, Branch, CorruptNode, Entry, Leaf, Node, VERSION};
pub use nodes::{NoNodes, Nodes, Overlay, TreeError};
pub use read::{Iter, get, get_many, iter, len, len_of_range, range, reachable};
pub use update::{Updated, update};
