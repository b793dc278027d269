//! What clients need to encrypt for one another: keys of devices and users, device lists, messages to devices.
//!
//! Is: every operation on those, and what a sync says of them.
//! Is not: aware of HTTP, of how other servers are reached, or of what is encrypted.
//!
//! The server is trusted with order and with nothing else: a one-time key is handed out once, a message to a device is
//! delivered once, and nobody is told of a list that has changed later than of what depends on it.

use std::{fmt, sync::Arc};

use myelin_rooms::Rooms;
use myelin_store::Store;
use myelin_types::{Clock, Random};

/// The keys and device messages of one server. Cheap to clone.
#[derive(Clone)]
pub struct E2ee(Arc<Inner>);

struct Inner {
    store: Store,
    rooms: Rooms,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
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
        }))
    }
}
