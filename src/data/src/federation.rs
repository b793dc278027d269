//! What is known of other servers.

use myelin_store::{CodecError, Parser, Value, Writer};
use myelin_types::{Millis, Pos};

use crate::{postcard_value, table};

table! {
    /// The signing keys that other servers published, by server name: the newest answer of each.
    ///
    /// Floor: a row is a few hundred bytes and bounded by the limits on what is accepted. Rows that were not refreshed for
    /// 90 days are deleted by the key ring's janitor.
    ServerKeys = "server_keys", Point, String => PublishedKeys
}

table! {
    /// Other servers that have not been sent everything that concerns them and lag behind the log's reader, or do not
    /// answer, by name. Of all others the reader's cursor says how far they are.
    ///
    /// Floor: a row goes when its server has been sent everything; there is one a server at most.
    Destinations = "destinations", Churn, String => Destination
}

/// A server that lags behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Destination {
    /// Everything up to here has been sent to it.
    pub cursor: Pos,
    /// How many transactions have failed since the last one that did not.
    pub failures: u32,
    /// When the next one is to be tried.
    pub next_attempt: Millis,
}

impl Value for Destination {
    const VERSION: u8 = 1;

    fn encode(&self, writer: &mut Writer) {
        writer.pos(self.cursor);
        writer.postcard(&(self.failures, self.next_attempt));
    }

    fn decode(version: u8, parser: &mut Parser<'_>) -> Result<Self, CodecError> {
        match version {
            1 => {
                let cursor = parser.pos()?;
                let (failures, next_attempt) = parser.postcard()?;
                Ok(Destination {
                    cursor,
                    failures,
                    next_attempt,
                })
            }
            other => Err(CodecError::UnknownVersion(other)),
        }
    }
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
