//! Transaction ids: a request that is made twice is done once.

use std::{collections::HashMap, fmt, str::FromStr, sync::Arc};

use myelin_data::accounts::{Transaction, Transactions, TransactionsByTime};
use myelin_data::{Present, rooms::SentBy};
use myelin_store::{Batch, StoreError};
use myelin_types::{EventNum, Millis, RoomNum, UserNum};
use parking_lot::Mutex;
use ruma::OwnedEventId;
use tokio::sync::OwnedMutexGuard;

use crate::Rooms;

/// Which request of which device this is. Two requests of a user with equal ids are one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TransactionId {
    /// The device that makes the request.
    pub device_id: String,
    /// The request's path without the id, so that equal ids on different endpoints are different transactions.
    pub path: String,
    /// The id that the client chose.
    pub id: String,
}

impl From<&TransactionId> for SentBy {
    fn from(transaction: &TransactionId) -> Self {
        SentBy {
            device_id: transaction.device_id.clone(),
            transaction_id: transaction.id.clone(),
        }
    }
}

type Key = (UserNum, TransactionId);

/// The transactions that are being done right now. Bounded by the number of requests in progress.
#[derive(Clone, Default)]
pub(crate) struct InFlight(Arc<Mutex<HashMap<Key, Arc<tokio::sync::Mutex<()>>>>>);

/// The right to do a transaction. While it is held, a second request with the same id waits.
pub struct TransactionGuard {
    in_flight: InFlight,
    key: Key,
    lock: Option<OwnedMutexGuard<()>>,
}

impl Drop for TransactionGuard {
    fn drop(&mut self) {
        let mut in_flight = self.in_flight.0.lock();
        self.lock = None;
        // Whoever waits holds a clone of the lock, and none is made but under the map's lock.
        if in_flight
            .get(&self.key)
            .is_some_and(|lock| Arc::strong_count(lock) == 1)
        {
            in_flight.remove(&self.key);
        }
    }
}

impl fmt::Debug for TransactionGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransactionGuard").finish_non_exhaustive()
    }
}

impl TransactionGuard {
    /// Notes in the batch that does the work that it is done, where the answer says nothing more.
    pub fn note(&self, batch: &mut Batch, now: Millis) {
        let done = Transaction {
            at: now,
            event: None,
            event_id: None,
        };
        self.write(batch, &done);
    }

    /// Puts the answer into the batch that does the work.
    pub(crate) fn record(
        &self,
        batch: &mut Batch,
        now: Millis,
        room: RoomNum,
        event: EventNum,
        event_id: &str,
    ) {
        let done = Transaction {
            at: now,
            event: Some((room, event)),
            event_id: Some(event_id.to_owned()),
        };
        self.write(batch, &done);
    }

    fn write(&self, batch: &mut Batch, done: &Transaction) {
        let (
            user,
            TransactionId {
                device_id,
                path,
                id,
            },
        ) = &self.key;
        batch.put::<Transactions>(&(*user, device_id.clone(), path.clone(), id.clone()), done);
        batch.put::<TransactionsByTime>(
            &(
                done.at.0,
                *user,
                device_id.clone(),
                path.clone(),
                id.clone(),
            ),
            &Present,
        );
    }
}

/// What becomes of a request with a transaction id.
pub(crate) enum Begun {
    /// It was done before, with this result.
    Before(OwnedEventId),
    /// It is to be done now; the guard is held until its batch is durable.
    Now(TransactionGuard),
}

impl Rooms {
    /// Begins a transaction whose answer says nothing, after any other request with the same id has ended. None if it was
    /// done before. The guard is held until the batch with its [`note`](TransactionGuard::note) is durable.
    pub async fn begin_plain_transaction(
        &self,
        user: UserNum,
        transaction: TransactionId,
    ) -> Result<Option<TransactionGuard>, StoreError> {
        let (guard, done) = self.look_up_transaction(user, transaction).await?;
        Ok(done.is_none().then_some(guard))
    }

    /// Begins a transaction that sends an event, after any other request with the same id has ended.
    pub(crate) async fn begin_transaction(
        &self,
        user: UserNum,
        transaction: TransactionId,
    ) -> Result<Begun, StoreError> {
        let (guard, done) = self.look_up_transaction(user, transaction).await?;
        Ok(match done.and_then(|done| done.event_id) {
            Some(event_id) => match OwnedEventId::from_str(&event_id) {
                Ok(event_id) => Begun::Before(event_id),
                Err(_) => Begun::Now(guard),
            },
            None => Begun::Now(guard),
        })
    }

    async fn look_up_transaction(
        &self,
        user: UserNum,
        transaction: TransactionId,
    ) -> Result<(TransactionGuard, Option<Transaction>), StoreError> {
        let key = (user, transaction);
        let lock = Arc::clone(self.0.transactions.0.lock().entry(key.clone()).or_default());
        let guard = TransactionGuard {
            in_flight: self.0.transactions.clone(),
            lock: Some(lock.lock_owned().await),
            key,
        };
        let (
            user,
            TransactionId {
                device_id,
                path,
                id,
            },
        ) = guard.key.clone();
        let row = (user, device_id, path, id);
        let done = self
            .0
            .store
            .read(move |view| view.get::<Transactions>(&row))
            .await?;
        Ok((guard, done))
    }
}
