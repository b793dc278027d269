//! Putting keys into a backup, and deleting them.

use std::{collections::BTreeMap, sync::Arc};

use myelin_data::backups::{BackupKey, BackupKeys, BackupVersion};
use myelin_store::{Batch, Scan, Step, View};
use myelin_types::UserNum;
use ruma::OwnedRoomId;

use super::{Found, name, versions::is_object};
use crate::{E2ee, Failure};

/// How many keys a user may have in all of his backups: about a gigabyte. A key that would be one too many is refused;
/// better ones for sessions that have one are not.
pub const MAX_BACKUP_KEYS: u64 = 1_000_000;
/// The longest session id and the longest encrypted key, in bytes.
const MAX_SESSION_ID: usize = 255;
const MAX_SESSION_DATA: usize = 64 << 10;
/// As many keys as are deleted one by one; of more the range is.
const FEW: usize = 64;

/// What a backup holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupCounts {
    /// How many keys.
    pub count: u64,
    /// Differs whenever the keys do.
    pub etag: String,
}

impl BackupCounts {
    pub(super) fn of(version: &BackupVersion) -> Self {
        Self {
            count: version.count,
            etag: version.changes.to_string(),
        }
    }
}

/// The key of a session of a room.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionKey {
    /// The room, which need not be known here.
    pub room_id: OwnedRoomId,
    /// The megolm session.
    pub session_id: String,
    /// Its key.
    pub key: BackupKey,
}

/// Which keys to delete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeysToDelete {
    /// All keys of the backup.
    All,
    /// Those of a room.
    Room(OwnedRoomId),
    /// That of a session.
    Session(OwnedRoomId, String),
}

/// Why keys were not backed up. None of them was.
#[derive(Debug, thiserror::Error)]
pub enum PutKeysError {
    /// The user has no such backup. (`M_NOT_FOUND`)
    #[error("there is no such backup")]
    NotFound,
    /// There is a newer backup, which is named. (`M_WRONG_ROOM_KEYS_VERSION`)
    #[error("the current backup is {current}")]
    WrongVersion {
        /// The current backup.
        current: String,
    },
    /// The id of a session is empty or too long. (`M_INVALID_PARAM`)
    #[error("a session id must have 1 to {MAX_SESSION_ID} bytes")]
    InvalidSession,
    /// The data of a session is not a JSON object. (`M_BAD_JSON`)
    #[error("session_data must be a JSON object")]
    NotAnObject,
    /// The data of a session is too long. (`M_TOO_LARGE`)
    #[error("session_data is too large")]
    TooLarge,
    /// The user has as many keys as this server keeps. (`M_TOO_LARGE`)
    #[error("there are too many keys")]
    TooMany,
    /// Our side failed.
    #[error(transparent)]
    Failed(#[from] Failure),
}
crate::failure::fails!(PutKeysError);

/// Why keys were not deleted.
#[derive(Debug, thiserror::Error)]
pub enum DeleteKeysError {
    /// The user has no such backup. (`M_NOT_FOUND`)
    #[error("there is no such backup")]
    NotFound,
    /// Our side failed.
    #[error(transparent)]
    Failed(#[from] Failure),
}
crate::failure::fails!(DeleteKeysError);

/// Whether `new` takes the place of `old`: it is verified while the other is not; else it decrypts earlier messages; else
/// it came a shorter way.
fn replaces(new: &BackupKey, old: &BackupKey) -> bool {
    let rank = |key: &BackupKey| {
        (
            !key.is_verified,
            key.first_message_index,
            key.forwarded_count,
        )
    };
    rank(new) < rank(old)
}

fn check(key: &SessionKey) -> Result<(), PutKeysError> {
    if !(1..=MAX_SESSION_ID).contains(&key.session_id.len()) {
        return Err(PutKeysError::InvalidSession);
    }
    if !is_object(&key.key.session_data) {
        return Err(PutKeysError::NotAnObject);
    }
    if key.key.session_data.get().len() > MAX_SESSION_DATA {
        return Err(PutKeysError::TooLarge);
    }
    Ok(())
}

impl E2ee {
    /// Puts keys into the current backup of `user`, which has the name `version`: all of them, in one batch. Where a
    /// session has a key already, the better one is kept.
    ///
    /// `keys` are in memory at once: whoever takes them from a client bounds their size.
    pub async fn put_backup_keys(
        &self,
        user: UserNum,
        version: String,
        keys: Vec<SessionKey>,
    ) -> Result<BackupCounts, PutKeysError> {
        let mut sorted = BTreeMap::new();
        for key in keys {
            check(&key)?;
            sorted.insert((key.room_id.to_string(), key.session_id), key.key);
        }
        let keys = Arc::new(sorted);
        self.0
            .store
            .change(move |view| {
                let found = current(view, user, &version)?;
                let places: Vec<_> = keys
                    .keys()
                    .map(|(room, session)| (user, found.number, room.clone(), session.clone()))
                    .collect();
                let present = view.multi_get::<BackupKeys>(&places)?;
                let (mut batch, mut count) = (Batch::new(), found.version.count);
                for ((place, old), new) in places.iter().zip(present).zip(keys.values()) {
                    match old {
                        Some(old) if !replaces(new, &old) => continue,
                        Some(_) => {}
                        None => count += 1,
                    }
                    batch.put::<BackupKeys>(place, new);
                }
                if batch.is_empty() {
                    return Ok(Step::nothing(BackupCounts::of(&found.version)));
                }
                if found.all.keys + (count - found.version.count) > MAX_BACKUP_KEYS
                    && count > found.version.count
                {
                    return Err(PutKeysError::TooMany);
                }
                let counts = found.change(&mut batch, user, count);
                Ok(Step::write(batch, counts))
            })
            .await
    }

