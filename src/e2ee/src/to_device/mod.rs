//! Messages to devices. Spec: client-server API, "Send-to-Device messaging"; server-server API, the section of that name.
//!
//! Each device has an inbox, in the order in which messages came, and each other server an outbox ([`send`]). A sync shows
//! the oldest messages that its token does not know, and deletes those that it does ([`inbox`]): so a message is told until
//! the device says that it has it, and not once more. What comes from other servers is taken once for each id
//! ([`receive`]). Nobody waits for ever: [`tidy`] throws away what nobody fetches.

mod inbox;
mod outbox;
mod receive;
mod send;
#[cfg(test)]
mod tests;
mod tidy;

pub use inbox::{Inbox, MOST_TOLD};
pub(crate) use outbox::Outbox;
pub use outbox::{OutboxMessage, OutboxPlace};
pub use receive::RemoteMessage;
pub use send::{MAX_CONTENT, Recipient, SendToDevice, SendToDeviceError};

use std::collections::{BTreeMap, BTreeSet};

use myelin_data::{
    RawJson,
    accounts::Devices,
    e2ee::{DeviceMessage, ToDeviceInbox},
    topic::Changed,
};
use myelin_store::{Batch, Scan, StoreError, View};
use myelin_types::{Millis, Pos, UserNum};
use ruma::{OwnedUserId, UserId};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::E2ee;

/// The messages of one request or EDU: by user and device.
pub type Messages = BTreeMap<OwnedUserId, BTreeMap<Recipient, Box<RawValue>>>;

/// A message on its way to devices of this server, as `/sync` shows it.
#[derive(Serialize)]
struct Shown<'a> {
    content: &'a RawValue,
    sender: &'a UserId,
    r#type: &'a str,
}

/// Puts messages into the inboxes of devices, one batch's worth of them.
struct Deliveries {
    now: Millis,
    next: u32,
    touched: BTreeSet<UserNum>,
}

impl Deliveries {
    fn new(now: Millis) -> Self {
        Self {
            now,
            next: 0,
            touched: BTreeSet::new(),
        }
    }

    /// Puts a message into the inboxes of some devices of a user.
    fn add(&mut self, batch: &mut Batch, user: UserNum, devices: &[String], json: &RawJson) {
        for device in devices {
            let message = DeviceMessage {
                since: self.now,
                json: json.clone(),
            };
            let key = (user, device.clone(), Pos::AT_COMMIT, self.next);
            batch.put::<ToDeviceInbox>(&key, &message);
            self.next += 1;
        }
        if !devices.is_empty() && self.touched.insert(user) {
            batch.touch(Changed::ToDevice(user).into());
        }
    }
}

impl E2ee {
    /// The devices of a local user that a message is for: all of them, or the one that is named if it is there.
    fn recipients(
        view: &View,
        user: UserNum,
        recipient: &Recipient,
    ) -> Result<Vec<String>, StoreError> {
        match recipient {
            Recipient::All => view
                .keys::<Devices>(Scan::prefix(&user))
                .map(|key| Ok(key?.1))
                .collect(),
            Recipient::Device(device) => {
                let there = view.contains::<Devices>(&(user, device.clone()))?;
                Ok(there.then(|| device.clone()).into_iter().collect())
            }
        }
    }
}
