//! Who is there: presence, in memory only, with serials of its own for the readers.
//!
//! Spec: client-server API, "Presence".
//!
//! ```text
//! syncs, PUT /presence, what users do, time, other servers
//!        |
//!        v
//!   pending, collected for a moment --> rooms looked up once --> told under a serial --> /sync, other servers
//! ```
//!
//! What is told is told in rooms that have few enough members ([`PresenceOptions::max_room_members`]), so that nobody's
//! coming and going concerns thousands. The rooms of those who are there are remembered: readers look nothing up. Only the
//! status messages of users of this server are stored.
//!
//! After a restart nothing is known of anybody until he comes again. A client that came with an older token is told of
//! those who come; who went while the server was down stays as he was in clients that do not start anew.

mod book;
mod operations;
mod user;

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use myelin_data::{
    accounts::PresenceStatuses,
    rooms::{Heads, Membership, UserRooms},
    topic::Changed,
};
use myelin_store::{Observer, Scan, Store, StoreError, Topic, View};
use myelin_types::{Clock, Millis, Pos, RoomNum, UserNum};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use book::{Book, Found};
use user::{Status, User};

pub use book::Spread;
pub use operations::{PresenceError, RemotePresence};
pub use user::PresenceState;

/// The longest sleep, when there is nothing to wait for.
const LONGEST_SLEEP: Duration = Duration::from_mins(10);
/// The shortest sleep between two looks at the clock, which may be another than the runtime's.
const SHORTEST_SLEEP: Duration = Duration::from_millis(20);
/// How many rooms of a user are looked at. In further ones nobody is told of him.
const MOST_ROOMS: usize = 5_000;

/// What can be set about presence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PresenceOptions {
    /// Whether there is presence at all.
    pub enabled: bool,
    /// In rooms with more joined members than this nobody is told who is there.
    pub max_room_members: u64,
    /// Whether what other servers say of their users is taken.
    pub inbound: bool,
    /// Whether other servers are to be told of users of this one.
    pub outbound: bool,
    /// How many users are remembered, at [`PRESENCE_MEMORY`] each.
    pub most_users: usize,
}

/// What a user who is remembered takes in memory, in bytes: who is in few rooms and has few devices, as most are.
pub const PRESENCE_MEMORY: usize = 300;

impl Default for PresenceOptions {
    fn default() -> Self {
        Self {
            enabled: true,
            max_room_members: 200,
            inbound: true,
            outbound: true,
            most_users: 50_000,
        }
    }
}

/// How a user is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PresenceSnapshot {
    /// Whether he is there.
    pub state: PresenceState,
    /// Whether he is doing something just now.
    pub currently_active: bool,
    /// When he last did something, if that is known.
    pub last_active: Option<Millis>,
    /// What he wants others to read.
    pub status: Option<Arc<str>>,
}

/// How a user is, as it was last told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserPresence {
    /// Who.
    pub user: UserNum,
    /// The serial under which it was told.
    pub serial: u64,
    /// How he is.
    pub snapshot: PresenceSnapshot,
}

/// Who is called with everything that is told.
type Tell = dyn Fn(&Spread) + Send + Sync;

/// Who is there. Cheap to clone.
#[derive(Clone)]
pub struct Presence(Arc<Inner>);

struct Inner {
    store: Store,
    options: PresenceOptions,
    shared: Arc<Shared>,
    /// Held during a step, so that whoever asks for one finds done what was due.
    stepping: tokio::sync::Mutex<()>,
    observers: Mutex<Vec<Arc<Tell>>>,
    /// The serial of the last thing that other servers are to be told.
    outgoing: watch::Sender<u64>,
}

/// What the store's observer has: it must not hold the store.
struct Shared {
    clock: Arc<dyn Clock>,
    book: Mutex<Book>,
    /// There may be something to do sooner than the task thinks.
    moved: Notify,
}

/// A sync that is under way. When it is dropped, the sync is over.
pub struct Syncing {
    shared: Arc<Shared>,
    user: UserNum,
    device: String,
}

