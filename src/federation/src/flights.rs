//! One request at a time for each server: who comes second waits and finds the first one's answer.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use parking_lot::Mutex;
use ruma::{OwnedServerName, ServerName};
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

/// The requests under way. As many entries as there are requests, plus leftovers that the next request clears away.
#[derive(Debug, Default)]
pub(crate) struct Flights {
    by_server: Mutex<HashMap<OwnedServerName, Weak<AsyncMutex<()>>>>,
}

impl Flights {
    /// Waits until nobody else asks `server`; others wait until the guard is dropped.
    pub(crate) async fn board(&self, server: &ServerName) -> OwnedMutexGuard<()> {
        let flight = {
            let mut flights = self.by_server.lock();
            if let Some(flight) = flights.get(server).and_then(Weak::upgrade) {
                flight
            } else {
                flights.retain(|_, flight| flight.strong_count() > 0);
                let flight = Arc::default();
                flights.insert(server.to_owned(), Arc::downgrade(&flight));
                flight
            }
        };
        flight.lock_owned().await
    }
}
