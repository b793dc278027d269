//! A server's keys for one test.

use std::sync::Arc;

use myelin_data::Interner;
use myelin_e2ee::E2ee;
use myelin_rooms::{Options as RoomOptions, Rooms};
use myelin_rules::{Signer, SigningKey};
use myelin_store::{Options, Store};
use myelin_types::{Clock, Millis, MockClock, Random, SeededRandom};
use ruma::server_name;
use tempfile::TempDir;

/// Keys with their directory, which goes when the test ends.
pub(crate) struct Server {
    pub(crate) e2ee: E2ee,
    pub(crate) store: Store,
    pub(crate) _dir: TempDir,
}

pub(crate) async fn server() -> Server {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let options = Options {
        memory_budget: 64 << 20,
        product: myelin_data::PRODUCT,
        schema: myelin_data::SCHEMA,
        tables: myelin_data::tables(),
    };
    let store = Store::open(dir.path(), options).expect("a new directory opens");
    let interner = Interner::open(store.clone()).await.expect("opens");
    let clock: Arc<dyn Clock> = Arc::new(MockClock::new(Millis(1_700_000_000_000)));
    let random: Arc<dyn Random> = Arc::new(SeededRandom::new(1));
    let name = server_name!("hs1");
    let key = SigningKey::generate(&SeededRandom::new(0));
    let rooms = Rooms::open(
        store.clone(),
        interner,
        Arc::new(Signer::new(name.as_str(), key)),
        name.to_owned(),
        Arc::clone(&clock),
        Arc::clone(&random),
        RoomOptions::default(),
    );
    Server {
        e2ee: E2ee::new(rooms, clock, random),
        store,
        _dir: dir,
    }
}
