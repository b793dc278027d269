//! Tables of key backups. Spec: client-server API, "Server-side key backups".
//!
//! What is backed up is encrypted for its owner; the server keeps it as it came, and reads of a key only what decides
//! between two of them. All rows belong to a user, since rooms need not be known here.

use myelin_store::{Batch, CodecError, Parser, Value, Writer};
use myelin_types::UserNum;
use serde::{Deserialize, Serialize};

use crate::{RawJson, json, postcard_value, table};

table! {
    /// What there is of a user's backups as a whole. Every change of [`BackupVersions`] or [`BackupKeys`] that depends on
    /// which backup is the current one expects this row.
    ///
    /// Floor: one row a user who ever made a backup; it goes with the account, and not before, so that the number of a
    /// deleted backup is not given to another.
    UserBackups = "user_backups", Point, UserNum => UserBackup
}

table! {
    /// Backups by user and number. Floor: deletion by the user, deactivation; how many a user may have is bounded.
    BackupVersions = "backup_versions", Scan, (UserNum, u64) => BackupVersion
}

table! {
    /// Keys by user, number of the backup, room id and session id.
    ///
    /// Floor: a better key takes the place of another; they go with their backup; how many a user may have is bounded.
    BackupKeys = "backup_keys", Scan, (UserNum, u64, String, String) => BackupKey
}

/// A user's backups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserBackup {
    /// The number of the backup that was made last, deleted or not. The first is 1.
    pub last: u64,
    /// The number of the newest backup that is there: the only one that takes keys.
    pub current: Option<u64>,
    /// How many backups there are.
    pub versions: u32,
    /// How many keys there are in all of them.
    pub keys: u64,
}
postcard_value!(UserBackup, 1);

/// A backup.
#[derive(Clone, Debug, PartialEq)]
pub struct BackupVersion {
    /// How its keys are encrypted.
    pub algorithm: String,
    /// What the algorithm needs, a JSON object.
    pub auth_data: RawJson,
    /// How many keys are in it: always as many as it has rows in [`BackupKeys`].
    pub count: u64,
    /// Grows with every change of its keys.
    pub changes: u64,
}

impl Value for BackupVersion {
    const VERSION: u8 = 1;

    fn encode(&self, writer: &mut Writer) {
        writer.u64(self.count);
        writer.u64(self.changes);
        writer.terminated(self.algorithm.as_bytes());
        writer.bytes(self.auth_data.get().as_bytes());
    }

    fn decode(version: u8, parser: &mut Parser<'_>) -> Result<Self, CodecError> {
        match version {
            1 => Ok(Self {
                count: parser.u64()?,
                changes: parser.u64()?,
                algorithm: String::from_utf8(parser.terminated()?).map_err(|_| CodecError::Utf8)?,
                auth_data: json::parse(parser.rest())?,
            }),
            other => Err(CodecError::UnknownVersion(other)),
        }
    }
}

/// The key of a session.
#[derive(Clone, Debug, PartialEq)]
pub struct BackupKey {
    /// Whether the device that backed it up had verified the device that the key is from.
    pub is_verified: bool,
    /// The index of the first message that it decrypts.
    pub first_message_index: u64,
    /// How often devices passed it on.
    pub forwarded_count: u64,
    /// The encrypted key, a JSON object.
    pub session_data: RawJson,
}

impl Value for BackupKey {
    const VERSION: u8 = 1;

    fn encode(&self, writer: &mut Writer) {
        writer.u8(u8::from(self.is_verified));
        writer.u64(self.first_message_index);
        writer.u64(self.forwarded_count);
        writer.bytes(self.session_data.get().as_bytes());
    }

    fn decode(version: u8, parser: &mut Parser<'_>) -> Result<Self, CodecError> {
        match version {
            1 => Ok(Self {
                is_verified: parser.u8()? != 0,
                first_message_index: parser.u64()?,
                forwarded_count: parser.u64()?,
                session_data: json::parse(parser.rest())?,
            }),
            other => Err(CodecError::UnknownVersion(other)),
        }
    }
}

/// Deletes in `batch` everything that a user backed up, for the end of his account.
pub fn forget_backups(batch: &mut Batch, user: UserNum) {
    batch.delete::<UserBackups>(&user);
    batch.delete_prefix::<BackupVersions>(&user);
    batch.delete_prefix::<BackupKeys>(&user);
}

#[cfg(test)]
mod tests {
    use myelin_store::{Parser, Value, Writer};

    use super::{BackupKey, BackupVersion, UserBackup};
    use crate::RawJson;

    fn round_trip<V: Value + PartialEq + std::fmt::Debug>(value: &V) {
        let mut writer = Writer::new();
        value.encode(&mut writer);
        let bytes = writer.into_bytes();
        let mut parser = Parser::new(&bytes);
        let decoded = V::decode(V::VERSION, &mut parser).expect("just encoded");
        parser.finish().expect("nothing is left");
        assert_eq!(decoded, *value);
        assert!(V::decode(0, &mut Parser::new(&bytes)).is_err());
    }

    #[test]
    fn values_come_back_as_they_were() {
        let json = RawJson::of(&serde_json::json!({ "a": "b\u{0}" })).expect("it is JSON");
        round_trip(&UserBackup {
            last: 7,
            current: Some(5),
            versions: 2,
            keys: 1_000_000,
        });
        round_trip(&BackupVersion {
            algorithm: "m.\u{0}megolm".to_owned(),
            auth_data: json.clone(),
            count: 3,
            changes: u64::MAX,
        });
        round_trip(&BackupKey {
            is_verified: true,
            first_message_index: 1 << 53,
            forwarded_count: 0,
            session_data: json,
        });
    }
}
