//! `[presence]`: who is told who is there.

use crate::macros::{Invalid, Section, SectionDoc, section};

section! {
    /// Presence: whether users see who else is online, idle or away. It costs more than anything else that a server does
    /// for a quiet room, because everybody who comes or goes is news for everybody who shares a room with them.
    pub struct Presence in "presence" {
        /// Whether there is presence. Without it, clients show everybody as away, and what they say of themselves is
        /// taken and not told.
        #[serde(default = "default_on")]
        pub enabled: bool,
        /// In rooms with more members than this, nobody is told who is there. People see each other if they share any
        /// smaller room.
        #[serde(default = "default_max_room_members")]
        pub max_room_members: u64,
        /// Whether users here see how users of other servers are.
        #[serde(default = "default_on")]
        pub inbound: bool,
        /// Whether other servers are told how users here are.
        #[serde(default = "default_on")]
        pub outbound: bool,
    }
}

fn default_on() -> bool {
    true
}

fn default_max_room_members() -> u64 {
    200
}

impl Default for Presence {
    /// In small rooms, with all servers.
    fn default() -> Self {
        Self {
            enabled: true,
            max_room_members: default_max_room_members(),
            inbound: true,
            outbound: true,
        }
    }
}

impl Section for Presence {
    const DOC: SectionDoc = Self::SECTION;

    fn validate(&self) -> Result<(), Invalid> {
        Ok(())
    }
}
