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
mod changes;
mod device_lists;
mod ends;
mod ephemeral;
mod hub;
mod ignored;
mod inboxes;
mod joined;
mod key_counts;
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

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use myelin_accounts::Accounts;
use myelin_data::rooms::{Membership, UserRooms};
use myelin_e2ee::E2ee;
use myelin_rooms::{Rooms, read::Viewer, token::SyncToken};
use myelin_store::{Scan, StoreError, View};
use myelin_types::{Pos, RoomNum, UserNum};
use thiserror::Error;
use tokio::time::Instant;

use self::{
    answer::{Answer, Basis, Notes},
    device_lists::News,
    ends::Ends,
    hub::Hub,
    inboxes::Inboxes,
    key_counts::KeyCountsCache,
    lazy::{LazyMembers, Members, Telling},
    relations::{Relations, RelationsCache},
    unread::UnreadCache,
};

/// How an answer is told, and what may be remembered of it.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How many bytes may be remembered of those who sync, about, besides what is needed for those who wait just now.
    pub memory: usize,
    /// The bytes of events from which on a part of an answer is complete; a room is never divided. The parts of a large
    /// answer are made one after the other, as they are sent.
    pub part_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            memory: 16 << 20,
            part_bytes: 128 << 10,
        }
    }
}

/// The longest that a client may take for one answer. Meanwhile the store keeps the rows that it is read from.
const LONGEST: Duration = Duration::from_mins(10);

/// For how many rooms people are called when device lists change. For more, everybody is.
const MOST_CALLED: usize = 10_000;

/// The read side of the server. Cheap to clone.
#[derive(Clone)]
pub struct Sync(Arc<Inner>);

struct Inner {
    rooms: Rooms,
    accounts: Accounts,
    e2ee: E2ee,
    hub: Arc<Hub>,
    relations: Arc<RelationsCache>,
    inboxes: Arc<Inboxes>,
    device_news: Arc<News>,
    key_counts: Arc<KeyCountsCache>,
    lazy: LazyMembers,
    unread: UnreadCache,
    part_bytes: usize,
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
    /// The client has not taken the parts of the answer in time.
    #[error("the client is too slow")]
    TooSlow,
}

impl Sync {
    /// The read side of `rooms`. One for each store: it observes the store, typing and presence from now on.
    pub fn new(rooms: Rooms, accounts: Accounts, e2ee: E2ee) -> Sync {
        Self::with_options(rooms, accounts, e2ee, Options::default())
    }

    /// The same, with these options.
    pub fn with_options(rooms: Rooms, accounts: Accounts, e2ee: E2ee, options: Options) -> Sync {
        let store = rooms.store().clone();
        let quarter = options.memory / 4;
        let hub = Arc::new(Hub::new(quarter));
        let relations = Arc::new(RelationsCache::new(quarter));
        let sixteenth = options.memory / 16;
        let inboxes = Arc::new(Inboxes::new(sixteenth));
        let device_news = Arc::new(News::new(sixteenth));
        let key_counts = Arc::new(KeyCountsCache::new(sixteenth));
        // The caches must know of a change before a waiter that it wakes reads.
        store.observe(Arc::clone(&relations) as _);
        store.observe(Arc::clone(&inboxes) as _);
        store.observe(Arc::clone(&device_news) as _);
        store.observe(Arc::clone(&key_counts) as _);
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
        inboxes.start(store.watermark());
        device_news.start(store.watermark());
        key_counts.start(store.watermark());
        Sync(Arc::new(Inner {
            rooms,
            accounts,
            e2ee,
            hub,
            relations,
            inboxes,
            device_news,
            key_counts,
            lazy: LazyMembers::new(quarter),
            unread: UnreadCache::new(quarter),
            part_bytes: options.part_bytes,
            stopping: AtomicBool::new(false),
        }))
    }

