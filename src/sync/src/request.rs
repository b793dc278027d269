//! What a client asks of `/sync`.

use std::{sync::Arc, time::Duration};

use myelin_rooms::{read::Viewer, token::SyncToken};
use ruma::api::client::filter::{FilterDefinition, LazyLoadOptions};

/// The parameters of `GET /sync`, parsed; `set_presence` is not among them, since an answer does not depend on it.
#[derive(Clone, Debug)]
pub struct SyncRequest {
    /// Who asks, with his device.
    pub viewer: Viewer,
    /// The `next_batch` that he has; none for everything.
    pub since: Option<SyncToken>,
    /// The filter, given inline or by its id.
    pub filter: Arc<FilterDefinition>,
    /// Whether to return the whole state of all rooms, at once.
    pub full_state: bool,
    /// How long to wait for something new.
    pub timeout: Duration,
    /// Whether to return the state after the timeline rather than before it.
    pub use_state_after: bool,
}

impl SyncRequest {
    /// Whether the members of rooms are told only as they are needed.
    pub(crate) fn loads_members_lazily(&self) -> bool {
        matches!(
            self.filter.room.state.lazy_load_options,
            LazyLoadOptions::Enabled { .. }
        )
    }
}
