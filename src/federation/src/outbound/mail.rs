//! Messages to devices of other servers, made into EDUs. Spec: server-server API, "Send-to-device messaging".
//!
//! They stand in the outbox of their server, each under an id of its own that it keeps however often it is sent, and leave
//! it when a transaction was taken. They have their own order and wait for no event.

use std::sync::Arc;

use myelin_e2ee::{E2ee, OutboxMessage, OutboxPlace};
use myelin_store::{CommitError, StoreError, View};
use ruma::ServerName;
use serde_json::Value;

use super::{Outbound, durable::MESSAGES_AT_ONCE, ephemeral::Edu};
use crate::MAX_EDUS;

/// How many bytes of messages go with a transaction.
const MOST_BYTES: usize = 1 << 20;

/// Messages that go with a transaction.
#[derive(Default)]
pub(super) struct Mail {
    pub(super) edus: Vec<Edu>,
    places: Vec<OutboxPlace>,
    /// Whether there may be more.
    pub(super) more: bool,
}

impl Outbound {
    /// Has the messages of `e2ee` for other servers taken here. Holds on to nothing: whoever is told holds the messages.
    pub(crate) fn serve_outbox_of(&self, e2ee: &E2ee) {
        let outbound = Arc::downgrade(&self.0);
        e2ee.serve_outbox(move |server| {
            if let Some(outbound) = outbound.upgrade() {
                Outbound(outbound).messages(server);
            }
        });
    }

    /// Notes that there are messages in the outbox of a server.
    fn messages(&self, server: &ServerName) {
        self.with(|book| {
            let id = book.id(server);
            book.messages(id);
        });
        self.0.wake.notify_one();
    }

    /// Notes all servers for which something is in their outboxes.
    pub(super) async fn open_mail(&self) -> Result<(), StoreError> {
        let e2ee = self.0.e2ee.clone();
        let read = move |view: &View| e2ee.servers_with_outbox(view);
        for server in self.0.store.read(read).await? {
            self.messages(&server);
        }
        Ok(())
    }

    /// The oldest messages for a server. `alone`: nothing else goes with the transaction.
    pub(super) async fn mail(&self, server: &ServerName, alone: bool) -> Result<Mail, StoreError> {
        let most = if alone { MAX_EDUS } else { MESSAGES_AT_ONCE };
        let (e2ee, name) = (self.0.e2ee.clone(), server.to_owned());
        let read = move |view: &View| e2ee.outbox(view, &name, most, MOST_BYTES);
        let messages = self.0.store.read(read).await?;
        let mut mail = Mail {
            // The next look finds out.
            more: !messages.is_empty(),
            ..Mail::default()
        };
        for OutboxMessage { place, content } in messages {
            mail.places.push(place);
            match serde_json::from_str::<Value>(content.get()) {
                Ok(content) => mail.edus.push(Edu::new("m.direct_to_device", content)),
                Err(error) => tracing::error!(%server, %error, "a stored message is no JSON"),
            }
        }
        Ok(mail)
    }

    /// Deletes messages that have been taken.
    pub(super) async fn delete_mail(
        &self,
        server: &ServerName,
        mail: &Mail,
    ) -> Result<(), CommitError> {
        if mail.places.is_empty() {
            return Ok(());
        }
        self.0.e2ee.delete_sent(server, &mail.places).await
    }
}
