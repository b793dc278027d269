//! What waits for other servers. Who sends it is told of it, and says what was taken.

use std::sync::{Arc, OnceLock};

use myelin_data::e2ee::ToDeviceOutbox;
use myelin_store::{Batch, CommitError, Scan, StoreError, View};
use myelin_types::Pos;
use ruma::{OwnedServerName, ServerName};
use serde_json::value::RawValue;

use crate::E2ee;

type Teller = Arc<dyn Fn(&ServerName) + Send + Sync>;

/// Who is told that something waits for a server.
#[derive(Default)]
pub(crate) struct Outbox {
    teller: OnceLock<Teller>,
}

impl Outbox {
    /// Whether anybody takes what is put there.
    pub(crate) fn is_served(&self) -> bool {
        self.teller.get().is_some()
    }

    pub(crate) fn tell(&self, server: &ServerName) {
        if let Some(teller) = self.teller.get() {
            teller(server);
        }
    }
}

/// Where a message stands in the outbox of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OutboxPlace {
    pos: Pos,
    index: u32,
}

/// A message for another server.
#[derive(Clone, Debug)]
pub struct OutboxMessage {
    /// Where it stands.
    pub place: OutboxPlace,
    /// The content of an `m.direct_to_device` EDU.
    pub content: Box<RawValue>,
}

impl E2ee {
    /// From now on messages for users of other servers are kept for these, and `teller` is told of each server for which
    /// there are new ones, when they are durable. Before this is called they are passed over. Only the first call counts.
    pub fn serve_outbox(&self, teller: impl Fn(&ServerName) + Send + Sync + 'static) {
        let _ = self.0.outbox.teller.set(Arc::new(teller));
    }

    /// The servers for which something waits. One look for each of them.
    pub fn servers_with_outbox(&self, view: &View) -> Result<Vec<OwnedServerName>, StoreError> {
        let mut servers = Vec::new();
        let mut rest = Scan::all();
        while let Some(key) = view.keys::<ToDeviceOutbox>(rest.limit(1)).next() {
            let (server, ..) = key?;
            rest = Scan::all().after(&server);
            if let Ok(server) = OwnedServerName::try_from(server) {
                servers.push(server);
            }
        }
        Ok(servers)
    }

    /// The oldest messages for a server: at most so many, and not more than so many bytes unless it is a single one.
    pub fn outbox(
        &self,
        view: &View,
        server: &ServerName,
        most: usize,
        bytes: usize,
    ) -> Result<Vec<OutboxMessage>, StoreError> {
        let mut messages = Vec::new();
        let mut size = 0;
        let all = Scan::prefix(&server.as_str().to_owned());
        for row in view.scan::<ToDeviceOutbox>(all.limit(most)) {
            let ((_, pos, index), message) = row?;
            size += message.json.get().len();
            if size > bytes && !messages.is_empty() {
                break;
            }
            messages.push(OutboxMessage {
                place: OutboxPlace { pos, index },
                content: message.json.0,
            });
        }
        Ok(messages)
    }

    /// A server has taken messages: they go.
    pub async fn delete_sent(
        &self,
        server: &ServerName,
        places: &[OutboxPlace],
    ) -> Result<(), CommitError> {
        let mut batch = Batch::new();
        for OutboxPlace { pos, index } in places {
            batch.delete::<ToDeviceOutbox>(&(server.to_string(), *pos, *index));
        }
        self.0.store.commit(batch).await.map(drop)
    }
}
