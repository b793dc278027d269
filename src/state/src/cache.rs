//! Decoded nodes kept in memory. A node never changes under its name, so nothing here is ever invalidated.

use std::{fmt, sync::Arc};

use quick_cache::{Weighter, sync::Cache};

use crate::{
    NodeHash,
    node::Node,
    nodes::{Nodes, TreeError},
};

/// What the cache is presumed to hold per node when it sizes its own tables.
const TYPICAL_NODE: usize = 512;

/// A cache of decoded nodes, bounded by the memory that they take. Shared by all who read trees.
pub struct NodeCache(Cache<NodeHash, Arc<Node>, ByMemory>);

#[derive(Clone)]
struct ByMemory;

impl Weighter<NodeHash, Arc<Node>> for ByMemory {
    fn weight(&self, _: &NodeHash, node: &Arc<Node>) -> u64 {
        (node.memory() + NodeHash::LEN) as u64
    }
}

impl NodeCache {
    /// A cache that takes at most about `capacity` bytes.
    pub fn new(capacity: usize) -> Self {
        let items = (capacity / TYPICAL_NODE).max(16);
        Self(Cache::with_weighter(items, capacity as u64, ByMemory))
    }

    /// The node, if it is cached.
    pub fn get(&self, hash: NodeHash) -> Option<Arc<Node>> {
        self.0.get(&hash)
    }

    /// Caches a node, perhaps in the place of others.
    pub fn insert(&self, hash: NodeHash, node: Arc<Node>) {
        self.0.insert(hash, node);
    }

    /// The bytes that the cached nodes take.
    pub fn used(&self) -> usize {
        self.0.weight() as usize
    }
}

impl fmt::Debug for NodeCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeCache")
            .field("nodes", &self.0.len())
            .field("bytes", &self.0.weight())
            .finish()
    }
}

/// A store of nodes behind a [`NodeCache`]. Cheap to make: one for each view of the store.
#[derive(Clone, Copy, Debug)]
pub struct CachedNodes<'a, N> {
    cache: &'a NodeCache,
    nodes: N,
}

impl<'a, N: Nodes> CachedNodes<'a, N> {
    /// Reads from `cache`, and what is not there from `nodes`.
    pub fn new(cache: &'a NodeCache, nodes: N) -> Self {
        Self { cache, nodes }
    }
}

impl<N: Nodes> Nodes for CachedNodes<'_, N> {
    type Error = N::Error;

    // Two readers may fetch one node at the same time. Making the second wait for the first would make it wait for
    // the first one's disk.
    fn node(&self, hash: NodeHash) -> Result<Arc<Node>, TreeError<Self::Error>> {
        if let Some(node) = self.cache.get(hash) {
            return Ok(node);
        }
        let node = self.nodes.node(hash)?;
        self.cache.insert(hash, Arc::clone(&node));
        Ok(node)
    }
}
