//! Auth chains as sets: what the events of a state rest on.
//!
//! The full auth chain of a state is the union of the auth chains of its events (specification, "State resolution" of
//! room version 2, "Auth difference"), and has these events themselves in it: the specification can be read otherwise, but
//! the other servers take it so, and a room falls apart between servers that do not
//! (`docs/decisions/0022-auth-difference.md`). It is kept by tree node: a node's share depends on the entries below it alone, so a
//! state that differs from another in a few entries shares all but a few unions with it. Comparing the chains of states
//! of 100,000 members therefore costs what differs between them, and some unions of compressed bitmaps.
//!
//! Sets hold event numbers. These are handed out in the order of arrival and never twice, so nothing that was computed for
//! a batch which failed can come to stand for anything else, and nothing here is ever invalidated. Why there are no
//! numbers of a room's own for this: `docs/decisions/0015-auth-chains.md`.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::Arc,
};

use myelin_types::EventNum;
use quick_cache::{Weighter, sync::Cache};
use roaring::RoaringTreemap;

use crate::{
    NodeHash, Root,
    node::Node,
    nodes::{Nodes, TreeError},
    slot::Link,
};

/// A set of event numbers.
pub type Chain = RoaringTreemap;

/// What the cache is presumed to hold per set when it sizes its own tables.
const TYPICAL_CHAIN: usize = 1024;
/// What a set takes besides its serialised form: its allocations and the cache's own row.
const CHAIN_OVERHEAD: usize = 192;

/// Which events authorise an event.
pub trait AuthEvents {
    /// Why they cannot be read.
    type Error;

    /// The auth events of each of `events`, in their order. Those that are not known are left out.
    fn auth_events(&self, events: &[EventNum]) -> Result<Vec<Vec<EventNum>>, Self::Error>;
}

/// What a remembered set belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Of {
    /// The auth chain of an event, itself included.
    Event(EventNum),
    /// The union of the auth chains of all entries below a node, the entries included.
    Node(NodeHash),
}

#[derive(Clone)]
struct ByMemory;

impl Weighter<Of, Arc<Chain>> for ByMemory {
    fn weight(&self, _: &Of, chain: &Arc<Chain>) -> u64 {
        (chain.serialized_size() + CHAIN_OVERHEAD) as u64
    }
}

/// Sets that were computed, bounded by the memory that they take; whatever falls out is computed anew. Shared by all.
pub struct ChainCache(Cache<Of, Arc<Chain>, ByMemory>);

impl ChainCache {
    /// A cache that takes at most about `capacity` bytes.
    pub fn new(capacity: usize) -> Self {
        let items = (capacity / TYPICAL_CHAIN).max(16);
        Self(Cache::with_weighter(items, capacity as u64, ByMemory))
    }

    /// The bytes that the cached sets take.
    pub fn used(&self) -> usize {
        self.0.weight() as usize
    }
}

impl fmt::Debug for ChainCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChainCache")
            .field("sets", &self.0.len())
            .field("bytes", &self.0.weight())
            .finish()
    }
}

/// The full auth chain of a state, with its entries.
pub fn full_auth_chain<N, A>(
    nodes: &N,
    auth: &A,
    cache: &ChainCache,
    root: Root,
) -> Result<Arc<Chain>, TreeError<N::Error>>
where
    N: Nodes + ?Sized,
    A: AuthEvents<Error = N::Error> + ?Sized,
{
    match Link::to_root(root) {
        Some(link) => below(nodes, auth, cache, link),
        None => Ok(Arc::default()),
    }
}

/// What is in the full auth chains of some of the states and not of all.
pub fn auth_difference<N, A>(
    nodes: &N,
    auth: &A,
    cache: &ChainCache,
    states: &[Root],
) -> Result<Chain, TreeError<N::Error>>
where
    N: Nodes + ?Sized,
    A: AuthEvents<Error = N::Error> + ?Sized,
{
    let mut some = Chain::new();
    let mut all: Option<Chain> = None;
    for state in states {
        let chain = full_auth_chain(nodes, auth, cache, *state)?;
        some |= &*chain;
        match &mut all {
            Some(all) => *all &= &*chain,
            None => all = Some(Chain::clone(&chain)),
        }
    }
    if let Some(all) = all {
        some -= all;
    }
    Ok(some)
}

