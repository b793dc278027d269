//! Where nodes come from: the trait that the store implements, and a layer for nodes not yet written.

use std::{collections::HashMap, convert::Infallible, sync::Arc};

use thiserror::Error;

use crate::{
    NodeHash,
    node::{CorruptNode, Node},
    update::Updated,
};

/// A store of nodes.
pub trait Nodes {
    /// Why the store could not answer.
    type Error: std::error::Error + 'static;

    /// The node with this name. [`Node::found`] makes the answer from what a store returns.
    fn node(&self, hash: NodeHash) -> Result<Arc<Node>, TreeError<Self::Error>>;
}

impl<N: Nodes + ?Sized> Nodes for &N {
    type Error = N::Error;

    fn node(&self, hash: NodeHash) -> Result<Arc<Node>, TreeError<Self::Error>> {
        (**self).node(hash)
    }
}

/// Why a tree could not be read. `E` is the error of the store of nodes.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum TreeError<E: std::error::Error + 'static> {
    /// The store has no such node, although a root or another node names it.
    #[error("state node {hash} is missing")]
    Missing {
        /// The node's name.
        hash: NodeHash,
    },
    /// The store returned bytes which are no node, or a node that has no business where its parent names it.
    #[error("state node {hash} is corrupt")]
    Corrupt {
        /// The node's name.
        hash: NodeHash,
        /// What is wrong with it.
        source: CorruptNode,
    },
    /// The store could not answer.
    #[error("read a state node")]
    Store(#[source] E),
}

/// The store that has no nodes: the ground under an [`Overlay`] in tests and tools.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoNodes;

impl Nodes for NoNodes {
    type Error = Infallible;

    fn node(&self, hash: NodeHash) -> Result<Arc<Node>, TreeError<Infallible>> {
        Err(TreeError::Missing { hash })
    }
}

/// Nodes that are not written yet, over a store: for the events of one batch, each of which builds on the state before.
#[derive(Clone, Debug, Default)]
pub struct Overlay<N> {
    base: N,
    fresh: HashMap<NodeHash, Arc<Node>>,
}

impl<N: Nodes> Overlay<N> {
    /// A layer without nodes over `base`.
    pub fn new(base: N) -> Self {
        Self {
            base,
            fresh: HashMap::new(),
        }
    }

    /// Adds the new nodes of an update.
    pub fn add(&mut self, updated: &Updated) -> Result<(), TreeError<N::Error>> {
        for (hash, bytes) in &updated.new_nodes {
            self.fresh
                .insert(*hash, Node::found(*hash, Some(bytes.as_slice()))?);
        }
        Ok(())
    }

    /// How many nodes this layer itself holds.
    pub fn fresh_len(&self) -> usize {
        self.fresh.len()
    }
}

impl<N: Nodes> Nodes for Overlay<N> {
    type Error = N::Error;

    fn node(&self, hash: NodeHash) -> Result<Arc<Node>, TreeError<Self::Error>> {
        match self.fresh.get(&hash) {
            Some(node) => Ok(Arc::clone(node)),
            None => self.base.node(hash),
        }
    }
}
