//! What is thrown away because nobody fetches it.

use std::time::Duration;

use myelin_data::e2ee::{
    DeviceMessage, ToDeviceInbox, ToDeviceOutbox, ToDeviceSeen, ToDeviceSeenByTime,
};
use myelin_store::{Batch, Key, Scan, StoreError, Table, View};
use myelin_types::{Millis, UserNum};

use crate::{E2ee, Failure};

/// How long a message waits for its device, or its device's server. The session that it was encrypted for has mostly been
/// replaced by then.
const KEPT: Duration = Duration::from_hours(24 * 180);
/// How many wait for a device, or for a server. When there are more, the oldest go: who comes back then lacks keys of old
/// messages and has to ask for them.
const MOST_FOR_DEVICE: usize = 20_000;
const MOST_FOR_SERVER: usize = 200_000;
/// How long the ids of other servers' messages are remembered. A message that is sent again after that is delivered again.
const SEEN_KEPT: Duration = Duration::from_hours(24 * 7);
/// How many rows of a kind are deleted with one batch.
const AT_ONCE: usize = 1_000;
/// How many inboxes are looked at in one step.
const INBOXES_A_STEP: usize = 64;

/// A device, as its inbox is found.
type Device = (UserNum, String);

/// The time before which something is older than `kept`.
fn before(now: Millis, kept: Duration) -> Millis {
    Millis(now.0 - now.since(Millis(0)).min(kept).as_millis() as u64)
}

/// The oldest messages under a prefix that are too old or too many, at most [`AT_ONCE`].
fn overdue<T>(
    view: &View,
    prefix: &impl Key,
    most: usize,
    oldest: Millis,
) -> Result<Vec<T::Key>, StoreError>
where
    T: Table<Value = DeviceMessage>,
{
    let mut old = 0;
    for row in view.scan::<T>(Scan::prefix(prefix).limit(AT_ONCE)) {
        if row?.1.since >= oldest {
            break;
        }
        old += 1;
    }
    let mut count = 0;
    for key in view.keys::<T>(Scan::prefix(prefix).limit(most + AT_ONCE)) {
        key?;
        count += 1;
    }
    let overdue = old.max(count.max(most) - most);
    view.keys::<T>(Scan::prefix(prefix).limit(overdue))
        .collect()
}

impl E2ee {
    /// Does one bounded piece of tidying of what waits for devices. Returns whether there is more to do at once; if not, all
    /// inboxes have been looked at since the last time that this was so.
    pub async fn tidy_to_device(&self) -> Result<bool, Failure> {
        let oldest = before(self.0.clock.now(), KEPT);
        let from = self.0.inboxes_tidied.lock().clone();
        let read = move |view: &View| {
            let mut batch = Batch::new();
            let mut last: Option<Device> = from.clone();
            for _ in 0..INBOXES_A_STEP {
                let rest = match &last {
                    Some(device) => Scan::all().after(device),
                    None => Scan::all(),
                };
                let next = view.keys::<ToDeviceInbox>(rest.limit(1)).next();
                let Some((user, device_id, ..)) = next.transpose()? else {
                    last = None;
                    break;
                };
                let device = (user, device_id);
                let overdue = overdue::<ToDeviceInbox>(view, &device, MOST_FOR_DEVICE, oldest)?;
                for key in &overdue {
                    batch.delete::<ToDeviceInbox>(key);
                }
                if overdue.len() >= AT_ONCE {
                    // There may be more of them.
                    break;
                }
                last = Some(device);
            }
            Ok::<_, StoreError>((batch, last))
        };
        let (batch, last) = self.0.store.read(read).await?;
        let done = batch.is_empty() && last.is_none();
        if !batch.is_empty() {
            self.0.store.commit(batch).await?;
        }
        *self.0.inboxes_tidied.lock() = last;
        Ok(!done)
    }

    /// Does one bounded piece of tidying of what other servers are to have, and have sent. Returns whether there may be more
    /// to do at once.
    pub async fn tidy_outbox(&self) -> Result<bool, Failure> {
        let now = self.0.clock.now();
        let e2ee = self.clone();
        let read = move |view: &View| {
            let mut batch = Batch::new();
            let mut more = false;
            for server in e2ee.servers_with_outbox(view)? {
                let server = server.to_string();
                let oldest = before(now, KEPT);
                let overdue = overdue::<ToDeviceOutbox>(view, &server, MOST_FOR_SERVER, oldest)?;
                for key in &overdue {
                    batch.delete::<ToDeviceOutbox>(key);
                }
                if overdue.len() >= AT_ONCE {
                    more = true;
                    break;
                }
            }
            let seen = Scan::all().until(&before(now, SEEN_KEPT).0).limit(AT_ONCE);
            let mut forgotten = 0;
            for key in view.keys::<ToDeviceSeenByTime>(seen) {
                let key = key?;
                batch.delete::<ToDeviceSeenByTime>(&key);
                let (_, server, id) = key;
                batch.delete::<ToDeviceSeen>(&(server, id));
                forgotten += 1;
            }
            Ok::<_, StoreError>((batch, more || forgotten == AT_ONCE))
        };
        let (batch, more) = self.0.store.read(read).await?;
        if !batch.is_empty() {
            self.0.store.commit(batch).await?;
        }
        Ok(more)
    }
}