    /// What is new for a user, all of it at once.
    pub async fn sync(&self, request: SyncRequest) -> Result<Response, SyncError> {
        let (mut response, mut rest) = self.begin(request).await?;
        while let Some(rooms) = rest.next().await? {
            response.rooms.extend(rooms);
        }
        Ok(response)
    }

    /// What is new for a user: the beginning of the answer, and what makes the parts that remain. Waits up to the request's
    /// timeout for something to be new, unless everything is asked for.
    pub async fn begin(&self, request: SyncRequest) -> Result<(Response, Rest), SyncError> {
        let deadline = Instant::now() + request.timeout;
        // A seat first, then the reading: what happens in between is not missed.
        let mut seat = self.0.hub.sit(request.viewer.user);
        let at_once = request.since.is_none() || request.full_state || request.timeout.is_zero();
        let mut since = request.since;
        let request = Arc::new(request);
        loop {
            seat.note();
            let (view, answer) = self.answer(Arc::clone(&request), since).await?;
            if let Some(inbox) = &answer.inbox {
                self.0.settle_inbox(&request.viewer, inbox);
            }
            if at_once || !answer.has_nothing() {
                return Ok(self.deliver(request, view, answer));
            }
            let followed = self.0.hub.follow(request.viewer.user, &answer.relations);
            // There was nothing to tell, so that somebody who knew everything up to the old token knows everything up to
            // the new one.
            since = Some(answer.next);
            if followed {
                continue;
            }
            if self.0.stopping.load(Ordering::SeqCst) || !seat.called_before(deadline).await {
                return Ok(self.deliver(request, view, answer));
            }
        }
    }

    /// The device lists that a client has to ask for anew since `since`, and those that it need not follow any more.
    pub async fn device_lists(
        &self,
        viewer: Viewer,
        since: Pos,
    ) -> Result<DeviceLists, StoreError> {
        let sync = Arc::clone(&self.0);
        self.0
            .rooms
            .store()
            .read(move |view| {
                let relations = sync.relations.get(view, viewer.user)?;
                let since = since.min(view.pos());
                let ends = Ends::default();
                device_lists::since((&sync, view), &viewer, since, &relations, &ends)
            })
            .await
    }

    /// Calls those who wait when the device list of somebody changes with whom they share a room. Runs for as long as the
    /// server does.
    ///
    /// # Errors
    /// When the store cannot be read. What was to be done before is done by calling it again: then everybody is called.
    pub async fn call_for_device_lists(&self) -> Result<(), StoreError> {
        self.0.hub.wake_all();
        loop {
            let rooms = match self.0.hub.announced().await {
                Some(users) => self.rooms_of(users).await?,
                None => None,
            };
            match rooms {
                Some(rooms) => self.0.hub.wake_rooms(&rooms),
                None => self.0.hub.wake_all(),
            }
        }
    }

    /// The rooms that some users are in; None if they are very many.
    async fn rooms_of(
        &self,
        users: BTreeSet<UserNum>,
    ) -> Result<Option<BTreeSet<RoomNum>>, StoreError> {
        let store = self.0.rooms.store();
        store
            .read(move |view| {
                let mut rooms = BTreeSet::new();
                for user in &users {
                    for row in view.scan::<UserRooms>(Scan::prefix(user)) {
                        let ((_, room), relation) = row?;
                        if relation.membership == Membership::Join {
                            rooms.insert(room);
                        }
                        if rooms.len() > MOST_CALLED {
                            return Ok(None);
                        }
                    }
                }
                Ok(Some(rooms))
            })
            .await
    }

    /// Ends all waiting, now and later: the server is about to stop.
    pub fn stop_waiting(&self) {
        self.0.stopping.store(true, Ordering::SeqCst);
        self.0.hub.wake_all();
    }

