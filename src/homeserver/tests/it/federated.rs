//! Several servers over TLS: that they reach each other, and still do after each way of ending and starting again.

use myelin_rooms::remote::{Fetch as _, WantedKey};
use myelin_testkit::{Federated, TestServer};
use myelin_types::Millis;

/// The key of a server.
fn key_of(server: &TestServer) -> WantedKey {
    let document = server.server().state().federation.own_keys();
    let keys = document["verify_keys"].as_object().expect("an object");
    WantedKey {
        server: server.name().to_owned(),
        key_id: keys.keys().next().expect("a server has a key").clone(),
        valid_at: Millis(0),
    }
}

/// Whether a server gets this key, which only the key's owner can tell.
async fn gets(server: &TestServer, key: &WantedKey) -> bool {
    let federation = &server.server().state().federation;
    let found = federation.keys(std::slice::from_ref(key)).await;
    found[key.server.as_str()].contains_key(&key.key_id)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_find_each_other_and_come_back() {
    let mut servers = Federated::start(3).await;
    assert_eq!(servers.count(), 3);
    let keys: Vec<WantedKey> = servers.iter().map(key_of).collect();
    assert!(gets(&servers[0], &keys[1]).await);
    assert!(gets(&servers[1], &keys[0]).await);
    let alice = servers[2].register("alice").await;

    assert!(servers[2].stop().await.clean);
    assert!(!gets(&servers[0], &keys[2]).await, "nobody is there");
    servers[2].resume().await;
    assert!(gets(&servers[1], &keys[2]).await);

    servers[2].kill().await;
    assert!(!servers[2].is_running());
    servers[2].resume().await;
    // The session holds, at the same address.
    alice.sync(None).await;
    assert!(gets(&servers[2], &keys[0]).await);
}
