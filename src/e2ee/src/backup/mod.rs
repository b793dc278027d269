//! Key backups. Spec: client-server API, "Server-side key backups".
//!
//! A user's newest backup takes keys, the older ones are read only. Whatever changes the keys of a backup writes its row
//! too, with their number and one more change counted, and expects it: so the number is exact without anything being
//! counted, and of two changes at a time one is decided again.

mod keys;
mod read;
mod versions;

use myelin_data::backups::{BackupVersion, BackupVersions, UserBackup, UserBackups};
use myelin_store::{Batch, StoreError, View};
use myelin_types::UserNum;

pub use keys::{
    BackupCounts, DeleteKeysError, KeysToDelete, MAX_BACKUP_KEYS, PutKeysError, SessionKey,
};
pub use myelin_data::backups::BackupKey;
pub use read::{BackupReader, ReadKeysError, SessionKeys};
pub use versions::{Backup, CreateBackupError, DeleteBackupError, MAX_BACKUPS, UpdateBackupError};

/// The name of a backup, as clients know it: its number in decimal digits.
fn name(number: u64) -> String {
    number.to_string()
}

/// The number of the backup with this name; none if it is not a name that we give.
fn number(name: &str) -> Option<u64> {
    name.parse()
        .ok()
        .filter(|number| self::name(*number) == name)
}

/// A backup with the rows that its changes expect.
struct Found {
    number: u64,
    all: UserBackup,
    version: BackupVersion,
}

impl Found {
    /// The backup of `user` with this name, if there is one.
    fn read(view: &View, user: UserNum, name: &str) -> Result<Option<Self>, StoreError> {
        let (Some(number), Some(all)) = (number(name), view.get::<UserBackups>(&user)?) else {
            return Ok(None);
        };
        let version = view.get::<BackupVersions>(&(user, number))?;
        Ok(version.map(|version| Self {
            number,
            all,
            version,
        }))
    }

    /// Expects the rows in `batch`.
    fn expect(&self, batch: &mut Batch, user: UserNum) {
        batch.expect::<UserBackups>(&user, Some(&self.all));
        batch.expect::<BackupVersions>(&(user, self.number), Some(&self.version));
    }

    /// Expects the rows in `batch` and writes them with another number of keys.
    fn change(&self, batch: &mut Batch, user: UserNum, count: u64) -> BackupCounts {
        self.expect(batch, user);
        let all = UserBackup {
            keys: (self.all.keys + count).saturating_sub(self.version.count),
            ..self.all
        };
        let version = BackupVersion {
            count,
            changes: self.version.changes + 1,
            ..self.version.clone()
        };
        batch.put::<UserBackups>(&user, &all);
        batch.put::<BackupVersions>(&(user, self.number), &version);
        BackupCounts::of(&version)
    }
}
