//! What a batch changes, as far as a waiting reader cares. The store carries topics and does not read them.

use myelin_store::Topic;
use myelin_types::{RoomNum, UserNum};

/// A topic, decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Changed {
    /// The room's timeline or state has grown.
    Timeline(RoomNum),
    /// The room's receipts have changed, among them one that everybody in the room is shown.
    Receipts(RoomNum),
    /// A private receipt of the room has changed: nobody but its user is concerned, who has
    /// [`OwnReceipts`](Changed::OwnReceipts) for it.
    PrivateReceipts(RoomNum),
    /// Receipts that only the user is shown have changed.
    OwnReceipts(UserNum),
    /// The user's own rows have changed: account data, memberships, filters' targets.
    User(UserNum),
    /// The user's devices or their keys have changed: everybody who shares a room with him is concerned.
    Devices(UserNum),
    /// There are new messages to devices of the user.
    ToDevice(UserNum),
    /// How many one-time and fallback keys devices of the user have. Nobody is woken by it.
    KeyCounts(UserNum),
    /// The user signed others' keys, as only he is shown.
    KeySignatures(UserNum),
    /// Some of the user's sessions have ended, or what they may do has changed.
    Sessions(UserNum),
}

const TIMELINE: u64 = 1;
const RECEIPTS: u64 = 2;
const USER: u64 = 3;
const SESSIONS: u64 = 4;
const PRIVATE_RECEIPTS: u64 = 5;
const OWN_RECEIPTS: u64 = 6;
const DEVICES: u64 = 7;
const TO_DEVICE: u64 = 8;
const KEY_COUNTS: u64 = 9;
const KEY_SIGNATURES: u64 = 10;

impl From<Changed> for Topic {
    fn from(changed: Changed) -> Topic {
        let (tag, number) = match changed {
            Changed::Timeline(room) => (TIMELINE, room.0),
            Changed::Receipts(room) => (RECEIPTS, room.0),
            Changed::PrivateReceipts(room) => (PRIVATE_RECEIPTS, room.0),
            Changed::OwnReceipts(user) => (OWN_RECEIPTS, user.0),
            Changed::User(user) => (USER, user.0),
            Changed::Sessions(user) => (SESSIONS, user.0),
            Changed::Devices(user) => (DEVICES, user.0),
            Changed::ToDevice(user) => (TO_DEVICE, user.0),
            Changed::KeyCounts(user) => (KEY_COUNTS, user.0),
            Changed::KeySignatures(user) => (KEY_SIGNATURES, user.0),
        };
        Topic(tag << 32 | u64::from(number))
    }
}

impl Changed {
    /// What `topic` stands for, if it is one of ours.
    pub fn from_topic(topic: Topic) -> Option<Changed> {
        let number = (topic.0 & u64::from(u32::MAX)) as u32;
        match topic.0 >> 32 {
            TIMELINE => Some(Changed::Timeline(RoomNum(number))),
            RECEIPTS => Some(Changed::Receipts(RoomNum(number))),
            PRIVATE_RECEIPTS => Some(Changed::PrivateReceipts(RoomNum(number))),
            OWN_RECEIPTS => Some(Changed::OwnReceipts(UserNum(number))),
            USER => Some(Changed::User(UserNum(number))),
            SESSIONS => Some(Changed::Sessions(UserNum(number))),
            DEVICES => Some(Changed::Devices(UserNum(number))),
            TO_DEVICE => Some(Changed::ToDevice(UserNum(number))),
            KEY_COUNTS => Some(Changed::KeyCounts(UserNum(number))),
            KEY_SIGNATURES => Some(Changed::KeySignatures(UserNum(number))),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Changed, RoomNum, Topic, UserNum};

    #[test]
    fn topics_round_trip() {
        for changed in [
            Changed::Timeline(RoomNum(1)),
            Changed::Receipts(RoomNum(u32::MAX)),
            Changed::PrivateReceipts(RoomNum(2)),
            Changed::OwnReceipts(UserNum(3)),
            Changed::User(UserNum(7)),
            Changed::Sessions(UserNum(8)),
            Changed::Devices(UserNum(9)),
            Changed::ToDevice(UserNum(10)),
            Changed::KeyCounts(UserNum(11)),
            Changed::KeySignatures(UserNum(12)),
        ] {
            assert_eq!(Changed::from_topic(Topic::from(changed)), Some(changed));
        }
        assert_eq!(Changed::from_topic(Topic(0)), None);
    }
}
