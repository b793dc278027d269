//! Cross-signing keys, and signatures that are added later.

use std::collections::BTreeMap;

use myelin_e2ee::{SignatureFailure, SignedKey, SigningKeys, SigningKeysError, UserKeys};
use myelin_types::UserNum;
use ruma::{OwnedUserId, UserId};
use serde_json::{Value, json};

use crate::support::{Pen, Phone, Server, raw, server, user};

/// A user's cross-signing keys with their secret halves.
struct Identity {
    owner: OwnedUserId,
    master: Pen,
    self_signing: Pen,
    user_signing: Pen,
}

fn key(owner: &UserId, usage: &str, pen: &Pen) -> Value {
    json!({
        "user_id": owner,
        "usage": [usage],
        "keys": { format!("ed25519:{}", pen.id): pen.public() },
    })
}

impl Identity {
    fn new(name: &str, seed: u8) -> Identity {
        Identity {
            owner: user(name),
            master: Pen::identity(seed),
            self_signing: Pen::identity(seed + 1),
            user_signing: Pen::identity(seed + 2),
        }
    }

    fn master_key(&self) -> Value {
        key(&self.owner, "master", &self.master)
    }

    fn signed_by_master(&self, usage: &str, pen: &Pen) -> Value {
        self.master.sign(&self.owner, key(&self.owner, usage, pen))
    }

    fn keys(&self) -> SigningKeys {
        SigningKeys {
            master: Some(raw(&self.master_key())),
            self_signing: Some(raw(
                &self.signed_by_master("self_signing", &self.self_signing)
            )),
            user_signing: Some(raw(
                &self.signed_by_master("user_signing", &self.user_signing)
            )),
        }
    }
}

impl Server {
    fn keys_of(&self, requester: Option<UserNum>, name: &str) -> UserKeys {
        let wanted = BTreeMap::from([(user(name), Vec::new())]);
        let keys = self.e2ee.local_keys(&self.store.view(), requester, &wanted);
        keys.expect("reads")
    }

    async fn set_up(&self, phone: &Phone, identity: &Identity) {
        let owner = phone.owner.clone();
        let done = self.e2ee.upload_signing_keys(owner, identity.keys(), false);
        done.await.expect("the first keys need no confirmation");
    }

    async fn sign(
        &self,
        phone: &Phone,
        of: &UserId,
        key_id: &str,
        object: &Value,
    ) -> Option<SignatureFailure> {
        let key = SignedKey {
            user_id: of.to_owned(),
            key_id: key_id.to_owned(),
            json: raw(object),
        };
        let owner = phone.owner.clone();
        let failures = self.e2ee.upload_signatures(owner, vec![key]).await;
        let failures = failures.expect("works");
        failures.get(of).and_then(|of| of.get(key_id).copied())
    }
}

fn signatures(keys: &BTreeMap<OwnedUserId, myelin_data::RawJson>, of: &str) -> Value {
    let key: Value = serde_json::from_str(keys[&user(of)].get()).expect("JSON");
    key["signatures"].clone()
}

#[tokio::test]
async fn the_first_keys_are_free_and_a_change_has_to_be_confirmed() {
    let server = server().await;
    let phone = server.phone("alice", "PHONE", 1).await;
    let (first, second) = (Identity::new("alice", 10), Identity::new("alice", 20));
    let upload = async |keys: SigningKeys, confirmed: bool| {
        let owner = phone.owner.clone();
        server
            .e2ee
            .upload_signing_keys(owner, keys, confirmed)
            .await
    };
    let minor = SigningKeys {
        master: None,
        ..first.keys()
    };
    let refused = upload(minor, false).await;
    assert!(matches!(refused, Err(SigningKeysError::NoMaster)));
    let forged = SigningKeys {
        self_signing: second.keys().self_signing,
        ..first.keys()
    };
    let refused = upload(forged, false).await;
    assert!(matches!(refused, Err(SigningKeysError::BadSignature)));
    let wrong_use = SigningKeys {
        master: first.keys().self_signing,
        ..SigningKeys::default()
    };
    let refused = upload(wrong_use, false).await;
    assert!(matches!(refused, Err(SigningKeysError::OtherKey)));
    let foreign = Identity::new("bob", 30).keys();
    let refused = upload(foreign, false).await;
    assert!(matches!(refused, Err(SigningKeysError::OtherKey)));

    for _ in 0..2 {
        upload(first.keys(), false)
            .await
            .expect("nothing is replaced");
    }
    let refused = upload(second.keys(), false).await;
    assert!(matches!(refused, Err(SigningKeysError::Unconfirmed)));
    let keys = server.keys_of(None, "alice");
    assert!(
        keys.master_keys[&user("alice")]
            .get()
            .contains(&first.master.id)
    );
    upload(second.keys(), true).await.expect("it is confirmed");
    let keys = server.keys_of(None, "alice");
    assert!(
        keys.master_keys[&user("alice")]
            .get()
            .contains(&second.master.id)
    );
    assert!(
        keys.user_signing_keys.is_empty(),
        "others are not shown that"
    );
    let keys = server.keys_of(Some(phone.owner.user), "alice");
    assert_eq!(keys.user_signing_keys.len(), 1);

    // With a new master key alone, what the old one vouched for goes.
    let alone = SigningKeys {
        master: first.keys().master,
        ..SigningKeys::default()
    };
    upload(alone, true).await.expect("it is confirmed");
    let keys = server.keys_of(Some(phone.owner.user), "alice");
    assert!(keys.self_signing_keys.is_empty() && keys.user_signing_keys.is_empty());
}

