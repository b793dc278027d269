//! The inbox of a device, as its syncs read it.

use myelin_data::e2ee::ToDeviceInbox;
use myelin_rooms::token::InboxPlace;
use myelin_store::{Batch, Scan, StoreError, View};
use myelin_types::{Pos, UserNum};
use serde_json::value::RawValue;

use crate::E2ee;

/// How many messages a sync tells at most. The next one goes on.
pub const MOST_TOLD: usize = 100;

type Key = (UserNum, String, Pos, u32);

/// What a sync finds in a device's inbox.
#[derive(Clone, Debug, Default)]
pub struct Inbox {
    /// The oldest messages that the client does not know, at most [`MOST_TOLD`], in their order.
    pub events: Vec<Box<RawValue>>,
    /// The last of them, if there are more after it.
    pub cut_at: Option<InboxPlace>,
    /// Those that the client has said it has: what the last sync told, and what deletions that failed have left.
    acknowledged: Vec<Key>,
}

impl Inbox {
    /// Whether something of it is to be deleted.
    pub fn has_acknowledged(&self) -> bool {
        !self.acknowledged.is_empty()
    }
}

impl E2ee {
    /// The inbox of a device, for a client that knows everything up to `since`; none for one that knows nothing.
    pub fn inbox(
        &self,
        view: &View,
        user: UserNum,
        device_id: &str,
        since: Option<InboxPlace>,
    ) -> Result<Inbox, StoreError> {
        let mut inbox = Inbox::default();
        let mut last = None;
        for row in view.scan::<ToDeviceInbox>(Scan::prefix(&(user, device_id.to_owned()))) {
            let (key, message) = row?;
            let (.., pos, index) = key;
            let place = InboxPlace { pos, index };
            if since.is_some_and(|since| place <= since) {
                inbox.acknowledged.push(key);
                continue;
            }
            if inbox.events.len() == MOST_TOLD {
                inbox.cut_at = last;
                break;
            }
            inbox.events.push(message.json.0);
            last = Some(place);
        }
        Ok(inbox)
    }

    /// Deletes what an inbox has that its client has acknowledged. Nobody need wait for that: what a lost deletion leaves is
    /// found, and not told, by the next sync.
    pub fn delete_acknowledged(&self, inbox: &Inbox) {
        let mut batch = Batch::new();
        for key in &inbox.acknowledged {
            batch.delete::<ToDeviceInbox>(key);
        }
        if batch.is_empty() {
            return;
        }
        let commit = self.0.store.commit(batch);
        self.0.tasks.spawn(async move {
            if let Err(error) = commit.await {
                tracing::warn!(%error, "delivered messages to a device were not deleted");
            }
        });
    }
}
