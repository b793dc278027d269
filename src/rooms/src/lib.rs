//! Rooms: the one pipeline through which events enter, membership, aliases, receipts, typing, presence, and the reads of
//! it all.
//!
//! Is: every operation on a room, and the decoded state of the rooms that are in use.
//! Is not: aware of HTTP, of accounts and their profiles (callers pass those in), or of what a sync looks like.
//!
//! Operations that write run in a task of their own: they complete even if the caller goes away. They answer when
//! their batch is durable.

mod aliases;
mod create;
mod directory;
mod error;
mod event;
mod head;
mod log;
mod membership;
mod partial;
mod pipeline;
mod positions;
mod presence;
mod receipts;
mod redact;
mod send;
mod servers;
mod thread;
mod transaction;
mod typing;

pub mod doctor;
pub mod read;
pub mod remote;
pub mod token;

pub use aliases::{CanonicalAliasError, CreateAliasError, DeleteAliasError, ListAliasesError};
pub use create::{CreateRoom, CreateRoomError, Invitee, Preset, StateDraft, Visibility};
pub use directory::SetVisibilityError;
pub use error::{AppendError, Failure};
pub use event::{Event, TreeNodes};
pub use membership::{
    Enter, ForgetError, Invite, InviteError, JoinError, KnockError, LeaveError, Moderate,
    ModerateError, Profile,
};
pub use partial::Completeness;
pub use pipeline::NOTIFYING_TYPES;
pub use positions::RoomPositions;
pub use presence::{
    PRESENCE_MEMORY, Presence, PresenceError, PresenceOptions, PresenceSnapshot, PresenceState,
    RemotePresence, Spread, Syncing, UserPresence,
};
pub use receipts::{NewReceipt, ReceiptError, Thread};
pub use redact::{Redact, RedactError};
pub use send::{SendError, SendMessage, SendState};
pub use transaction::{TransactionGuard, TransactionId};
pub use typing::{Typing, TypingError, TypingSnapshot};

use std::{
    future::Future,
    sync::{Arc, OnceLock, atomic::AtomicU64},
    time::Duration,
};

use myelin_data::{Interner, rooms::Room};
use myelin_rules::{RoomVersion, Signer};
use myelin_state::{ChainCache, NodeCache};
use myelin_store::{Store, StoreError, View};
use myelin_types::{Clock, Random, RoomNum};
use ruma::{OwnedServerName, RoomId, ServerName, UserId};
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

pub use myelin_rules::Object as JsonObject;

/// How long a stop waits for what was begun: for the slowest of disks, and not for other servers.
const DRAIN: Duration = Duration::from_secs(10);

/// What can be set about how rooms work.
#[derive(Clone, Debug)]
pub struct Options {
    /// The version of rooms whose creator names none.
    pub default_room_version: RoomVersion,
    /// How many bytes of decoded events are kept in memory.
    pub event_cache_bytes: u64,
    /// How many bytes of decoded nodes of state trees, and of auth chains, are kept in memory.
    pub node_cache_bytes: usize,
    /// How many rooms' decoded states are kept in memory when nothing is being written to them; up to [`ROOM_MEMORY`] each,
    /// but for rooms with thousands of power levels.
    pub idle_rooms: usize,
    /// Who is told of whom that he is there.
    pub presence: PresenceOptions,
    /// How much of what other servers sent may wait to be judged.
    pub inbox: remote::InboxLimits,
}

/// What the decoded state of a room takes in memory, in bytes: a dozen events.
pub const ROOM_MEMORY: usize = 32 << 10;

/// All rooms of the server. Cheap to clone; every clone is the same server.
#[derive(Clone)]
pub struct Rooms(Arc<Inner>);

struct Inner {
    store: Store,
    interner: Interner,
    signer: Arc<Signer>,
    server_name: OwnedServerName,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    options: Options,
    events: event::EventCache,
    nodes: NodeCache,
    chains: ChainCache,
    /// The turns of state resolutions, of all rooms.
    resolving: Semaphore,
    slots: pipeline::Slots,
    positions: Arc<positions::Positions>,
    partial: partial::PartialRooms,
    transactions: transaction::InFlight,
    receipt_locks: receipts::ReceiptLocks,
    inbox: remote::Inbox,
    awaiting: remote::Awaiting,
    policies: OnceLock<Arc<dyn remote::AskPolicy>>,
    typing: Typing,
    presence: Presence,
    /// When the newest room was made, in milliseconds: see `creation_time`.
    last_creation: AtomicU64,
    tasks: TaskTracker,
}

/// How many states are resolved at the same time: half of the processors work for contested rooms at most.
fn resolutions_at_once() -> usize {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    (processors / 2).max(1)
}

impl Default for Options {
    fn default() -> Self {
        Self {
            default_room_version: RoomVersion::DEFAULT,
            event_cache_bytes: 64 << 20,
            node_cache_bytes: 32 << 20,
            idle_rooms: 10_000,
            presence: PresenceOptions::default(),
            inbox: remote::InboxLimits::default(),
        }
    }
}

impl std::fmt::Debug for Rooms {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rooms").finish_non_exhaustive()
    }
}