#[tokio::test]
async fn no_device_and_no_key_have_the_same_id() {
    let server = server().await;
    let identity = Identity::new("alice", 10);
    let phone = server.phone("alice", "PHONE", 1).await;
    server.phone("alice", &identity.master.id, 2).await;
    let owner = phone.owner.clone();
    let refused = server
        .e2ee
        .upload_signing_keys(owner, identity.keys(), false)
        .await;
    assert!(matches!(refused, Err(SigningKeysError::IdInUse)));

    let other = Identity::new("bob", 20);
    let phone = server.phone("bob", "PHONE", 1).await;
    server.set_up(&phone, &other).await;
    let phone = server.phone("bob", &other.self_signing.id, 3).await;
    let upload = myelin_e2ee::KeyUpload {
        device_keys: Some(raw(&phone.device_keys())),
        ..myelin_e2ee::KeyUpload::default()
    };
    let refused = server.upload(&phone, upload).await;
    assert!(matches!(
        refused,
        Err(myelin_e2ee::UploadError::DeviceIdTaken)
    ));
}

#[tokio::test]
async fn a_user_signs_his_devices_and_his_identity() {
    let server = server().await;
    let alice = user("alice");
    let phone = server.phone("alice", "PHONE", 1).await;
    server.publish(&phone).await;
    let identity = Identity::new("alice", 10);
    server.set_up(&phone, &identity).await;

    let bare = phone.bare_keys();
    let forged = Pen::new(&identity.self_signing.id, 99).sign(&alice, bare.clone());
    let failure = server.sign(&phone, &alice, "PHONE", &forged).await;
    assert_eq!(failure, Some(SignatureFailure::Invalid));
    let mut other = bare.clone();
    other["algorithms"] = json!([]);
    let other = identity.self_signing.sign(&alice, other);
    let failure = server.sign(&phone, &alice, "PHONE", &other).await;
    assert_eq!(failure, Some(SignatureFailure::OtherObject));
    let right = identity.self_signing.sign(&alice, bare);
    let failure = server.sign(&phone, &alice, "UNKNOWN", &right).await;
    assert_eq!(failure, Some(SignatureFailure::NoKey));
    for _ in 0..2 {
        assert_eq!(server.sign(&phone, &alice, "PHONE", &right).await, None);
    }
    // A client that uploads its keys again does not take the signature away.
    server.publish(&phone).await;
    let keys = server.keys_of(None, "alice");
    let device: Value =
        serde_json::from_str(keys.device_keys[&alice]["PHONE"].get()).expect("JSON");
    let signed = device["signatures"]["@alice:hs1"]
        .as_object()
        .expect("an object");
    assert_eq!(signed.len(), 2);
    assert!(signed.contains_key(&format!("ed25519:{}", identity.self_signing.id)));

    let master = phone.sign(identity.master_key());
    let id = &identity.master.id;
    assert_eq!(server.sign(&phone, &alice, id, &master).await, None);
    let keys = server.keys_of(None, "alice");
    let signed = signatures(&keys.master_keys, "alice");
    assert!(signed["@alice:hs1"]["ed25519:PHONE"].is_string());
    let unsigned = server
        .sign(&phone, &alice, id, &identity.master_key())
        .await;
    assert_eq!(unsigned, Some(SignatureFailure::Invalid));
}

#[tokio::test]
async fn what_a_user_signs_of_another_is_shown_to_him_alone() {
    let server = server().await;
    let (alice, bob) = (user("alice"), user("bob"));
    let (phone, other) = (
        server.phone("alice", "PHONE", 1).await,
        server.phone("bob", "PHONE", 2).await,
    );
    let (ours, theirs) = (Identity::new("alice", 10), Identity::new("bob", 20));
    server.set_up(&other, &theirs).await;
    let signed = ours.user_signing.sign(&alice, theirs.master_key());
    let id = &theirs.master.id;
    let failure = server.sign(&phone, &bob, id, &signed).await;
    assert_eq!(failure, Some(SignatureFailure::NoKey));
    server.set_up(&phone, &ours).await;
    assert_eq!(server.sign(&phone, &bob, id, &signed).await, None);
    let by_master = ours.master.sign(&alice, theirs.master_key());
    let failure = server.sign(&phone, &bob, id, &by_master).await;
    assert_eq!(failure, Some(SignatureFailure::Invalid));
    let own = server
        .sign(&phone, &bob, &theirs.self_signing.id, &signed)
        .await;
    assert_eq!(own, Some(SignatureFailure::NoKey));

    let keys = server.keys_of(Some(phone.owner.user), "bob");
    let shown = signatures(&keys.master_keys, "bob");
    assert!(shown["@alice:hs1"][format!("ed25519:{}", ours.user_signing.id)].is_string());
    for requester in [None, Some(other.owner.user)] {
        let keys = server.keys_of(requester, "bob");
        let shown = signatures(&keys.master_keys, "bob");
        assert_eq!(shown.get("@alice:hs1"), None);
    }
    // What was signed with keys that were replaced goes.
    let owner = phone.owner.clone();
    let anew = Identity::new("alice", 30).keys();
    let done = server.e2ee.upload_signing_keys(owner, anew, true).await;
    done.expect("it is confirmed");
    let keys = server.keys_of(Some(phone.owner.user), "bob");
    assert_eq!(signatures(&keys.master_keys, "bob").get("@alice:hs1"), None);
}
