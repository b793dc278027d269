//! What is known of other servers.

use myelin_store::{CodecError, Parser, Value, Writer};
use myelin_types::{Millis, Pos};

use crate::{postcard_value, table};

table! {
    /// The signing keys that other servers published, by server name: what their answers of all times come to.
    ///
    /// Floor: a row is a few hundred bytes and bounded by the limits on what is accepted. Rows that were not refreshed for
    /// a year are deleted by the key ring's janitor.
    ServerKeys = "server_keys", Point, String => PublishedKeys
}

table! {
    /// The documents that [`ServerKeys`] come from, as their servers signed them, by server name: what this server vouches
    /// for as a notary.
    ///
    /// Floor: four documents a server, each bounded by the limit on an answer. A row goes with that of [`ServerKeys`].
    KeyDocuments = "key_documents", Point, String => SignedDocuments
}

table! {
    /// The keys that this server signed with before, by key identifier.
    ///
    /// Floor: one row each time that the operator replaces the key. Rows stay: events that these keys signed are verified
    /// as long as there are servers.
    OwnOldKeys = "own_old_keys", Point, String => OwnOldKey
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
    /// Keys of earlier documents that the newest does not speak of, each with the time until which its document counted.
    pub past: Vec<(String, [u8; 32], Millis)>,
    /// `valid_until_ts` of the newest document, however far ahead: tells it from older ones.
    pub promised: Millis,
}

mod v1 {
    use myelin_types::Millis;

    /// Only the newest document's keys.
    #[derive(serde::Deserialize)]
    pub(super) struct PublishedKeys {
        pub(super) fetched: Millis,
        pub(super) valid_until: Millis,
        pub(super) current: Vec<(String, [u8; 32])>,
        pub(super) old: Vec<(String, [u8; 32], Millis)>,
    }
}

impl Value for PublishedKeys {
    const VERSION: u8 = 2;

    fn encode(&self, writer: &mut Writer) {
        writer.postcard(self);
    }

    fn decode(version: u8, parser: &mut Parser<'_>) -> Result<Self, CodecError> {
        match version {
            1 => {
                let before: v1::PublishedKeys = parser.postcard()?;
                Ok(Self {
                    fetched: before.fetched,
                    valid_until: before.valid_until,
                    current: before.current,
                    old: before.old,
                    past: Vec::new(),
                    promised: before.valid_until,
                })
            }
            2 => parser.postcard(),
            other => Err(CodecError::UnknownVersion(other)),
        }
    }
}

/// Signed documents of one server, canonical JSON, the newest first. An older one is kept for keys that no newer one has.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SignedDocuments {
    /// The documents.
    pub texts: Vec<String>,
}
postcard_value!(SignedDocuments, 1);

/// A key of this server's that was replaced: its public half.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct OwnOldKey {
    /// The public key.
    pub key: [u8; 32],
    /// Since when it no longer signs.
    pub expired: Millis,
}
postcard_value!(OwnOldKey, 1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_before_there_were_notaries_are_read() {
        let key = ("ed25519:1".to_owned(), [7; 32]);
        let old = ("ed25519:0".to_owned(), [6; 32], Millis(5));
        let mut writer = Writer::new();
        writer.postcard(&(Millis(1), Millis(2), vec![key.clone()], vec![old.clone()]));
        let bytes = writer.into_bytes();
        let read = PublishedKeys::decode(1, &mut Parser::new(&bytes)).expect("the old form");
        let expected = PublishedKeys {
            fetched: Millis(1),
            valid_until: Millis(2),
            current: vec![key],
            old: vec![old],
            past: Vec::new(),
            promised: Millis(2),
        };
        assert_eq!(read, expected);
    }
}