/// A room that this server knows, with what never changes about it.
#[derive(Clone, Debug)]
pub struct RoomHandle {
    /// Its number.
    pub num: RoomNum,
    /// Its row: id, version as text, when it was met.
    pub room: Arc<Room>,
    /// Its version.
    pub version: RoomVersion,
}

impl RoomHandle {
    /// The room's id.
    pub fn room_id(&self) -> &RoomId {
        <&RoomId>::try_from(self.room.room_id.as_str())
            .expect("a room's row is written from a room id")
    }
}

/// The rooms whose state is not whole. If they cannot be read now, they are when first asked for.
fn partial_rooms(store: &Store) -> partial::PartialRooms {
    let partial = partial::PartialRooms::default();
    if let Err(error) = partial.load(&store.view()) {
        tracing::error!(%error, "rooms whose state is incomplete could not be read");
    }
    partial
}

impl Rooms {
    /// Opens the rooms of a database.
    ///
    /// `signer` signs events as `server_name`. Must be called within a tokio runtime.
    pub fn open(
        store: Store,
        interner: Interner,
        signer: Arc<Signer>,
        server_name: OwnedServerName,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
        options: Options,
    ) -> Rooms {
        let positions = Arc::new(positions::Positions::new(store.watermark()));
        store.observe(Arc::clone(&positions) as Arc<dyn myelin_store::Observer>);
        Rooms(Arc::new(Inner {
            events: event::EventCache::new(options.event_cache_bytes),
            nodes: NodeCache::new(options.node_cache_bytes / 4 * 3),
            chains: ChainCache::new(options.node_cache_bytes / 4),
            resolving: Semaphore::new(resolutions_at_once()),
            slots: pipeline::Slots::new(options.idle_rooms),
            positions,
            partial: partial_rooms(&store),
            transactions: transaction::InFlight::default(),
            receipt_locks: receipts::ReceiptLocks::default(),
            inbox: remote::Inbox::new(options.inbox),
            awaiting: remote::Awaiting::default(),
            policies: OnceLock::new(),
            typing: Typing::new(Arc::clone(&clock)),
            presence: Presence::new(store.clone(), Arc::clone(&clock), options.presence),
            last_creation: AtomicU64::new(0),
            tasks: TaskTracker::new(),
            store,
            interner,
            signer,
            server_name,
            clock,
            random,
            options,
        }))
    }

    /// The store, for reads of one's own: take one [`View`] and read everything from it.
    pub fn store(&self) -> &Store {
        &self.0.store
    }

    /// The interner.
    pub fn interner(&self) -> &Interner {
        &self.0.interner
    }

    /// The name of this server.
    pub fn server_name(&self) -> &ServerName {
        &self.0.server_name
    }

    /// What time it is.
    pub fn clock(&self) -> &dyn Clock {
        &*self.0.clock
    }

    /// Whether a user belongs to this server.
    pub fn is_local(&self, user: &UserId) -> bool {
        user.server_name() == self.0.server_name
    }

    /// Who types where.
    pub fn typing(&self) -> &Typing {
        &self.0.typing
    }

    /// Who is there.
    pub fn presence(&self) -> &Presence {
        &self.0.presence
    }

    /// The room of an id, if this server knows it.
    pub fn find(&self, view: &View, room: &RoomId) -> Result<Option<RoomHandle>, StoreError> {
        match self.0.interner.find_room(view, room)? {
            Some(num) => self.handle(view, num).map(Some),
            None => Ok(None),
        }
    }

    /// The room of a number.
    pub fn handle(&self, view: &View, room: RoomNum) -> Result<RoomHandle, StoreError> {
        let row = self.0.interner.room(view, room)?;
        Ok(RoomHandle {
            num: room,
            version: event::stored_version(&row.version)?,
            room: row,
        })
    }

    /// The room of an id, from the newest view.
    pub(crate) async fn find_now(&self, room: &RoomId) -> Result<Option<RoomHandle>, StoreError> {
        let (rooms, room) = (self.clone(), room.to_owned());
        self.0.store.read(move |view| rooms.find(view, &room)).await
    }

    /// The room of a number, from the newest view.
    pub(crate) async fn handle_now(&self, room: RoomNum) -> Result<RoomHandle, StoreError> {
        let rooms = self.clone();
        self.0
            .store
            .read(move |view| rooms.handle(view, room))
            .await
    }

    /// How many bytes the caches of decoded events and of state nodes take.
    pub fn cached_bytes(&self) -> (u64, u64) {
        let nodes = self.0.nodes.used() + self.0.chains.used();
        (self.0.events.used(), nodes as u64)
    }

    /// Waits until everything that was begun is durable or has failed, some seconds at most: what waits for other servers
    /// may take minutes, and has written nothing yet. New operations must no longer be started.
    pub async fn drain(&self) {
        self.0.tasks.close();
        if tokio::time::timeout(DRAIN, self.0.tasks.wait())
            .await
            .is_err()
        {
            tracing::info!("work in rooms was cut off");
        }
    }

    /// Runs an operation in a task of its own, so that it completes even if nobody waits for it any more.
    async fn run<T, E>(
        &self,
        work: impl Future<Output = Result<T, E>> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Failure> + Send + 'static,
    {
        match self.0.tasks.spawn(work.in_current_span()).await {
            Ok(result) => result,
            Err(_) => Err(Failure::CutShort.into()),
        }
    }
}
