//! What clients need to encrypt for one another: keys of devices and users, device lists, messages to devices.
//!
//! Is: every operation on those, and what a sync says of them.
//! Is not: aware of HTTP, of how other servers are reached, or of what is encrypted.
//!
//! The server is trusted with order and with nothing else: a one-time key is handed out once, a message to a device is
//! delivered once, and nobody is told of a list that has changed later than of what depends on it.

mod backup;
mod claim;
mod cross_signing;
mod dehydrated;
mod failure;
mod locks;
mod query;
mod remote;
mod signatures;
mod signed;
#[cfg(test)]
mod testing;
mod to_device;
mod upload;

use std::{fmt, sync::Arc, time::Duration};

use myelin_rooms::Rooms;
use myelin_store::Store;
use myelin_types::{Clock, Random, UserNum};
use parking_lot::Mutex;
use ruma::{OwnedDeviceId, OwnedUserId};
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

pub use backup::{
    Backup, BackupCounts, BackupKey, BackupReader, CreateBackupError, DeleteBackupError,
    DeleteKeysError, KeysToDelete, MAX_BACKUP_KEYS, MAX_BACKUPS, PutKeysError, ReadKeysError,
    SessionKey, SessionKeys, UpdateBackupError,
};
pub use claim::{ClaimedKey, KeyToClaim};
pub use cross_signing::{SigningKeys, SigningKeysError};
pub use dehydrated::{
    DehydrateError, DehydratedDevice, DehydratedMessages, DehydratedMessagesError, Dehydration,
};
pub use failure::Failure;
pub use query::{UserKeys, WantedKeys};
pub use remote::{
    DeviceUpdate, FetchedDevice, FetchedList, Kept, KeysUpdate, ListUpdate, OwnDevice, OwnList,
    StaleList, TrackedUser, sound_cross_signing_key, sound_device_keys,
};
pub use signatures::{MAX_SIGNED, SignatureFailure, SignaturesError, SignedKey};
pub use to_device::{
    Inbox, MAX_CONTENT, MOST_TOLD, Messages, OutboxMessage, OutboxPlace, Recipient, RemoteMessage,
    SendToDevice, SendToDeviceError,
};
pub use upload::{KeyUpload, UploadError};

/// How long the end waits for what was begun.
const DRAIN: Duration = Duration::from_secs(5);

/// The keys and device messages of one server. Cheap to clone.
#[derive(Clone)]
pub struct E2ee(Arc<Inner>);

struct Inner {
    store: Store,
    rooms: Rooms,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    outbox: to_device::Outbox,
    /// The last inbox that the janitor has looked at in its present round.
    inboxes_tidied: Mutex<Option<(UserNum, String)>>,
    tasks: TaskTracker,
    locks: locks::DeviceLocks,
}

/// Whose keys a request is about: the session that makes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The user.
    pub user_id: OwnedUserId,
    /// The same as a number.
    pub user: UserNum,
    /// The device of the session.
    pub device_id: OwnedDeviceId,
}

impl Owner {
    /// The key of the device's rows.
    fn device(&self) -> (UserNum, String) {
        (self.user, self.device_id.to_string())
    }
}

impl fmt::Debug for E2ee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("E2ee").finish_non_exhaustive()
    }
}

impl E2ee {
    /// Those in the store of `rooms`. One for each store.
    pub fn new(rooms: Rooms, clock: Arc<dyn Clock>, random: Arc<dyn Random>) -> Self {
        Self(Arc::new(Inner {
            store: rooms.store().clone(),
            rooms,
            clock,
            random,
            outbox: to_device::Outbox::default(),
            inboxes_tidied: Mutex::default(),
            tasks: TaskTracker::new(),
            locks: locks::DeviceLocks::new(),
        }))
    }

    /// Waits until everything that was begun is durable or has failed, some seconds at most. New operations must no longer
    /// be started.
    pub async fn drain(&self) {
        self.0.tasks.close();
        if tokio::time::timeout(DRAIN, self.0.tasks.wait())
            .await
            .is_err()
        {
            tracing::info!("work on keys and messages to devices was cut off");
        }
    }

    /// Runs an operation in a task of its own, so that it completes even if nobody waits for it any more.
    async fn run<T, E>(
        &self,
        work: impl Future<Output = Result<T, E>> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Failure> + Send + 'static,
    {
        match self.0.tasks.spawn(work.in_current_span()).await {
            Ok(result) => result,
            Err(_) => Err(Failure::CutShort.into()),
        }
    }
}
