//! What is known of other servers.

use myelin_types::Millis;

use crate::{postcard_value, table};

table! {
    /// The signing keys that other servers published, by server name: the newest answer of each.
    ///
    /// Floor: a row is a few hundred bytes and bounded by the limits on what is accepted. Rows that were not refreshed for
    /// 90 days are deleted by the key ring's janitor.
    ServerKeys = "server_keys", Point, String => PublishedKeys
}

/// The keys of one server, as it published and signed them itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PublishedKeys {
    /// When they were fetched.
    pub fetched: Millis,
    /// Until when the current keys count, at most seven days after `fetched`.
    pub valid_until: Millis,
    /// The current keys by key identifier.
    pub current: Vec<(String, [u8; 32])>,
    /// Earlier keys by key identifier, each with the time from which it no longer signs.
    pub old: Vec<(String, [u8; 32], Millis)>,
}
postcard_value!(PublishedKeys, 1);