fn below<N, A>(
    nodes: &N,
    auth: &A,
    cache: &ChainCache,
    link: Link,
) -> Result<Arc<Chain>, TreeError<N::Error>>
where
    N: Nodes + ?Sized,
    A: AuthEvents<Error = N::Error> + ?Sized,
{
    if let Some(chain) = cache.0.get(&Of::Node(link.hash)) {
        return Ok(chain);
    }
    let mut union = Chain::new();
    match &*link.load(nodes)? {
        Node::Leaf(leaf) => {
            let events: Vec<EventNum> = leaf.entries().iter().map(|(_, event)| *event).collect();
            union.extend(events.iter().map(|event| event.0));
            // Not each entry's own set, which nobody asks for again: nearly all of them are members on whom nothing rests.
            let named = auth.auth_events(&events).map_err(TreeError::Store)?;
            let mut cited: Vec<EventNum> = named.into_iter().flatten().collect();
            cited.sort_unstable();
            cited.dedup();
            for chain in with_themselves(auth, cache, &cited).map_err(TreeError::Store)? {
                union |= &*chain;
            }
        }
        Node::Branch(branch) => {
            for child in branch.links() {
                union |= &*below(nodes, auth, cache, child)?;
            }
        }
    }
    let union = Arc::new(union);
    cache.0.insert(Of::Node(link.hash), Arc::clone(&union));
    Ok(union)
}

/// The auth chains of events, each with the event itself in it. Reads level by level, whatever is not cached.
fn with_themselves<A: AuthEvents + ?Sized>(
    auth: &A,
    cache: &ChainCache,
    events: &[EventNum],
) -> Result<Vec<Arc<Chain>>, A::Error> {
    let mut done: HashMap<EventNum, Arc<Chain>> = HashMap::new();
    let mut named: HashMap<EventNum, Vec<EventNum>> = HashMap::new();
    let mut level: Vec<EventNum> = events.to_vec();
    while !level.is_empty() {
        level.retain(|event| {
            if let Some(chain) = cache.0.get(&Of::Event(*event)) {
                done.insert(*event, chain);
                return false;
            }
            true
        });
        let answers = auth.auth_events(&level)?;
        let mut next: HashSet<EventNum> = answers.iter().flatten().copied().collect();
        named.extend(level.drain(..).zip(answers));
        next.retain(|event| !named.contains_key(event) && !done.contains_key(event));
        level.extend(next);
    }
    for event in events {
        accumulate(*event, &named, &mut done, cache);
    }
    Ok(events
        .iter()
        .filter_map(|event| done.get(event).cloned())
        .collect())
}

/// Computes the set of `event` and of everything that it rests on, the latter first.
fn accumulate(
    event: EventNum,
    named: &HashMap<EventNum, Vec<EventNum>>,
    done: &mut HashMap<EventNum, Arc<Chain>>,
    cache: &ChainCache,
) {
    // Events name others by their hashes, so that there are no circles; in rooms of version 1 and 2, where servers choose
    // the ids, an event is still only taken after those that it names. Were there one, it would be cut where it closes.
    let mut begun: HashSet<EventNum> = HashSet::new();
    let mut stack = vec![event];
    while let Some(&top) = stack.last() {
        if done.contains_key(&top) {
            stack.pop();
            continue;
        }
        let cited = named.get(&top).map(Vec::as_slice).unwrap_or_default();
        if begun.insert(top) {
            let open = cited
                .iter()
                .filter(|cited| !done.contains_key(cited) && !begun.contains(cited));
            stack.extend(open);
            continue;
        }
        let mut chain = Chain::new();
        chain.insert(top.0);
        for cited in cited {
            if let Some(below) = done.get(cited) {
                chain |= &**below;
            }
        }
        let chain = Arc::new(chain);
        cache.0.insert(Of::Event(top), Arc::clone(&chain));
        done.insert(top, chain);
        stack.pop();
    }
}
