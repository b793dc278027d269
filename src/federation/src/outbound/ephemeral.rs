//! What matters only now: typing, receipts, presence. Kept in memory for each destination; a newer one takes the place of
//! an older one that speaks of the same.

use std::sync::Arc;

use myelin_types::{RoomNum, UserNum};
use serde_json::{Value, json};

/// How many wait for a destination. When there are more, the oldest are dropped: a destination with so many is slow, and
/// what comes after says how things are.
const MOST: usize = 200;

/// What an EDU speaks of: of those with the same key only the newest is sent.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum EphemeralKey {
    /// Whether a user types in a room.
    Typing(RoomNum, UserNum),
    /// How far a user has read in a thread of a room, as the thread is named in receipts; empty for all of it.
    Receipt(RoomNum, UserNum, Arc<str>),
    /// Whether a user is there.
    Presence(UserNum),
}

impl EphemeralKey {
    /// Whether it is stored what the EDU says, so that it can be said again.
    pub(super) fn is_receipt(&self) -> bool {
        matches!(self, Self::Receipt(..))
    }
}

/// An EDU as it stands in a transaction; shared by all destinations that get it.
#[derive(Clone, Debug)]
pub struct Edu(Arc<Value>);

impl Edu {
    /// An EDU of a type.
    pub fn new(edu_type: &str, content: Value) -> Self {
        Self(Arc::new(
            json!({ "edu_type": edu_type, "content": content }),
        ))
    }

    /// As it stands in a transaction.
    pub(super) fn value(&self) -> &Value {
        &self.0
    }
}

/// What waits for a destination, the oldest first.
#[derive(Default)]
pub(super) struct Ephemerals(Vec<(EphemeralKey, Edu)>);

impl Ephemerals {
    /// Takes the place of what was there under `key`, or stands at the end.
    pub(super) fn put(&mut self, key: EphemeralKey, edu: Edu) {
        if let Some(older) = self.0.iter_mut().find(|(other, _)| *other == key) {
            older.1 = edu;
            return;
        }
        if self.0.len() >= MOST {
            self.0.remove(0);
        }
        self.0.push((key, edu));
    }

    /// Whether receipts are among what waits.
    pub(super) fn has_receipts(&self) -> bool {
        self.0.iter().any(|(key, _)| key.is_receipt())
    }

    /// Takes the oldest off.
    pub(super) fn take(&mut self, most: usize) -> Vec<Edu> {
        let first = self.0.drain(..most.min(self.0.len()));
        let first = first.map(|(_, edu)| edu).collect();
        if self.0.is_empty() {
            // Most destinations have none most of the time, and there are thousands.
            self.0 = Vec::new();
        }
        first
    }

    pub(super) fn clear(&mut self) {
        self.0 = Vec::new();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use myelin_types::{RoomNum, UserNum};
    use serde_json::json;

    use super::{Edu, EphemeralKey, Ephemerals, MOST};

    fn typing(user: u32) -> EphemeralKey {
        EphemeralKey::Typing(RoomNum(1), UserNum(user))
    }

    #[test]
    fn the_newest_of_a_key_counts_and_the_oldest_go_first() {
        let mut waiting = Ephemerals::default();
        for user in 0..300 {
            waiting.put(typing(user), Edu::new("m.typing", json!(user)));
        }
        assert_eq!(waiting.len(), MOST);
        waiting.put(typing(150), Edu::new("m.typing", json!("newer")));
        assert_eq!(waiting.len(), MOST);
        let first = waiting.take(100);
        let contents: Vec<_> = first.iter().map(|edu| &edu.value()["content"]).collect();
        assert_eq!((contents[0], contents[50]), (&json!(100), &json!("newer")));
        assert_eq!(waiting.take(100).len(), 100);
        assert!(waiting.is_empty());
    }
}
