//! What end-to-end encryption needs of other servers: keys of their users, and their device lists.

mod claim;
mod lists;
mod query;

use std::collections::BTreeMap;

use myelin_e2ee::{ClaimedKey, UserKeys};
use ruma::OwnedServerName;

pub(crate) use lists::Lists;

/// Keys of users, as far as they could be had.
#[derive(Clone, Debug, Default)]
pub struct KeysAnswer {
    /// The keys.
    pub keys: UserKeys,
    /// The servers that could not be asked, and why.
    pub failures: BTreeMap<OwnedServerName, String>,
}

/// One-time keys, as far as they could be had.
#[derive(Clone, Debug, Default)]
pub struct ClaimAnswer {
    /// The keys.
    pub keys: Vec<ClaimedKey>,
    /// The servers that could not be asked, and why.
    pub failures: BTreeMap<OwnedServerName, String>,
}

/// Why nothing was had of a server that gave no answer in time.
const TOO_SLOW: &str = "the server took too long";
/// The longest reason that clients are given, in bytes.
const MOST_FAILURE: usize = 200;
