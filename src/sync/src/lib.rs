//! The read side: what is new for a user since a position.
//!
//! Is: the answer to `/sync`, the waiting for something to tell, and unread counts.
//! Is not: a writer of anything but what it counted; it knows no HTTP and changes no room.
//!
//! One answer is read from one view of the store, and its `next_batch` is that view's position. Work is proportional to
//! what changed: the user's rooms are remembered, each one's newest position is in memory, and only rooms that moved
//! are read ([`answer`]). Whoever waits has a seat in the [`hub`], which the store's observer calls on.

mod account_data;
mod answer;
mod ephemeral;
mod hub;
mod ignored;
mod joined;
mod lazy;
mod left;
mod pending;
mod presence;
mod relations;
mod request;
mod response;
mod state;
mod summary;
mod timeline;
mod unread;

pub use request::SyncRequest;
pub use response::{
    DeviceLists, Events, InvitedRoom, JoinedRoom, KnockedRoom, LeftRoom, Response, RoomsSection,
    Summary, Timeline, UnreadNotifications,
};

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use myelin_accounts::Accounts;
use myelin_rooms::{Rooms, token::SyncToken};
use myelin_store::StoreError;
use thiserror::Error;
use tokio::time::Instant;

use self::{hub::Hub, lazy::LazyMembers, relations::RelationsCache, unread::UnreadCache};

/// The read side of the server. Cheap to clone.
#[derive(Clone)]
pub struct Sync(Arc<Inner>);

struct Inner {
    rooms: Rooms,
    accounts: Accounts,
    hub: Arc<Hub>,
    relations: Arc<RelationsCache>,
    lazy: LazyMembers,
    unread: UnreadCache,
    /// Set when the server ends: nobody waits any more.
    stopping: AtomicBool,
}

impl std::fmt::Debug for Sync {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sync").finish_non_exhaustive()
    }
}

/// Why a sync was not answered.
#[derive(Debug, Error)]
pub enum SyncError {
    /// The store could not be read.
    #[error("read for a sync")]
    Store(#[from] StoreError),
}

/// What may be remembered of those who sync where nothing is said about it, in bytes.
const MEMORY: usize = 16 << 20;

impl Sync {
    /// The read side of `rooms`. One for each store: it observes the store, typing and presence from now on.
    pub fn new(rooms: Rooms, accounts: Accounts) -> Sync {
        Self::with_memory(rooms, accounts, MEMORY)
    }

    /// The read side of `rooms`, which may take about `memory` bytes for what it remembers of those who sync, besides what it
    /// needs for those who wait just now.
    pub fn with_memory(rooms: Rooms, accounts: Accounts, memory: usize) -> Sync {
        let store = rooms.store().clone();
        let quarter = memory / 4;
        let hub = Arc::new(Hub::new(quarter));
        let relations = Arc::new(RelationsCache::new(quarter));
        // The cache must know of a change before a waiter that it wakes reads.
        store.observe(Arc::clone(&relations) as _);
        store.observe(Arc::clone(&hub) as _);
        let woken = Arc::clone(&hub);
        rooms
            .typing()
            .observe(Arc::new(move |room| woken.wake_room(room)));
        let woken = Arc::clone(&hub);
        rooms
            .presence()
            .observe(Arc::new(move |news| woken.wake_rooms(&news.rooms)));
        relations.start(store.watermark());
        Sync(Arc::new(Inner {
            rooms,
            accounts,
            hub,
            relations,
            lazy: LazyMembers::new(quarter),
            unread: UnreadCache::new(quarter),
            stopping: AtomicBool::new(false),
        }))
    }

    /// What is new for a user. Waits up to the request's timeout for something to be new, unless everything is asked
    /// for.
    pub async fn sync(&self, request: SyncRequest) -> Result<Response, SyncError> {
        let deadline = Instant::now() + request.timeout;
        // A seat first, then the reading: what happens in between is not missed.
        let mut seat = self.0.hub.sit(request.viewer.user);
        let at_once = request.since.is_none() || request.full_state || request.timeout.is_zero();
        let mut since = request.since;
        let request = Arc::new(request);
        loop {
            seat.note();
            let answer = self.answer(Arc::clone(&request), since).await?;
            if at_once || !answer.response.has_nothing() {
                return Ok(self.deliver(&request, answer));
            }
            let followed = self.0.hub.follow(request.viewer.user, &answer.relations);
            // There was nothing to tell, so that somebody who knew everything up to the old token knows everything up to
            // the new one.
            since = Some(answer.next);
            if followed {
                continue;
            }
            if self.0.stopping.load(Ordering::SeqCst) || !seat.called_before(deadline).await {
                return Ok(self.deliver(&request, answer));
            }
        }
    }

    /// Ends all waiting, now and later: the server is about to stop.
    pub fn stop_waiting(&self) {
        self.0.stopping.store(true, Ordering::SeqCst);
        self.0.hub.wake_all();
    }

    async fn answer(
        &self,
        request: Arc<SyncRequest>,
        since: Option<SyncToken>,
    ) -> Result<answer::Answer, StoreError> {
        let sync = Arc::clone(&self.0);
        self.0
            .rooms
            .store()
            .read(move |view| answer::answer(&sync, view, &request, since))
            .await
    }

    /// Remembers what an answer that is given has told and counted.
    fn deliver(&self, request: &SyncRequest, answer: answer::Answer) -> Response {
        self.0.lazy.remember(&request.viewer, answer.lazy);
        self.0
            .unread
            .remember(self.0.rooms.store(), request.viewer.user, answer.unread);
        answer.response
    }
}
