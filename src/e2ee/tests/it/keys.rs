//! Keys of devices: uploading, claiming, asking.

use std::collections::{BTreeMap, BTreeSet};

use myelin_data::e2ee::{DeviceListChange, DeviceLists, KeyCounts, OneTimeKeyPlaces, OneTimeKeys};
use myelin_e2ee::{ClaimedKey, KeyToClaim, KeyUpload, UploadError};
use myelin_store::Scan;
use serde_json::{Value, json};

use crate::support::{Phone, Server, raw, server};

const CURVE: &str = "signed_curve25519";

fn one_time_keys(phone: &Phone, ids: &[&str]) -> KeyUpload {
    KeyUpload {
        one_time_keys: ids
            .iter()
            .map(|id| phone.one_time_key(id, &format!("key {id}")))
            .collect(),
        ..KeyUpload::default()
    }
}

fn fallback_key(phone: &Phone, id: &str) -> KeyUpload {
    KeyUpload {
        fallback_keys: vec![phone.one_time_key(id, &format!("fallback {id}"))],
        ..KeyUpload::default()
    }
}

impl Server {
    /// Claims a key of a device; its id.
    async fn claim(&self, phone: &Phone) -> Option<String> {
        let claimed = self.e2ee.claim_keys(vec![wanted(phone)]).await;
        let mut claimed = claimed.expect("claims");
        assert!(claimed.len() < 2);
        claimed.pop().map(|key| key.key_id)
    }

    /// What is said of a device's keys, after it was compared with the keys that are there.
    fn key_counts(&self, phone: &Phone) -> (u64, Vec<String>) {
        let view = self.store.view();
        let device = (phone.owner.user, phone.owner.device_id.to_string());
        let count = view.get::<KeyCounts>(&device).expect("reads");
        let count = count.unwrap_or_default();
        let told: u64 = count.one_time.iter().map(|(_, count)| count).sum();
        let rows = view.keys::<OneTimeKeys>(Scan::prefix(&device)).count();
        let places = view.keys::<OneTimeKeyPlaces>(Scan::prefix(&device)).count();
        assert_eq!((told, told), (rows as u64, places as u64));
        (told, count.unused_fallback)
    }

    fn stream_id(&self, phone: &Phone) -> u64 {
        let list = self.store.view().get::<DeviceLists>(&phone.owner.user);
        list.expect("reads").map_or(0, |list| list.stream_id)
    }
}

fn wanted(phone: &Phone) -> KeyToClaim {
    KeyToClaim {
        user_id: phone.owner.user_id.clone(),
        device_id: phone.owner.device_id.clone(),
        algorithm: CURVE.to_owned(),
    }
}