    /// Deletes keys from a backup of `user`, the current one or another. What is not there is deleted already.
    pub async fn delete_backup_keys(
        &self,
        user: UserNum,
        version: String,
        which: KeysToDelete,
    ) -> Result<BackupCounts, DeleteKeysError> {
        self.0
            .store
            .change(move |view| {
                let found = Found::read(view, user, &version)?.ok_or(DeleteKeysError::NotFound)?;
                let mut batch = Batch::new();
                let left = match &which {
                    KeysToDelete::All => {
                        if found.version.count > 0 {
                            batch.delete_prefix::<BackupKeys>(&(user, found.number));
                        }
                        0
                    }
                    KeysToDelete::Room(room) => {
                        let prefix = (user, found.number, room.to_string());
                        let mut few = Vec::new();
                        let mut count = 0;
                        for key in view.keys::<BackupKeys>(Scan::prefix(&prefix)) {
                            let key = key?;
                            count += 1;
                            if few.len() <= FEW {
                                few.push(key);
                            }
                        }
                        if few.len() <= FEW {
                            for key in &few {
                                batch.delete::<BackupKeys>(key);
                            }
                        } else {
                            batch.delete_prefix::<BackupKeys>(&prefix);
                        }
                        found.version.count.saturating_sub(count)
                    }
                    KeysToDelete::Session(room, session) => {
                        let key = (user, found.number, room.to_string(), session.clone());
                        let there = view.contains::<BackupKeys>(&key)?;
                        if there {
                            batch.delete::<BackupKeys>(&key);
                        }
                        found.version.count.saturating_sub(u64::from(there))
                    }
                };
                if batch.is_empty() {
                    return Ok(Step::nothing(BackupCounts::of(&found.version)));
                }
                let counts = found.change(&mut batch, user, left);
                Ok(Step::write(batch, counts))
            })
            .await
    }
}

/// The backup with this name, if it is the one that takes keys.
fn current(view: &View, user: UserNum, version: &str) -> Result<Found, PutKeysError> {
    let found = Found::read(view, user, version)?.ok_or(PutKeysError::NotFound)?;
    match found.all.current {
        Some(current) if current != found.number => Err(PutKeysError::WrongVersion {
            current: name(current),
        }),
        _ => Ok(found),
    }
}

#[cfg(test)]
mod tests {
    use myelin_data::{RawJson, backups::BackupKey};
    use proptest::prelude::*;

    use super::replaces;

    fn key(is_verified: bool, first_message_index: u64, forwarded_count: u64) -> BackupKey {
        BackupKey {
            is_verified,
            first_message_index,
            forwarded_count,
            session_data: RawJson::of(&serde_json::json!({})).expect("it is JSON"),
        }
    }

    proptest! {
        /// The rule as the specification tells it, one sentence after the other.
        #[test]
        fn the_better_key_is_kept(
            new in (any::<bool>(), 0..3_u64, 0..3_u64),
            old in (any::<bool>(), 0..3_u64, 0..3_u64),
        ) {
            let expected = if new.0 != old.0 {
                new.0
            } else if new.1 != old.1 {
                new.1 < old.1
            } else {
                new.2 < old.2
            };
            let (new, old) = (key(new.0, new.1, new.2), key(old.0, old.1, old.2));
            prop_assert_eq!(replaces(&new, &old), expected);
        }
    }
}
