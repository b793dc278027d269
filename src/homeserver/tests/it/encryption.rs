//! What clients need to encrypt for users of another server: device lists, keys, and messages to devices.

use std::time::Duration;

use myelin_testkit::{Client, Federated, TestServer, encoded};
use ruma::UserId;
use serde_json::{Value, json};

async fn room_of_both(servers: &Federated, alice: &Client, bob: &Client) -> String {
    let room = alice.create_room(&json!({ "preset": "public_chat" })).await;
    let path = format!(
        "/_matrix/client/v3/join/{}?via={}",
        encoded(&room),
        servers[0].name()
    );
    bob.post(&path, &json!({})).await.ok();
    room
}

async fn upload(client: &Client, keys: &Value) {
    let path = "/_matrix/client/v3/keys/upload";
    client.post(path, keys).await.ok();
}

fn device_keys(client: &Client) -> Value {
    let device = client.device_id();
    json!({
        "user_id": client.user_id(),
        "device_id": device,
        "algorithms": ["m.olm.v1.curve25519-aes-sha2"],
        "keys": {
            format!("curve25519:{device}"): "A".repeat(43),
            format!("ed25519:{device}"): "A".repeat(43),
        },
        "signatures": {},
    })
}

async fn query(client: &Client, user: &Client) -> Value {
    let body = json!({ "device_keys": { user.user_id(): [] } });
    client
        .post("/_matrix/client/v3/keys/query", &body)
        .await
        .ok()
}

async fn claim(client: &Client, user: &Client) -> Value {
    let body = json!({ "one_time_keys": { user.user_id(): { user.device_id(): "curve25519" } } });
    client
        .post("/_matrix/client/v3/keys/claim", &body)
        .await
        .ok()
}

fn token(sync: &Value) -> String {
    sync["next_batch"].as_str().expect("a token").to_owned()
}

/// Syncs until the lists of these users have changed; the token then.
async fn until_changed(client: &Client, since: &str, user: &Client) -> String {
    let mut since = since.to_owned();
    let wait = async {
        loop {
            let sync = client.sync_with(Some(&since), "timeout=1000").await;
            since = token(&sync);
            let changed = sync["device_lists"]["changed"].as_array();
            if changed.is_some_and(|changed| changed.iter().any(|id| id == user.user_id())) {
                return since;
            }
        }
    };
    let waited = tokio::time::timeout(Duration::from_mins(1), wait).await;
    waited.expect("the change is told in time")
}

