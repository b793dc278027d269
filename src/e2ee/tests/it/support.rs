//! A server's keys for one test, and what clients sign.

use std::sync::Arc;

use myelin_data::{
    Interner, RawJson,
    accounts::{Account, Accounts, Device, Devices},
};
use myelin_e2ee::{E2ee, KeyUpload, Owner, UploadError};
use myelin_rooms::{Options as RoomOptions, Rooms};
use myelin_rules::{Signer, SigningKey};
use myelin_store::{Batch, Options, Store};
use myelin_types::{Clock, Millis, MockClock, Random, SeededRandom};
use ruma::{OwnedUserId, UserId, server_name};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Keys with their directory, which goes when the test ends.
pub(crate) struct Server {
    pub(crate) e2ee: E2ee,
    pub(crate) store: Store,
    pub(crate) rooms: Rooms,
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
        e2ee: E2ee::new(rooms.clone(), clock, random),
        store,
        rooms,
        _dir: dir,
    }
}

/// A key that signs.
pub(crate) struct Pen {
    /// What follows the algorithm in its id.
    pub(crate) id: String,
    seed: [u8; 32],
}

impl Pen {
    pub(crate) fn new(id: &str, seed: u8) -> Pen {
        Pen {
            id: id.to_owned(),
            seed: [seed; 32],
        }
    }

    /// A key that is named by itself, as cross-signing keys are.
    pub(crate) fn identity(seed: u8) -> Pen {
        let public = Pen::new("", seed).public();
        Pen::new(&public, seed)
    }

    fn key(&self) -> SigningKey {
        SigningKey::from_seed(&self.id, self.seed)
    }

    pub(crate) fn public(&self) -> String {
        self.key().public_key()
    }

    /// Adds a signature of `user` to an object.
    pub(crate) fn sign(&self, user: &UserId, mut object: Value) -> Value {
        let fields = object.as_object_mut().expect("only objects are signed");
        let signer = Signer::new(user.as_str(), self.key());
        signer.sign_json(fields).expect("it has a canonical form");
        object
    }
}

/// A device with its secret key.
pub(crate) struct Phone {
    pub(crate) owner: Owner,
    pub(crate) pen: Pen,
}

pub(crate) fn user(name: &str) -> OwnedUserId {
    UserId::parse(format!("@{name}:hs1")).expect("a user id")
}

pub(crate) fn raw(value: &Value) -> RawJson {
    RawJson::of(value).expect("it is JSON")
}

impl Server {
    /// Logs a device in, of a user who is made if there is none.
    pub(crate) async fn phone(&self, name: &str, device: &str, seed: u8) -> Phone {
        let user_id = user(name);
        let user = self.rooms.interner().user(&user_id).await.expect("numbers");
        let mut batch = Batch::new();
        let account = Account {
            created_at: Millis(0),
            password_hash: None,
            admin: false,
            deactivated: false,
            erased: false,
            sessions: 1,
        };
        batch.put::<Accounts>(&user, &account);
        let row = Device {
            display_name: Some(format!("Phone {device}")),
            created_at: Millis(0),
            last_seen_at: None,
            last_seen_ip: None,
        };
        batch.put::<Devices>(&(user, device.to_owned()), &row);
        self.store.commit(batch).await.expect("commits");
        Phone {
            owner: Owner {
                user_id,
                user,
                device_id: device.into(),
            },
            pen: Pen::new(device, seed),
        }
    }

    pub(crate) async fn upload(
        &self,
        phone: &Phone,
        upload: KeyUpload,
    ) -> Result<Vec<(String, u64)>, UploadError> {
        self.e2ee.upload_keys(phone.owner.clone(), upload).await
    }

    /// Uploads the identity keys of a device.
    pub(crate) async fn publish(&self, phone: &Phone) {
        let upload = KeyUpload {
            device_keys: Some(raw(&phone.device_keys())),
            ..KeyUpload::default()
        };
        self.upload(phone, upload)
            .await
            .expect("the keys are taken");
    }
}

impl Phone {
    /// Signs an object as a client does.
    pub(crate) fn sign(&self, object: Value) -> Value {
        self.pen.sign(&self.owner.user_id, object)
    }

    /// The identity keys, not signed yet.
    pub(crate) fn bare_keys(&self) -> Value {
        let device = &self.owner.device_id;
        json!({
            "user_id": self.owner.user_id,
            "device_id": device,
            "algorithms": ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"],
            "keys": {
                format!("ed25519:{device}"): self.pen.public(),
                format!("curve25519:{device}"): "JGLn/yafz74HB2AbPLYJWIVGnKAtqECOBf11yyXac2Y",
            },
        })
    }

    pub(crate) fn device_keys(&self) -> Value {
        self.sign(self.bare_keys())
    }

    /// A one-time or fallback key; `text` stands for the public key.
    pub(crate) fn one_time_key(&self, id: &str, text: &str) -> (String, RawJson) {
        let key = self.sign(json!({ "key": text }));
        (format!("signed_curve25519:{id}"), raw(&key))
    }
}