impl std::fmt::Debug for Syncing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Syncing").finish_non_exhaustive()
    }
}

impl Drop for Syncing {
    fn drop(&mut self) {
        let now = self.shared.clock.now();
        self.shared
            .change(|book| book.change(self.user, now, |user| user.end_sync(&self.device, now)));
    }
}

impl Shared {
    /// Changes the book, and calls the task if there is something to do sooner than before.
    fn change<T>(&self, change: impl FnOnce(&mut Book) -> T) -> T {
        let mut book = self.book.lock();
        let before = book.next_step();
        let result = change(&mut book);
        let next = book.next_step();
        drop(book);
        if next.is_some_and(|next| before.is_none_or(|before| next < before)) {
            self.moved.notify_one();
        }
        result
    }
}

impl Observer for Shared {
    // On the committer's thread: a look into a map for each user whose own rows changed.
    fn committed(&self, _: Pos, topics: &[Topic]) {
        for topic in topics {
            if let Some(Changed::User(user)) = Changed::from_topic(*topic) {
                let now = self.clock.now();
                self.change(|book| book.reconsider(user, now));
            }
        }
    }
}

impl Presence {
    /// Nobody is there. Serials start at the clock's milliseconds, so that they go on growing across restarts.
    pub(crate) fn new(store: Store, clock: Arc<dyn Clock>, options: PresenceOptions) -> Self {
        let serial = clock.now().0;
        let shared = Arc::new(Shared {
            clock,
            book: Mutex::new(Book::new(serial, options.most_users)),
            moved: Notify::new(),
        });
        let presence = Self(Arc::new(Inner {
            store,
            options,
            shared,
            stepping: tokio::sync::Mutex::default(),
            observers: Mutex::default(),
            outgoing: watch::Sender::new(serial),
        }));
        if options.enabled {
            let shared = Arc::clone(&presence.0.shared);
            presence.0.store.observe(shared as Arc<dyn Observer>);
            tokio::spawn(step_for_ever(Arc::downgrade(&presence.0)));
        }
        presence
    }

    /// Whether there is presence at all.
    pub fn is_enabled(&self) -> bool {
        self.0.options.enabled
    }

    /// Whether other servers are to be told of users of this one.
    pub fn is_outbound(&self) -> bool {
        self.is_enabled() && self.0.options.outbound
    }

    /// The serial of the last thing that was told. Greater after everything that is told, also across restarts.
    pub fn serial(&self) -> u64 {
        self.0.shared.book.lock().serial
    }

    /// What is to be told, by serial, to `reader`, who is in the rooms `joined` (ascending) and has been told everything up
    /// to `since`; without `since`, of everybody who is there. Of the rooms `entered` he has not been told anything.
    /// Reads nothing but memory.
    pub fn news(
        &self,
        reader: UserNum,
        since: Option<u64>,
        joined: &[RoomNum],
        entered: &[RoomNum],
    ) -> Vec<UserPresence> {
        let book = self.0.shared.book.lock();
        book.news(reader, since, joined, entered)
    }

    /// What other servers are to be told of users of this one after `since`, at most `most`, by the serials that it comes
    /// with; each with the user's rooms.
    pub fn outgoing(&self, since: u64, most: usize) -> Vec<(u64, UserPresence, Arc<[RoomNum]>)> {
        self.0.shared.book.lock().outgoing(since, most)
    }

    /// Changes when there is something to tell other servers.
    pub fn watch_outgoing(&self) -> watch::Receiver<u64> {
        self.0.outgoing.subscribe()
    }

    /// Calls `observer` with everything that is told. It must not block.
    pub fn observe(&self, observer: Arc<Tell>) {
        self.0.observers.lock().push(observer);
    }

    /// Notes that a device of a user of this server syncs, until what is returned is dropped. One that comes as offline
    /// does not want to be noticed.
    pub fn syncing(&self, user: UserNum, device: &str, state: PresenceState) -> Option<Syncing> {
        if !self.is_enabled() || state == PresenceState::Offline {
            return None;
        }
        let shared = &self.0.shared;
        let now = shared.clock.now();
        shared.change(|book| {
            book.change_or_add(user, now, User::local, |user| {
                user.begin_sync(device, state, now);
            });
        });
        Some(Syncing {
            shared: Arc::clone(shared),
            user,
            device: device.to_owned(),
        })
    }