/// Waits until a server keeps the list of a user.
async fn until_tracked(server: &TestServer, user: &Client) {
    let user_id = UserId::parse(user.user_id()).expect("a user id");
    let wait = async {
        loop {
            let state = server.server().state();
            let view = state.rooms.store().view();
            let tracked = state.e2ee.tracked(&view, &user_id);
            if tracked.expect("the store reads").is_some() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_mins(1), wait).await;
    waited.expect("the list is fetched in time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_and_lists_of_users_of_another_server_are_known_and_kept() {
    let mut servers = Federated::start(2).await;
    let alice = servers[0].register("alice").await;
    let bob = servers[1].register("bob").await;
    room_of_both(&servers, &alice, &bob).await;
    let first = bob.sync(None).await;
    let since = token(&first);
    let keys = json!({
        "device_keys": device_keys(&alice),
        "one_time_keys": { "curve25519:1": "one", "curve25519:2": "two" },
    });
    upload(&alice, &keys).await;
    until_changed(&bob, &since, &alice).await;
    let of_alice =
        |answer: &Value| answer["device_keys"][alice.user_id()][alice.device_id()].clone();
    let known = query(&bob, &alice).await;
    assert_eq!(of_alice(&known)["keys"], device_keys(&alice)["keys"]);
    assert_eq!(known["failures"], json!({}));
    let mut given = Vec::new();
    for _ in 0..2 {
        let claimed = claim(&bob, &alice).await;
        let keys = claimed["one_time_keys"][alice.user_id()][alice.device_id()].clone();
        given.extend(keys.as_object().expect("a map").keys().cloned());
    }
    given.sort_unstable();
    assert_eq!(given, ["curve25519:1", "curve25519:2"]);
    let none_left = claim(&bob, &alice).await;
    assert_eq!(none_left["one_time_keys"], json!({}));

    // What is kept is told when its server is gone, and after a restart; what is not cannot be had.
    until_tracked(&servers[1], &alice).await;
    servers[0].kill().await;
    servers[1].restart().await;
    let known = query(&bob, &alice).await;
    assert_eq!(of_alice(&known)["keys"], device_keys(&alice)["keys"]);
    assert_eq!(known["failures"], json!({}));
    let body = json!({
        "timeout": 2_000,
        "one_time_keys": { alice.user_id(): { alice.device_id(): "curve25519" } },
    });
    let claimed = bob.post("/_matrix/client/v3/keys/claim", &body).await.ok();
    assert!(claimed["failures"][servers[0].name().as_str()].is_object());

    servers[0].resume().await;
    let now = bob.sync(None).await;
    let since = token(&now);
    let path = format!("/_matrix/client/v3/devices/{}", alice.device_id());
    let name = json!({ "display_name": "Another name" });
    alice.put(&path, &name).await.ok();
    until_changed(&bob, &since, &alice).await;
    let known = query(&bob, &alice).await;
    let unsigned = &of_alice(&known)["unsigned"];
    assert_eq!(unsigned["device_display_name"], "Another name");
}

/// Sends numbered messages to a device of a user.
async fn send(from: &Client, to: &Client, numbers: std::ops::Range<u64>) {
    for number in numbers {
        let path = format!("/_matrix/client/v3/sendToDevice/my.test.type/{number}");
        let messages = json!({ to.user_id(): { to.device_id(): { "n": number } } });
        from.put(&path, &json!({ "messages": messages })).await.ok();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_come_once_and_in_order_whoever_is_killed() {
    const ALL: u64 = 1_000;
    let mut servers = Federated::start(2).await;
    let alice = servers[0].register("alice").await;
    let bob = servers[1].register("bob").await;
    let room = room_of_both(&servers, &alice, &bob).await;
    let first = bob.sync(None).await;
    let mut since = token(&first);
    servers[1].kill().await;
    for number in 0..60 {
        alice.say(&room, &number.to_string()).await;
    }
    send(&alice, &bob, 0..ALL / 2).await;
    servers[0].kill().await;
    servers[0].resume().await;
    send(&alice, &bob, ALL / 2..ALL).await;
    servers[1].resume().await;
    // Whoever makes a request is there again.
    bob.get(&format!(
        "/_matrix/client/v3/profile/{}",
        encoded(alice.user_id())
    ))
    .await
    .ok();

    let mut told = Vec::new();
    let mut killed = false;
    let wait = async {
        while (told.len() as u64) < ALL {
            let sync = bob.sync_with(Some(&since), "timeout=1000").await;
            since = token(&sync);
            let events = sync["to_device"]["events"].as_array().expect("a list");
            assert!(events.len() <= 100);
            told.extend(events.iter().map(|event| event["content"]["n"].as_u64()));
            if !killed && told.len() >= 200 {
                killed = true;
                servers[1].kill().await;
                servers[1].resume().await;
                servers[0].kill().await;
                servers[0].resume().await;
            }
        }
    };
    let waited = tokio::time::timeout(Duration::from_mins(2), wait).await;
    waited.expect("all of them come in time");
    let expected: Vec<Option<u64>> = (0..ALL).map(Some).collect();
    assert_eq!(told, expected);
    let after = bob.sync_with(Some(&since), "timeout=0").await;
    assert_eq!(after["to_device"]["events"], json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_hears_of_the_list_of_a_user_whom_it_lets_in() {
    let servers = Federated::start(2).await;
    let alice = servers[0].register("alice").await;
    let bob = servers[1].register("bob").await;
    room_of_both(&servers, &alice, &bob).await;
    // Nobody asks for his keys, and he has none.
    until_tracked(&servers[0], &bob).await;
}
