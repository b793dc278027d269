//! Backups as such: making, showing, changing and deleting them.

use myelin_data::{
    RawJson,
    backups::{BackupKeys, BackupVersion, BackupVersions, UserBackup, UserBackups},
};
use myelin_store::{Batch, Scan, Step, StoreError, View};
use myelin_types::UserNum;

use super::{BackupCounts, Found, name, number};
use crate::{E2ee, Failure};

/// How many backups a user may have. Clients delete the old one when they make a new one.
pub const MAX_BACKUPS: u32 = 100;
/// The longest algorithm and the longest authentication data, in bytes.
const MAX_ALGORITHM: usize = 255;
const MAX_AUTH_DATA: usize = 64 << 10;

/// A backup, as its owner sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Backup {
    /// Its name.
    pub version: String,
    /// How its keys are encrypted.
    pub algorithm: String,
    /// What the algorithm needs.
    pub auth_data: RawJson,
    /// How many keys are in it, and the state that these are in.
    pub counts: BackupCounts,
}

impl Backup {
    fn of(number: u64, version: BackupVersion) -> Self {
        Self {
            version: name(number),
            counts: BackupCounts::of(&version),
            algorithm: version.algorithm,
            auth_data: version.auth_data,
        }
    }
}

/// Why a backup was not made.
#[derive(Debug, thiserror::Error)]
pub enum CreateBackupError {
    /// The authentication data is not a JSON object. (`M_BAD_JSON`)
    #[error("auth_data must be a JSON object")]
    NotAnObject,
    /// The algorithm or its data is too long. (`M_TOO_LARGE`)
    #[error("the backup's description is too large")]
    TooLarge,
    /// The user has [`MAX_BACKUPS`] already.
    #[error("there are too many backups")]
    TooMany,
    /// Our side failed.
    #[error(transparent)]
    Failed(#[from] Failure),
}
crate::failure::fails!(CreateBackupError);

/// Why a backup was not changed.
#[derive(Debug, thiserror::Error)]
pub enum UpdateBackupError {
    /// The user has no such backup. (`M_NOT_FOUND`)
    #[error("there is no such backup")]
    NotFound,
    /// A backup keeps its algorithm. (`M_INVALID_PARAM`)
    #[error("the backup has another algorithm")]
    OtherAlgorithm,
    /// The authentication data is not a JSON object. (`M_BAD_JSON`)
    #[error("auth_data must be a JSON object")]
    NotAnObject,
    /// The data is too long. (`M_TOO_LARGE`)
    #[error("the backup's description is too large")]
    TooLarge,
    /// Our side failed.
    #[error(transparent)]
    Failed(#[from] Failure),
}
crate::failure::fails!(UpdateBackupError);

/// Why a backup was not deleted.
#[derive(Debug, thiserror::Error)]
pub enum DeleteBackupError {
    /// The user never had such a backup. (`M_NOT_FOUND`)
    #[error("there never was such a backup")]
    NotFound,
    /// Our side failed.
    #[error(transparent)]
    Failed(#[from] Failure),
}
crate::failure::fails!(DeleteBackupError);

/// Whether a JSON text, which is known to be valid, is an object.
pub(super) fn is_object(json: &RawJson) -> bool {
    json.get().trim_start().starts_with('{')
}

impl E2ee {
    /// Makes a backup, which is the current one from now on. Returns its name, which no other backup of the user had or
    /// will have.
    pub async fn create_backup(
        &self,
        user: UserNum,
        algorithm: String,
        auth_data: RawJson,
    ) -> Result<String, CreateBackupError> {
        if !is_object(&auth_data) {
            return Err(CreateBackupError::NotAnObject);
        }
        if algorithm.len() > MAX_ALGORITHM || auth_data.get().len() > MAX_AUTH_DATA {
            return Err(CreateBackupError::TooLarge);
        }
        self.0
            .store
            .change(move |view| {
                let before = view.get::<UserBackups>(&user)?;
                let all = before.unwrap_or_default();
                if all.versions >= MAX_BACKUPS {
                    return Err(CreateBackupError::TooMany);
                }
                let number = all.last + 1;
                let mut batch = Batch::new();
                batch.expect::<UserBackups>(&user, before.as_ref());
                let after = UserBackup {
                    last: number,
                    current: Some(number),
                    versions: all.versions + 1,
                    ..all
                };
                batch.put::<UserBackups>(&user, &after);
                let version = BackupVersion {
                    algorithm: algorithm.clone(),
                    auth_data: auth_data.clone(),
                    count: 0,
                    changes: 0,
                };
                batch.put::<BackupVersions>(&(user, number), &version);
                Ok(Step::write(batch, name(number)))
            })
            .await
    }

