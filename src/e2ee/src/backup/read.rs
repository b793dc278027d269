//! Reading the keys of a backup, of which there may be hundreds of thousands.

use myelin_data::backups::{BackupKey, BackupKeys, BackupVersions};
use myelin_store::{Scan, StoreError, View};
use myelin_types::UserNum;
use ruma::RoomId;

use super::{Found, number};
use crate::{E2ee, Failure};

/// A part has this many keys at most, and is complete once they have so many bytes.
const PART_KEYS: usize = 1_000;
const PART_BYTES: usize = 256 << 10;

/// Why there are no more keys to read.
#[derive(Debug, thiserror::Error)]
pub enum ReadKeysError {
    /// The backup was deleted in the meantime.
    #[error("the backup was deleted while it was read")]
    Deleted,
    /// Our side failed.
    #[error(transparent)]
    Failed(#[from] Failure),
}

impl From<StoreError> for ReadKeysError {
    fn from(error: StoreError) -> Self {
        Self::Failed(error.into())
    }
}

/// Keys with the rooms and sessions that they are of, in this order.
pub type SessionKeys = Vec<(String, String, BackupKey)>;

/// Reads the keys of a backup part by part.
///
/// Each part shows the keys as they are when it is read: nothing is kept for a reader who takes his time. A key that is
/// there throughout is read exactly once.
#[derive(Debug)]
pub struct BackupReader {
    e2ee: E2ee,
    user: UserNum,
    number: u64,
    room: Option<String>,
    /// The room and session of the key that was read last.
    after: Option<(String, String)>,
    ended: bool,
}

/// One part.
struct Part {
    keys: SessionKeys,
    ended: bool,
}

impl E2ee {
    /// The key of a session in a backup of `user`.
    pub fn backup_key(
        &self,
        view: &View,
        user: UserNum,
        version: &str,
        room_id: &RoomId,
        session_id: &str,
    ) -> Result<Option<BackupKey>, StoreError> {
        let Some(number) = number(version) else {
            return Ok(None);
        };
        view.get::<BackupKeys>(&(user, number, room_id.to_string(), session_id.to_owned()))
    }

    /// Reads the keys of a backup of `user`, or of a room in it. None if there is no such backup.
    pub async fn read_backup(
        &self,
        user: UserNum,
        version: String,
        room_id: Option<&RoomId>,
    ) -> Result<Option<BackupReader>, Failure> {
        let found = self
            .0
            .store
            .read(move |view| Found::read(view, user, &version))
            .await?;
        Ok(found.map(|found| BackupReader {
            e2ee: self.clone(),
            user,
            number: found.number,
            room: room_id.map(ToString::to_string),
            after: None,
            ended: false,
        }))
    }
}

impl BackupReader {
    /// Whether all keys were read.
    pub fn is_ended(&self) -> bool {
        self.ended
    }

    /// The next keys. After an error what was read is not all there is.
    pub async fn next(&mut self) -> Result<SessionKeys, ReadKeysError> {
        let (user, number) = (self.user, self.number);
        let (room, after) = (self.room.clone(), self.after.clone());
        let part = self
            .e2ee
            .0
            .store
            .read(move |view| {
                if !view.contains::<BackupVersions>(&(user, number))? {
                    return Err(ReadKeysError::Deleted);
                }
                let scan = match &room {
                    Some(room) => Scan::prefix(&(user, number, room.clone())),
                    None => Scan::prefix(&(user, number)),
                };
                let scan = match &after {
                    Some((room, session)) => {
                        scan.after(&(user, number, room.clone(), session.clone()))
                    }
                    None => scan,
                };
                Ok(part(view, scan)?)
            })
            .await?;
        self.ended = part.ended;
        if let Some((room, session, _)) = part.keys.last() {
            self.after = Some((room.clone(), session.clone()));
        }
        Ok(part.keys)
    }
}

fn part(view: &View, scan: Scan) -> Result<Part, StoreError> {
    let (mut keys, mut bytes) = (Vec::new(), 0);
    for row in view.scan::<BackupKeys>(scan) {
        if keys.len() >= PART_KEYS || bytes >= PART_BYTES {
            return Ok(Part { keys, ended: false });
        }
        let ((_, _, room, session), key) = row?;
        bytes += room.len() + session.len() + key.session_data.get().len();
        keys.push((room, session, key));
    }
    Ok(Part { keys, ended: true })
}