#[tokio::test]
async fn keys_are_claimed_in_the_order_of_their_uploads() {
    let server = server().await;
    let phone = server.phone("alice", "PHONE", 1).await;
    for id in ["z", "a", "m"] {
        let counts = server.upload(&phone, one_time_keys(&phone, &[id])).await;
        assert_eq!(counts.expect("taken").len(), 1);
    }
    for id in ["z", "a", "m"] {
        let claimed = server.claim(&phone).await;
        assert_eq!(claimed, Some(format!("{CURVE}:{id}")));
    }
    assert_eq!(server.claim(&phone).await, None);
    let stranger = KeyToClaim {
        device_id: "OTHER".into(),
        ..wanted(&phone)
    };
    let other = KeyToClaim {
        algorithm: "other".to_owned(),
        ..wanted(&phone)
    };
    for wanted in [stranger, other] {
        let claimed = server.e2ee.claim_keys(vec![wanted]).await;
        assert!(claimed.expect("claims").is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_race_hands_each_key_out_once_and_then_the_fallback_key() {
    let server = server().await;
    let phone = server.phone("alice", "PHONE", 1).await;
    let ids: Vec<String> = (0..10).map(|id| format!("key{id}")).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    server
        .upload(&phone, one_time_keys(&phone, &ids))
        .await
        .expect("taken");
    server
        .upload(&phone, fallback_key(&phone, "fallback"))
        .await
        .expect("taken");
    assert_eq!(server.key_counts(&phone), (10, vec![CURVE.to_owned()]));

    let mut claims = Vec::new();
    for _ in 0..64 {
        let (e2ee, wanted) = (server.e2ee.clone(), wanted(&phone));
        claims.push(tokio::spawn(
            async move { e2ee.claim_keys(vec![wanted]).await },
        ));
    }
    let mut times = BTreeMap::<String, usize>::new();
    for claim in claims {
        let claimed = claim.await.expect("runs").expect("claims");
        let [ClaimedKey { key_id, .. }] = claimed.as_slice() else {
            panic!("everybody gets one key");
        };
        *times.entry(key_id.clone()).or_default() += 1;
    }
    assert_eq!(times.remove(&format!("{CURVE}:fallback")), Some(54));
    assert_eq!(times.len(), 10);
    assert!(times.values().all(|times| *times == 1));
    assert_eq!(server.key_counts(&phone), (0, vec![]));
}

#[tokio::test]
async fn many_devices_are_claimed_from_at_once() {
    let server = server().await;
    let (mut wanted_keys, mut expected) = (Vec::new(), BTreeSet::new());
    for number in 0..150_u8 {
        let phone = server
            .phone("alice", &format!("PHONE{number}"), number)
            .await;
        let id = format!("{number}");
        server
            .upload(&phone, one_time_keys(&phone, &[&id]))
            .await
            .expect("taken");
        wanted_keys.push(wanted(&phone));
        expected.insert(format!("{CURVE}:{id}"));
    }
    let claimed = server.e2ee.claim_keys(wanted_keys.clone()).await;
    let ids: BTreeSet<String> = claimed
        .expect("claims")
        .into_iter()
        .map(|key| key.key_id)
        .collect();
    assert_eq!(ids, expected);
    let again = server.e2ee.claim_keys(wanted_keys).await;
    assert!(again.expect("claims").is_empty());
}

#[tokio::test]
async fn an_upload_that_is_repeated_brings_no_key_back() {
    let server = server().await;
    let phone = server.phone("alice", "PHONE", 1).await;
    let upload = one_time_keys(&phone, &["a", "b"]);
    server.upload(&phone, upload.clone()).await.expect("taken");
    assert_eq!(server.claim(&phone).await, Some(format!("{CURVE}:a")));
    // The client has not had the answer, and makes the request again.
    let counts = server.upload(&phone, upload).await.expect("taken");
    assert_eq!(counts, [(CURVE.to_owned(), 1)]);
    let more = one_time_keys(&phone, &["b", "c"]);
    let counts = server.upload(&phone, more).await.expect("taken");
    assert_eq!(counts, [(CURVE.to_owned(), 2)]);
    assert_eq!(server.claim(&phone).await, Some(format!("{CURVE}:b")));
    assert_eq!(server.claim(&phone).await, Some(format!("{CURVE}:c")));
    assert_eq!(server.key_counts(&phone).0, 0);
}

#[tokio::test]
async fn another_key_under_a_used_id_is_refused_with_all_others() {
    let server = server().await;
    let phone = server.phone("alice", "PHONE", 1).await;
    server
        .upload(&phone, one_time_keys(&phone, &["a"]))
        .await
        .expect("taken");
    let upload = KeyUpload {
        one_time_keys: vec![
            phone.one_time_key("b", "key b"),
            phone.one_time_key("a", "another"),
        ],
        ..KeyUpload::default()
    };
    let refused = server.upload(&phone, upload).await;
    assert!(
        matches!(&refused, Err(UploadError::KeyExists { key_id, .. }) if key_id == &format!("{CURVE}:a")),
        "{refused:?}"
    );
    assert_eq!(server.key_counts(&phone).0, 1);
    assert_eq!(server.claim(&phone).await, Some(format!("{CURVE}:a")));
}

#[tokio::test]
async fn a_fallback_key_is_unused_until_it_is_handed_out() {
    let server = server().await;
    let phone = server.phone("alice", "PHONE", 1).await;
    let upload = fallback_key(&phone, "one");
    server.upload(&phone, upload.clone()).await.expect("taken");
    for _ in 0..2 {
        assert_eq!(server.claim(&phone).await, Some(format!("{CURVE}:one")));
        assert_eq!(server.key_counts(&phone), (0, vec![]));
        // The same once more is no new key.
        server.upload(&phone, upload.clone()).await.expect("taken");
        assert_eq!(server.key_counts(&phone), (0, vec![]));
    }
    let upload = fallback_key(&phone, "two");
    server.upload(&phone, upload).await.expect("taken");
    assert_eq!(server.key_counts(&phone), (0, vec![CURVE.to_owned()]));
    assert_eq!(server.claim(&phone).await, Some(format!("{CURVE}:two")));
    let upload = KeyUpload {
        fallback_keys: vec![
            phone.one_time_key("three", "3"),
            phone.one_time_key("four", "4"),
        ],
        ..KeyUpload::default()
    };
    let refused = server.upload(&phone, upload).await;
    assert!(matches!(refused, Err(UploadError::Malformed(_))));
}

#[tokio::test]
async fn identity_keys_are_taken_if_they_are_the_devices_own() {
    let server = server().await;
    let phone = server.phone("alice", "PHONE", 1).await;
    let other = server.phone("alice", "OTHER", 2).await;
    let upload = async |keys: Value| {
        let upload = KeyUpload {
            device_keys: Some(raw(&keys)),
            ..KeyUpload::default()
        };
        server.upload(&phone, upload).await
    };
    let foreign = upload(other.device_keys()).await;
    assert!(matches!(foreign, Err(UploadError::OtherDevice)));
    let mut changed = phone.device_keys();
    changed["algorithms"] = json!(["m.other"]);
    let changed = upload(changed).await;
    assert!(matches!(changed, Err(UploadError::BadSignature)));
    for (field, value) in [
        ("user_id", Value::Null),
        ("device_id", Value::Null),
        ("algorithms", json!({})),
        ("algorithms", json!([1])),
        ("keys", json!([])),
        ("keys", json!({})),
        ("keys", json!({ "ed25519:PHONE": "short" })),
        ("signatures", Value::Null),
        ("signatures", json!({ "@alice:hs1": "x" })),
        ("extra", json!(0.5)),
    ] {
        let mut keys = phone.bare_keys();
        keys["signatures"] = json!({});
        keys[field] = value;
        let refused = upload(keys.clone()).await;
        assert!(matches!(refused, Err(UploadError::Malformed(_))), "{keys}");
    }
    assert_eq!(server.stream_id(&phone), 0);

    for _ in 0..2 {
        upload(phone.device_keys()).await.expect("they are right");
        assert_eq!(server.stream_id(&phone), 1);
    }
    let list = server.store.view().get::<DeviceLists>(&phone.owner.user);
    let list = list.expect("reads").expect("it changed");
    let change = DeviceListChange::Device("PHONE".to_owned());
    assert_eq!(list.recent, [(list.pos, change)]);
    // Without a signature they are kept: it is other clients that do not believe them.
    let mut unsigned = other.bare_keys();
    unsigned["signatures"] = json!({});
    let upload = KeyUpload {
        device_keys: Some(raw(&unsigned)),
        ..KeyUpload::default()
    };
    server.upload(&other, upload).await.expect("they are kept");
    assert_eq!(server.stream_id(&phone), 2);
}

#[tokio::test]
async fn one_time_keys_that_the_device_has_not_signed_are_refused() {
    let server = server().await;
    let phone = server.phone("alice", "PHONE", 1).await;
    server.publish(&phone).await;
    let (id, key) = phone.one_time_key("a", "key a");
    let mut forged: Value = serde_json::from_str(key.get()).expect("JSON");
    forged["key"] = json!("another");
    let upload = KeyUpload {
        one_time_keys: vec![(id.clone(), raw(&forged))],
        ..KeyUpload::default()
    };
    let refused = server.upload(&phone, upload).await;
    assert!(matches!(refused, Err(UploadError::BadSignature)));
    for (id, key) in [
        ("a", json!({ "key": "x" })),
        (":a", json!({ "key": "x" })),
        ("signed_curve25519:a", json!("x")),
        ("signed_curve25519:a", json!({ "key": 1 })),
        ("curve25519:a", json!(1)),
    ] {
        let upload = KeyUpload {
            one_time_keys: vec![(id.to_owned(), raw(&key))],
            ..KeyUpload::default()
        };
        let refused = server.upload(&phone, upload).await;
        assert!(
            matches!(refused, Err(UploadError::Malformed(_))),
            "{id} {key}"
        );
    }
    let upload = KeyUpload {
        one_time_keys: vec![("curve25519:a".to_owned(), raw(&json!("x")))],
        ..KeyUpload::default()
    };
    server
        .upload(&phone, upload)
        .await
        .expect("it is in its form");
}

#[tokio::test]
async fn with_another_identity_the_old_one_time_keys_go() {
    let server = server().await;
    let phone = server.phone("alice", "PHONE", 1).await;
    server.publish(&phone).await;
    let upload = one_time_keys(&phone, &["a", "b"]);
    server.upload(&phone, upload).await.expect("taken");
    server
        .upload(&phone, fallback_key(&phone, "f"))
        .await
        .expect("taken");

    // The client lost what it had, and logs in to the same device.
    let again = server.phone("alice", "PHONE", 2).await;
    let upload = KeyUpload {
        device_keys: Some(raw(&again.device_keys())),
        one_time_keys: vec![again.one_time_key("a", "new a")],
        ..KeyUpload::default()
    };
    let counts = server.upload(&again, upload).await.expect("taken");
    assert_eq!(counts, [(CURVE.to_owned(), 1)]);
    assert_eq!(server.key_counts(&again), (1, vec![]));
    assert_eq!(server.claim(&again).await, Some(format!("{CURVE}:a")));
    assert_eq!(server.claim(&again).await, None);
}

#[tokio::test]
async fn how_many_keys_a_device_has_is_bounded() {
    let server = server().await;
    let phone = server.phone("alice", "PHONE", 1).await;
    let keys = |from: usize, to: usize| KeyUpload {
        one_time_keys: (from..to)
            .map(|id| (format!("curve25519:{id}"), raw(&json!("x"))))
            .collect(),
        ..KeyUpload::default()
    };
    let refused = server.upload(&phone, keys(0, 501)).await;
    assert!(matches!(refused, Err(UploadError::TooMany)));
    server.upload(&phone, keys(0, 500)).await.expect("taken");
    server.upload(&phone, keys(500, 1000)).await.expect("taken");
    server
        .upload(&phone, keys(500, 1000))
        .await
        .expect("the same");
    let refused = server.upload(&phone, keys(1000, 1001)).await;
    assert!(matches!(refused, Err(UploadError::TooMany)));
    let long = KeyUpload {
        one_time_keys: vec![(format!("curve25519:{}", "x".repeat(300)), raw(&json!("x")))],
        ..KeyUpload::default()
    };
    let refused = server.upload(&phone, long).await;
    assert!(matches!(refused, Err(UploadError::TooLarge)));
}

#[tokio::test]
async fn however_many_users_are_asked_for_each_table_is_read_once() {
    let server = server().await;
    let mut wanted = BTreeMap::new();
    for number in 0..200_u8 {
        let name = format!("user{number}");
        let phone = server.phone(&name, "PHONE", number).await;
        if number > 0 {
            server.publish(&phone).await;
        }
        wanted.insert(phone.owner.user_id, Vec::new());
    }
    wanted.insert(crate::support::user("nobody"), Vec::new());
    let before = server.store.counters();
    let keys = server
        .e2ee
        .local_keys(&server.store.view(), None, &wanted)
        .expect("reads");
    let after = server.store.counters();
    assert_eq!(after.scans, before.scans);
    assert_eq!(keys.device_keys.len(), 200);
    let mut counts = keys.device_keys.values().map(BTreeMap::len);
    assert_eq!(counts.by_ref().filter(|count| *count == 1).count(), 199);
    let device = keys.device_keys[&crate::support::user("user7")]["PHONE"].get();
    let device: Value = serde_json::from_str(device).expect("JSON");
    assert_eq!(device["unsigned"]["device_display_name"], "Phone PHONE");
    assert_eq!(device["device_id"], "PHONE");
    // A device that is asked for by name.
    let named =
        |device: &str| BTreeMap::from([(crate::support::user("user7"), vec![device.to_owned()])]);
    for (device, count) in [("PHONE", 1), ("OTHER", 0)] {
        let keys = server
            .e2ee
            .local_keys(&server.store.view(), None, &named(device))
            .expect("reads");
        assert_eq!(
            keys.device_keys[&crate::support::user("user7")].len(),
            count
        );
    }
}
