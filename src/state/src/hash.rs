//! The names of nodes and of whole states.

use std::fmt;

use ring::digest;
use serde::{Deserialize, Serialize};

/// The name of a node: the first 16 bytes of the SHA-256 of its encoding.
///
/// The order is the order of the bytes and means nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeHash(pub [u8; Self::LEN]);

impl NodeHash {
    /// The length in bytes.
    pub const LEN: usize = 16;

    /// The name of the node with this encoding.
    pub fn of(encoding: &[u8]) -> Self {
        let digest = digest::digest(&digest::SHA256, encoding);
        let mut hash = [0; Self::LEN];
        hash.copy_from_slice(&digest.as_ref()[..Self::LEN]);
        Self(hash)
    }
}

impl fmt::Debug for NodeHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for NodeHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A whole state: the name of its topmost node. Equal states have equal roots, and different states different ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Root(pub NodeHash);

impl Root {
    /// The state with nothing in it, which has no node: sixteen zero bytes.
    pub const EMPTY: Root = Root(NodeHash([0; NodeHash::LEN]));

    /// Whether this is the state with nothing in it.
    pub fn is_empty(self) -> bool {
        self == Self::EMPTY
    }

    /// The root as bytes, to be stored.
    pub const fn to_bytes(self) -> [u8; NodeHash::LEN] {
        self.0.0
    }

    /// The root that [`Root::to_bytes`] gave these bytes for.
    pub const fn from_bytes(bytes: [u8; NodeHash::LEN]) -> Self {
        Self(NodeHash(bytes))
    }
}

impl Default for Root {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl fmt::Display for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
