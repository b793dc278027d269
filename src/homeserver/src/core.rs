//! The parts that hold data, opened in their order; the running server and the operator's offline commands share them.

use std::sync::Arc;

use myelin_accounts::Accounts;
use myelin_client_api::{About, AppState, Limiter};
use myelin_config::Config;
use myelin_data::Interner;
use myelin_e2ee::E2ee;
use myelin_federation::{Federation, Parts};
use myelin_rooms::{PresenceOptions, Rooms};
use myelin_rules::RoomVersion;
use myelin_store::Store;
use myelin_sync::Sync;
use myelin_types::{Clock, Random, SystemClock, SystemRandom};

use crate::{
    data_dir::{DataDir, DataDirError},
    memory,
    signing::{self, SigningError},
};

/// Time and chance, as the server meets them.
#[derive(Clone)]
pub struct Surroundings {
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Where random bytes come from.
    pub random: Arc<dyn Random>,
}

impl Default for Surroundings {
    /// The system's clock and random source.
    fn default() -> Self {
        Self {
            clock: Arc::new(SystemClock),
            random: Arc::new(SystemRandom::new()),
        }
    }
}

impl std::fmt::Debug for Surroundings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Surroundings")
    }
}

/// Why the data could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The data directory or the signing key.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The database.
    #[error("open the database")]
    Store(#[from] myelin_store::OpenError),
    /// The keys that this server signed with before.
    #[error("read the earlier signing keys")]
    OldKeys(#[from] SigningError),
    /// The numbers of users, rooms and events.
    #[error("restore the counters")]
    Interner(#[from] myelin_data::interner::InternError),
    /// The accounts.
    #[error("open the accounts")]
    Accounts(#[from] myelin_accounts::OpenError),
    /// What makes requests to other servers.
    #[error("open the federation")]
    Federation(#[from] myelin_federation::ClientError),
    /// A task was cut short by the shutdown.
    #[error("the opening was interrupted")]
    Interrupted,
}

/// Store, rooms, accounts and what works together with other servers.
#[derive(Clone, Debug)]
pub struct Core {
    /// The database.
    pub store: Store,
    /// The rooms.
    pub rooms: Rooms,
    /// The accounts.
    pub accounts: Accounts,
    /// Keys of devices and users, and messages to devices.
    pub e2ee: E2ee,
    /// Other servers.
    pub federation: Federation,
    /// How many bytes may be remembered of those who sync.
    sync_memory: usize,
}

impl Core {
    /// Opens everything in the configured data directory, and makes it at the first start.
    pub async fn open(config: &Config, surroundings: &Surroundings) -> Result<Core, OpenError> {
        let Surroundings { clock, random } = surroundings;
        let name = &config.server.name;
        let shares = memory::Shares::of(memory::budget(&config.server));

        let data_dir = DataDir::open(&config.server.data_dir, name)?;
        let key = data_dir.signing_key(&**random)?;

        let store = {
            let database = data_dir.database();
            let options = myelin_store::Options {
                memory_budget: shares.store,
                product: myelin_data::PRODUCT,
                schema: myelin_data::SCHEMA,
                tables: myelin_data::tables(),
            };
            tokio::task::spawn_blocking(move || Store::open(&database, options))
                .await
                .map_err(|_| OpenError::Interrupted)??
        };
        let signer = signing::signer(&config.server, &store, key, &**clock).await?;
        let signer = Arc::new(signer);
        let interner = Interner::with_memory(store.clone(), shares.names).await?;
        let rooms = Rooms::open(
            store.clone(),
            interner.clone(),
            Arc::clone(&signer),
            name.clone(),
            Arc::clone(clock),
            Arc::clone(random),
            myelin_rooms::Options {
                default_room_version: default_room_version(config),
                event_cache_bytes: shares.events as u64,
                node_cache_bytes: shares.nodes,
                idle_rooms: shares.heads / myelin_rooms::ROOM_MEMORY,
                presence: PresenceOptions {
                    enabled: config.presence.enabled,
                    max_room_members: config.presence.max_room_members,
                    inbound: config.presence.inbound,
                    outbound: config.presence.outbound,
                    most_users: shares.presence / myelin_rooms::PRESENCE_MEMORY,
                },
                ..myelin_rooms::Options::default()
            },
        );
        let accounts = Accounts::open(
            store.clone(),
            interner,
            Arc::clone(clock),
            Arc::clone(random),
            myelin_accounts::Settings::new(name.clone(), &config.registration, &config.accounts)
                .within(shares.sessions, shares.hashes),
        )?;
        let e2ee = E2ee::new(rooms.clone(), Arc::clone(clock), Arc::clone(random));
        let parts = Parts {
            server_name: name.clone(),
            signer,
            memory: shares.federation,
            store: store.clone(),
            rooms: rooms.clone(),
            accounts: accounts.clone(),
            e2ee: e2ee.clone(),
            clock: Arc::clone(clock),
            random: Arc::clone(random),
        };
        let settings = config.federation.clone();
        // Certificates are read from files.
        let federation = tokio::task::spawn_blocking(move || Federation::new(&settings, parts))
            .await
            .map_err(|_| OpenError::Interrupted)??;
        Ok(Core {
            store,
            rooms,
            accounts,
            e2ee,
            federation,
            sync_memory: shares.sync,
        })
    }

    /// What endpoints and operators' commands work with.
    pub(crate) fn app_state(&self, config: &Config) -> AppState {
        let well_known = &config.well_known;
        let about = About {
            client_base_url: well_known
                .client
                .as_ref()
                .or(config.server.public_base_url.as_ref())
                .cloned(),
            federation: well_known.server.clone(),
            support_page: well_known.support_page.clone(),
            support_contacts: well_known.support_contacts.clone(),
            default_room_version: default_room_version(config),
        };
        AppState {
            accounts: self.accounts.clone(),
            rooms: self.rooms.clone(),
            e2ee: self.e2ee.clone(),
            federation: self.federation.clone(),
            sync: Sync::with_options(
                self.rooms.clone(),
                self.accounts.clone(),
                self.e2ee.clone(),
                myelin_sync::Options {
                    memory: self.sync_memory,
                    ..myelin_sync::Options::default()
                },
            ),
            about: Arc::new(about),
            limiter: Arc::new(Limiter::new(&config.rate_limits)),
            max_body: config.limits.max_request_body.as_usize(),
            trusted_proxies: Arc::new(config.listen.trusted_proxies.clone()),
        }
    }

    /// Waits until all that was begun is durable, then closes the database, with everything in its files.
    pub async fn close(&self) {
        self.federation.drain().await;
        self.rooms.drain().await;
        self.e2ee.drain().await;
        let store = self.store.clone();
        tokio::task::spawn_blocking(move || {
            store.close();
            // What could not be brought into the files is in the log, and read from there at the next start.
            if let Err(error) = store.flush() {
                tracing::warn!(%error, "the log will be read again at the next start");
            }
        })
        .await
        .ok();
    }
}

fn default_room_version(config: &Config) -> RoomVersion {
    config
        .rooms
        .default_version
        .as_str()
        .parse()
        .expect("the configuration was validated")
}
