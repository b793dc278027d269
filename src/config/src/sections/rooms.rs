//! `[rooms]`: how new rooms are made.

use ruma::RoomVersionId;

use crate::macros::{Invalid, Section, SectionDoc, section};

section! {
    /// How new rooms are made.
    pub struct Rooms in "rooms" {
        /// The version of a new room when its creator asks for none: "1" to "12".
        #[serde(default = "default_room_version")]
        pub default_version: RoomVersionId,
    }
}

fn default_room_version() -> RoomVersionId {
    RoomVersionId::V12
}

impl Section for Rooms {
    const DOC: SectionDoc = Self::SECTION;

    fn validate(&self) -> Result<(), Invalid> {
        match self.default_version.as_str().parse::<u8>() {
            Ok(1..=12) => Ok(()),
            _ => Err(Invalid::new(
                "default_version",
                format!("must be \"1\" to \"12\", not \"{}\"", self.default_version),
            )),
        }
    }
}
