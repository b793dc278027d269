//! A server's accounts for one test.

use std::{path::Path, sync::Arc, time::Duration};

use myelin_accounts::{
    Accounts, HashCost, Identifier, Login, LoginError, NewSession, Passed, Registered, Registering,
    Registration, Secret, Session, Settings,
};
use myelin_data::Interner;
use myelin_store::{Options, Store};
use myelin_types::{Millis, MockClock, SeededRandom};
use ruma::server_name;
use tempfile::TempDir;

pub(crate) const PASSWORD: &str = "sUp3rs3kr1t";

/// Accounts with their directory, which goes when the test ends.
pub(crate) struct Server {
    pub(crate) accounts: Accounts,
    pub(crate) clock: Arc<MockClock>,
    pub(crate) store: Store,
    pub(crate) dir: TempDir,
}

/// The cheapest settings that mean the same.
pub(crate) fn settings() -> Settings {
    Settings {
        server_name: server_name!("hs1").to_owned(),
        registration: Registration::Open,
        password_min_length: 8,
        access_token_lifetime: Duration::from_mins(5),
        hash_cost: HashCost {
            memory_kib: 8,
            passes: 1,
        },
        hashes_at_once: 2,
        uia_lifetime: Duration::from_mins(30),
        remembered_sessions: 1000,
        remembered_rulesets: 100,
    }
}

pub(crate) async fn server() -> Server {
    server_with(settings()).await
}

pub(crate) async fn server_with(settings: Settings) -> Server {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let clock = Arc::new(MockClock::new(Millis(1_700_000_000_000)));
    let (accounts, store) = open(dir.path(), Arc::clone(&clock), settings, 1).await;
    Server {
        accounts,
        clock,
        store,
        dir,
    }
}

async fn open(
    dir: &Path,
    clock: Arc<MockClock>,
    settings: Settings,
    seed: u64,
) -> (Accounts, Store) {
    let options = Options {
        memory_budget: 32 << 20,
        product: myelin_data::PRODUCT,
        schema: myelin_data::SCHEMA,
        tables: myelin_data::tables(),
    };
    let store = Store::open(dir, options).expect("the directory opens");
    let interner = Interner::open(store.clone()).await.expect("interner opens");
    let random = Arc::new(SeededRandom::new(seed));
    let accounts = Accounts::open(store.clone(), interner, clock, random, settings)
        .expect("the settings are possible");
    (accounts, store)
}

impl Server {
    /// The same server after a restart.
    pub(crate) async fn restart(self) -> Server {
        let settings = self.accounts.settings().clone();
        drop(self.accounts);
        self.store.close();
        drop(self.store);
        let (accounts, store) = open(self.dir.path(), Arc::clone(&self.clock), settings, 2).await;
        Server {
            accounts,
            clock: self.clock,
            store,
            dir: self.dir,
        }
    }

    pub(crate) async fn register(&self, name: &str) -> Registered {
        self.accounts
            .register(registering(name), Passed::default())
            .await
            .expect("the name is free")
    }

    /// A session of a new user.
    pub(crate) async fn session_of(&self, name: &str) -> Session {
        self.register(name).await.session.expect("one was wanted")
    }

    pub(crate) async fn login(&self, name: &str, password: &str) -> Result<Session, LoginError> {
        self.login_with(name, password, NewSession::default()).await
    }

    pub(crate) async fn login_with(
        &self,
        name: &str,
        password: &str,
        session: NewSession,
    ) -> Result<Session, LoginError> {
        self.accounts
            .login(Login {
                identifier: Identifier::User(name.to_owned()),
                password: Secret::new(password),
                session,
            })
            .await
    }

    /// Whether a token lets somebody in.
    pub(crate) async fn lets_in(&self, token: &Secret) -> bool {
        self.accounts
            .authenticate(token.expose(), None)
            .await
            .is_ok()
    }
}

pub(crate) fn registering(name: &str) -> Registering {
    Registering {
        username: Some(name.to_owned()),
        password: Some(Secret::new(PASSWORD)),
        session: Some(NewSession::default()),
    }
}

pub(crate) fn device(id: &str) -> NewSession {
    NewSession {
        device_id: Some(id.to_owned()),
        ..NewSession::default()
    }
}

pub(crate) fn refreshable() -> NewSession {
    NewSession {
        refreshable: true,
        ..NewSession::default()
    }
}