    /// Notes that a user of this server did something. That makes him online, if he is there at all.
    pub fn acted(&self, user: UserNum, device: &str) {
        if !self.is_enabled() {
            return;
        }
        let now = self.0.shared.clock.now();
        self.0.shared.change(|book| book.acted(user, device, now));
    }

    /// Does what is due: tells what was collected, and what changes by time. Called by a task of its own; tests that turn
    /// the clock may call it too.
    pub async fn step(&self) {
        let Inner {
            store,
            options,
            shared,
            stepping,
            ..
        } = &*self.0;
        let _one_at_a_time = stepping.lock().await;
        let now = shared.clock.now();
        let (repeated, taken) = {
            let mut book = shared.book.lock();
            (book.expire(now), book.take_pending(now))
        };
        let mut news = Spread {
            outgoing: repeated,
            ..Spread::default()
        };
        if !taken.is_empty() {
            let asked = taken.clone();
            let most = options.max_room_members;
            match store.read(move |view| find(view, &asked, most)).await {
                Ok(found) => {
                    let told = shared.book.lock().tell(found, now);
                    news.rooms = told.rooms;
                    news.outgoing |= told.outgoing;
                }
                Err(error) => {
                    tracing::warn!(%error, "presence could not be told yet");
                    shared.book.lock().put_back(taken, now);
                }
            }
        }
        if news.outgoing {
            self.0.outgoing.send_replace(self.serial());
        }
        if !news.rooms.is_empty() {
            let observers = self.0.observers.lock().clone();
            for observer in observers {
                observer(&news);
            }
        }
    }
}

/// What the store knows of users of whom there is something to tell: each user's rooms are read once, and each room once
/// however many of them are in it.
fn find(view: &View, users: &[(UserNum, bool)], most: u64) -> Result<Vec<Found>, StoreError> {
    let mut found = Vec::with_capacity(users.len());
    let mut all: Vec<RoomNum> = Vec::new();
    for (user, lacks_status) in users {
        let mut rooms = Vec::new();
        for row in view.scan::<UserRooms>(Scan::prefix(user).limit(MOST_ROOMS)) {
            let ((_, room), relation) = row?;
            if relation.membership == Membership::Join {
                rooms.push(room);
            }
        }
        let status = if *lacks_status {
            let status = view.get::<PresenceStatuses>(user)?;
            Status::Known(status.map(|status| status.text.into()))
        } else {
            Status::Unread
        };
        all.extend(&rooms);
        found.push(Found {
            user: *user,
            rooms,
            status,
        });
    }
    all.sort_unstable();
    all.dedup();
    let heads = view.multi_get::<Heads>(&all)?;
    let small: Vec<RoomNum> = all
        .into_iter()
        .zip(heads)
        .filter(|(_, head)| head.as_ref().is_some_and(|head| head.joined <= most))
        .map(|(room, _)| room)
        .collect();
    for Found { rooms, .. } in &mut found {
        rooms.retain(|room| small.binary_search(room).is_ok());
    }
    Ok(found)
}

/// Does what is due in time, until nobody holds the presence any more.
async fn step_for_ever(inner: Weak<Inner>) {
    loop {
        let Some(presence) = inner.upgrade().map(Presence) else {
            return;
        };
        presence.step().await;
        let shared = Arc::clone(&presence.0.shared);
        drop(presence);
        let next = shared.book.lock().next_step();
        let now = shared.clock.now();
        let sleep = next.map_or(LONGEST_SLEEP, |next| next.since(now));
        let sleep = tokio::time::sleep(sleep.clamp(SHORTEST_SLEEP, LONGEST_SLEEP));
        tokio::select! {
            () = sleep => {}
            () = shared.moved.notified() => {}
        }
    }
}
