//! The catalogue of all tables: their names, keys, values and what bounds their growth.
//!
//! Is: the only place where a table's name is spelled, the codecs of everything that is stored, and the interners that
//! give users, rooms, events and state keys their numbers.
//! Is not: a place for rules or decisions; it knows how a thing is stored, never whether it may be.
//!
//! Tables whose keys start with a [`RoomNum`](myelin_types::RoomNum) hold the data of that room alone, so that purging a
//! room is a range delete in each of them; tables whose keys start with a [`UserNum`](myelin_types::UserNum) likewise
//! belong to that user.

pub mod accounts;
pub mod backups;
pub mod dehydrated;
pub mod e2ee;
pub mod federation;
pub mod inbox;
pub mod interner;
pub mod json;
pub mod log;
pub mod partial;
pub mod rooms;
pub mod servers;
mod shown;
pub mod topic;
pub mod unread;

pub use interner::Interner;
pub use json::RawJson;
pub use shown::Shown;

use myelin_store::TableSpec;

/// The product that a database of ours names.
pub const PRODUCT: &str = "myelin";

/// The version of the set of tables and of their meaning. A newer database is refused by an older program.
///
/// 2: memberships keep [`servers::RoomServers`] up to date, which is built at the first start for the rooms of before.
pub const SCHEMA: u32 = 2;

/// Every table of the database. A table that is no longer used stays here as a tombstone, so that its name is not
/// given to something else.
pub fn tables() -> Vec<TableSpec> {
    vec![
        TableSpec::of::<accounts::UserNums>(),
        TableSpec::of::<accounts::UserIds>(),
        TableSpec::of::<accounts::Accounts>(),
        TableSpec::of::<accounts::Devices>(),
        TableSpec::of::<accounts::AccessTokens>(),
        TableSpec::of::<accounts::RefreshTokens>(),
        TableSpec::of::<accounts::DeviceTokens>(),
        TableSpec::of::<accounts::OpenIdTokens>(),
        TableSpec::of::<accounts::RegistrationTokens>(),
        TableSpec::of::<accounts::Profiles>(),
        TableSpec::of::<accounts::AccountData>(),
        TableSpec::of::<accounts::AccountDataByPos>(),
        TableSpec::of::<accounts::Filters>(),
        TableSpec::of::<accounts::PresenceStatuses>(),
        TableSpec::of::<accounts::Transactions>(),
        TableSpec::of::<accounts::TransactionsByTime>(),
        TableSpec::of::<backups::UserBackups>(),
        TableSpec::of::<backups::BackupVersions>(),
        TableSpec::of::<backups::BackupKeys>(),
        TableSpec::of::<dehydrated::DehydratedDevices>(),
        TableSpec::of::<e2ee::DeviceKeys>(),
        TableSpec::of::<e2ee::KeyedDevices>(),
        TableSpec::of::<e2ee::OneTimeKeys>(),
        TableSpec::of::<e2ee::OneTimeKeyPlaces>(),
        TableSpec::of::<e2ee::FallbackKeys>(),
        TableSpec::of::<e2ee::KeyCounts>(),
        TableSpec::of::<e2ee::CrossSigningKeys>(),
        TableSpec::of::<e2ee::KeySignatures>(),
        TableSpec::of::<e2ee::DeviceLists>(),
        TableSpec::of::<e2ee::DeviceListsByPos>(),
        TableSpec::of::<e2ee::RemoteDeviceLists>(),
        TableSpec::of::<e2ee::StaleDeviceLists>(),
        TableSpec::of::<e2ee::RemoteDevices>(),
        TableSpec::of::<e2ee::ToDeviceInbox>(),
        TableSpec::of::<e2ee::ToDeviceOutbox>(),
        TableSpec::of::<e2ee::ToDeviceSeen>(),
        TableSpec::of::<e2ee::ToDeviceSeenByTime>(),
        TableSpec::of::<rooms::RoomNums>(),
        TableSpec::of::<rooms::Rooms>(),
        TableSpec::of::<rooms::Heads>(),
        TableSpec::of::<rooms::Events>(),
        TableSpec::of::<rooms::EventIds>(),
        TableSpec::of::<rooms::Timeline>(),
        TableSpec::of::<rooms::Gaps>(),
        TableSpec::of::<rooms::AwaitedTargets>(),
        TableSpec::of::<rooms::StateNodes>(),
        TableSpec::of::<rooms::StateKeyNums>(),
        TableSpec::of::<rooms::StateKeys>(),
        TableSpec::of::<rooms::UserRooms>(),
        TableSpec::of::<rooms::RoomMembers>(),
        TableSpec::of::<rooms::StrippedStates>(),
        TableSpec::of::<rooms::Receipts>(),
        TableSpec::of::<rooms::ReceiptsByPos>(),
        TableSpec::of::<rooms::Aliases>(),
        TableSpec::of::<rooms::RoomAliases>(),
        TableSpec::of::<rooms::Published>(),
        TableSpec::of::<servers::RoomServers>(),
        TableSpec::of::<servers::ServerRooms>(),
        TableSpec::of::<partial::PartialJoins>(),
        TableSpec::of::<partial::PartialEvents>(),
        TableSpec::of::<unread::Notables>(),
        TableSpec::of::<unread::RedactedPlaces>(),
        TableSpec::of::<unread::LastSent>(),
        TableSpec::of::<unread::UnreadCounts>(),
        TableSpec::of::<federation::ServerKeys>(),
        TableSpec::of::<federation::KeyDocuments>(),
        TableSpec::of::<federation::OwnOldKeys>(),
        TableSpec::of::<federation::Destinations>(),
        TableSpec::of::<inbox::Inbox>(),
        TableSpec::of::<inbox::AwaitedReceipts>(),
        TableSpec::of::<log::Log>(),
        TableSpec::of::<log::Cursors>(),
        TableSpec::of::<log::Counters>(),
    ]
}

/// A value that is a serde structure behind the version byte.
macro_rules! postcard_value {
    ($name:ty, $version:literal) => {
        impl myelin_store::Value for $name {
            const VERSION: u8 = $version;

            fn encode(&self, writer: &mut myelin_store::Writer) {
                writer.postcard(self);
            }

            fn decode(
                version: u8,
                parser: &mut myelin_store::Parser<'_>,
            ) -> Result<Self, myelin_store::CodecError> {
                match version {
                    $version => parser.postcard(),
                    other => Err(myelin_store::CodecError::UnknownVersion(other)),
                }
            }
        }
    };
}
pub(crate) use postcard_value;

/// Declares a table next to its key, value and profile.
macro_rules! table {
    ($(#[$doc:meta])* $name:ident = $table:literal, $profile:ident, $key:ty => $value:ty) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub enum $name {}

        impl myelin_store::Table for $name {
            const NAME: &'static str = $table;
            const PROFILE: myelin_store::Profile = myelin_store::Profile::$profile;
            type Key = $key;
            type Value = $value;
        }
    };
}
pub(crate) use table;

/// A table's value that says no more than that its key is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Present;

impl myelin_store::Value for Present {
    const VERSION: u8 = 1;

    fn encode(&self, _: &mut myelin_store::Writer) {}

    fn decode(
        version: u8,
        _: &mut myelin_store::Parser<'_>,
    ) -> Result<Self, myelin_store::CodecError> {
        match version {
            1 => Ok(Present),
            other => Err(myelin_store::CodecError::UnknownVersion(other)),
        }
    }
}