    /// The beginning of an answer, and the view that the rest is to be read from, if there is more.
    async fn answer(
        &self,
        request: Arc<SyncRequest>,
        since: Option<SyncToken>,
    ) -> Result<(Option<View>, Answer), StoreError> {
        let sync = Arc::clone(&self.0);
        let store = self.0.rooms.store();
        let view = store.view();
        let answer = store
            .read_at(&view, move |view| {
                answer::answer(&sync, view, &request, since)
            })
            .await?;
        // The store keeps the rows for as long as there is a view, and whoever waits needs none.
        let view = (!answer.left.is_empty()).then_some(view);
        Ok((view, answer))
    }

    /// Remembers what the beginning of an answer has told and counted.
    fn deliver(
        &self,
        request: Arc<SyncRequest>,
        view: Option<View>,
        answer: Answer,
    ) -> (Response, Rest) {
        let mut rest = Rest {
            sync: self.clone(),
            telling: Some(Telling {
                since: request.since.map(|since| since.pos),
                next: answer.next.pos,
                members: request.loads_members_lazily().then(Members::default),
            }),
            reading: None,
            request,
        };
        rest.remember(answer.told);
        rest.reading = view.map(|view| Reading {
            view,
            basis: answer.basis,
            relations: answer.relations,
            rooms: answer.left.into(),
            told: 0,
            deadline: Instant::now() + LONGEST,
        });
        if rest.is_empty() {
            rest.end();
        }
        (answer.response, rest)
    }
}

/// What makes the rest of an answer, part by part.
pub struct Rest {
    sync: Sync,
    request: Arc<SyncRequest>,
    /// What is being told of members, until the answer is complete.
    telling: Option<Telling>,
    /// What is still to be read.
    reading: Option<Reading>,
}

/// The rows that an answer is read from, and how far it is.
struct Reading {
    view: View,
    basis: Arc<Basis>,
    relations: Arc<Relations>,
    rooms: Arc<[RoomNum]>,
    told: usize,
    deadline: Instant,
}

impl Rest {
    /// Whether there are no more parts.
    pub fn is_empty(&self) -> bool {
        self.reading.is_none()
    }

    /// The next part; None at the end. An answer counts as given when its last part was made.
    ///
    /// # Errors
    /// After an error there are no more parts: what the client has is not a whole answer.
    pub async fn next(&mut self) -> Result<Option<RoomsSection>, SyncError> {
        let Some(mut reading) = self.reading.take() else {
            return Ok(None);
        };
        if Instant::now() > reading.deadline {
            return Err(SyncError::TooSlow);
        }
        let store = self.sync.0.rooms.store();
        let part = {
            let (sync, request) = (Arc::clone(&self.sync.0), Arc::clone(&self.request));
            let (basis, relations) = (Arc::clone(&reading.basis), Arc::clone(&reading.relations));
            let (rooms, told) = (Arc::clone(&reading.rooms), reading.told);
            store.read_at(&reading.view, move |view| {
                let left = &rooms[told..];
                answer::more(&sync, view, &request, &basis, (&relations, left))
            })
        };
        let part = part.await?;
        reading.told += part.count;
        self.remember(part.told);
        if reading.told < reading.rooms.len() {
            self.reading = Some(reading);
        } else {
            self.end();
        }
        Ok(Some(part.rooms))
    }

    fn remember(&mut self, told: Notes) {
        let inner = &self.sync.0;
        let store = inner.rooms.store();
        inner
            .unread
            .remember(store, self.request.viewer.user, told.unread);
        let members = self.telling.as_mut().and_then(|told| told.members.as_mut());
        // More than are remembered of an answer need not be collected either.
        if let Some(members) = members
            && !inner.lazy.are_too_many(members)
        {
            members.extend(told.members);
        }
    }

    /// The answer is complete.
    fn end(&mut self) {
        if let Some(telling) = self.telling.take() {
            self.sync.0.lazy.remember(&self.request.viewer, telling);
        }
    }
}

impl std::fmt::Debug for Rest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rest").finish_non_exhaustive()
    }
}
