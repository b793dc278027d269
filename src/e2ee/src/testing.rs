//! A server for tests: real rooms over a real store, users that are made without the trouble of registering, and users of
//! other servers in a room with them.

use std::sync::Arc;

use myelin_data::{
    Interner, Present,
    accounts::{Account, Accounts, Device, Devices},
    rooms::{Membership, Place, RoomMembers, UserRoom, UserRooms},
};
use myelin_rooms::{CreateRoom, Preset, Profile, Rooms};
use myelin_rules::{Signer, SigningKey};
use myelin_store::{Batch, Store};
use myelin_types::{
    Clock, EventNum, Millis, MockClock, Pos, Random, RoomNum, SeededRandom, UserNum,
};
use ruma::{OwnedUserId, UserId, owned_server_name};
use tempfile::TempDir;

use crate::E2ee;

/// When the tests take place.
pub(crate) const NOW: Millis = Millis(1_700_000_000_000);

/// The server under test, `here.example`.
pub(crate) struct World {
    pub(crate) e2ee: E2ee,
    pub(crate) rooms: Rooms,
    pub(crate) store: Store,
    pub(crate) clock: Arc<MockClock>,
    _dir: TempDir,
}

/// A user id of a name at a server.
pub(crate) fn id(user: &str) -> OwnedUserId {
    UserId::parse(user).expect("a user id")
}

impl World {
    pub(crate) async fn new() -> World {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let options = myelin_store::Options {
            memory_budget: 32 << 20,
            product: myelin_data::PRODUCT,
            schema: myelin_data::SCHEMA,
            tables: myelin_data::tables(),
        };
        let store = Store::open(dir.path(), options).expect("a new directory opens");
        let interner = Interner::open(store.clone()).await.expect("opens");
        let clock = Arc::new(MockClock::new(NOW));
        let random: Arc<dyn Random> = Arc::new(SeededRandom::new(1));
        let signer = Signer::new("here.example", SigningKey::from_seed("here", [1; 32]));
        let rooms = Rooms::open(
            store.clone(),
            interner,
            Arc::new(signer),
            owned_server_name!("here.example"),
            Arc::clone(&clock) as Arc<dyn Clock>,
            Arc::clone(&random),
            myelin_rooms::Options::default(),
        );
        let e2ee = E2ee::new(rooms.clone(), Arc::clone(&clock) as Arc<dyn Clock>, random);
        World {
            e2ee,
            rooms,
            store,
            clock,
            _dir: dir,
        }
    }

    pub(crate) async fn commit(&self, batch: Batch) {
        self.store.commit(batch).await.expect("the store works");
    }

    /// Numbers a user.
    pub(crate) async fn num(&self, user: &str) -> UserNum {
        let num = self.rooms.interner().user(&id(user)).await;
        num.expect("the store works")
    }

    /// Makes a local user with these devices.
    pub(crate) async fn user(&self, user: &str, devices: &[&str]) -> UserNum {
        let num = self.num(user).await;
        let mut batch = Batch::new();
        let account = Account {
            created_at: NOW,
            password_hash: None,
            admin: false,
            deactivated: false,
            erased: false,
            sessions: 0,
        };
        batch.put::<Accounts>(&num, &account);
        for device in devices {
            let row = Device {
                display_name: None,
                created_at: NOW,
                last_seen_at: None,
                last_seen_ip: None,
            };
            batch.put::<Devices>(&(num, (*device).to_owned()), &row);
        }
        self.commit(batch).await;
        num
    }

    /// A room of a local user's.
    pub(crate) async fn room(&self, creator: &str) -> RoomNum {
        let mut request = CreateRoom::new(id(creator), Profile::default());
        request.preset = Some(Preset::PublicChat);
        let room = self.rooms.create_room(request).await;
        let room = room.expect("it is allowed");
        let found = self.rooms.find(&self.store.view(), &room);
        found.expect("the store reads").expect("it is there").num
    }

    /// Writes that a user of another server is in a room, or not any more.
    pub(crate) async fn set_joined(&self, user: UserNum, room: RoomNum, joined: bool) {
        let (is, was) = if joined {
            (Membership::Join, Membership::Leave)
        } else {
            (Membership::Leave, Membership::Join)
        };
        let mut batch = Batch::new();
        batch.delete::<RoomMembers>(&(room, was, user));
        batch.put::<RoomMembers>(&(room, is, user), &Present);
        let row = UserRoom {
            pos: Pos::AT_COMMIT,
            membership: is,
            event: EventNum(1),
            place: Place::START,
            entered: Place::START,
            forgotten: false,
        };
        batch.put::<UserRooms>(&(user, room), &row);
        self.commit(batch).await;
    }
}