    /// The backup of `user` with the name `version`.
    pub fn backup(
        &self,
        view: &View,
        user: UserNum,
        version: &str,
    ) -> Result<Option<Backup>, StoreError> {
        let found = Found::read(view, user, version)?;
        Ok(found.map(|found| Backup::of(found.number, found.version)))
    }

    /// The newest backup of `user`.
    pub fn current_backup(&self, view: &View, user: UserNum) -> Result<Option<Backup>, StoreError> {
        let Some(current) = view.get::<UserBackups>(&user)?.and_then(|all| all.current) else {
            return Ok(None);
        };
        let version = view.get::<BackupVersions>(&(user, current))?;
        Ok(version.map(|version| Backup::of(current, version)))
    }

    /// Gives a backup other authentication data. Its algorithm is named so that a client that takes it for another is
    /// stopped.
    pub async fn update_backup(
        &self,
        user: UserNum,
        version: String,
        algorithm: String,
        auth_data: RawJson,
    ) -> Result<(), UpdateBackupError> {
        if !is_object(&auth_data) {
            return Err(UpdateBackupError::NotAnObject);
        }
        if auth_data.get().len() > MAX_AUTH_DATA {
            return Err(UpdateBackupError::TooLarge);
        }
        self.0
            .store
            .change(move |view| {
                let found =
                    Found::read(view, user, &version)?.ok_or(UpdateBackupError::NotFound)?;
                if found.version.algorithm != algorithm {
                    return Err(UpdateBackupError::OtherAlgorithm);
                }
                if found.version.auth_data == auth_data {
                    return Ok(Step::nothing(()));
                }
                let mut batch = Batch::new();
                found.expect(&mut batch, user);
                let updated = BackupVersion {
                    auth_data: auth_data.clone(),
                    ..found.version
                };
                batch.put::<BackupVersions>(&(user, found.number), &updated);
                Ok(Step::write(batch, ()))
            })
            .await
    }

    /// Deletes a backup with all its keys; the newest of those that are left is the current one. One that was deleted
    /// before is deleted already.
    pub async fn delete_backup(
        &self,
        user: UserNum,
        version: String,
    ) -> Result<(), DeleteBackupError> {
        self.0
            .store
            .change(move |view| {
                let Some(found) = Found::read(view, user, &version)? else {
                    let last = view.get::<UserBackups>(&user)?.map_or(0, |all| all.last);
                    return match number(&version) {
                        Some(number) if (1..=last).contains(&number) => Ok(Step::nothing(())),
                        _ => Err(DeleteBackupError::NotFound),
                    };
                };
                let mut current = found.all.current;
                if current == Some(found.number) {
                    let older = Scan::prefix(&user).until(&(user, found.number));
                    let newest = view.keys::<BackupVersions>(older.reverse().limit(1)).next();
                    current = newest.transpose()?.map(|(_, number)| number);
                }
                let mut batch = Batch::new();
                found.expect(&mut batch, user);
                batch.delete::<BackupVersions>(&(user, found.number));
                batch.delete_prefix::<BackupKeys>(&(user, found.number));
                let all = UserBackup {
                    current,
                    versions: found.all.versions.saturating_sub(1),
                    keys: found.all.keys.saturating_sub(found.version.count),
                    ..found.all
                };
                batch.put::<UserBackups>(&user, &all);
                Ok(Step::write(batch, ()))
            })
            .await
    }
}
