//! Interned numbers and log positions. They keep keys short, and none of them ever leaves the server.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// A position in the server's one ordered log. Every committed batch has its own; later batches have greater ones.
    Pos(u64)
}

number! {
    /// A room, in the order in which this server met it. Starts at 1; 0 stands for "no room".
    RoomNum(u32)
}

number! {
    /// A user of any server, in the order in which this server met them. Starts at 1.
    UserNum(u32)
}

number! {
    /// An event, in the order in which this server began to write it. Starts at 1.
    EventNum(u64)
}

number! {
    /// An interned pair of event type and state key. The top bit is set exactly for `m.room.member`, so that the
    /// members of a room are one contiguous range of its state tree.
    StateKeyNum(u32)
}

impl Pos {
    /// The position before everything.
    pub const ZERO: Pos = Pos(0);

    /// Stands in a batch for the position that the batch will get; the committer fills it in.
    pub const AT_COMMIT: Pos = Pos(u64::MAX);
}

impl RoomNum {
    /// "No room": global account data stands under it.
    pub const NONE: RoomNum = RoomNum(0);
}

impl StateKeyNum {
    /// The bit that marks the numbers of `m.room.member` keys.
    pub const MEMBER_BIT: u32 = 1 << 31;

    /// The smallest number of a membership key.
    pub const FIRST_MEMBER: StateKeyNum = StateKeyNum(Self::MEMBER_BIT);

    /// The greatest number of a membership key.
    pub const LAST_MEMBER: StateKeyNum = StateKeyNum(u32::MAX);

    /// Whether this numbers a key of type `m.room.member`.
    pub const fn is_member(self) -> bool {
        self.0 & Self::MEMBER_BIT != 0
    }
}
