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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replaced_key_is_learned_by_others_and_survives_a_restart() {
    let mut servers = Federated::start(2).await;
    let before = key_of(&servers[0]);
    assert!(gets(&servers[1], &before).await);
    let data_dir = servers[0].data_dir();
    let name = servers[0].name().to_owned();
    let settings = [
        "--data-dir",
        path(&data_dir),
        "--server-name",
        name.as_str(),
    ];
    let rotated = run(&[&["federation", "rotate-key"], &settings[..]].concat()).await;
    assert!(rotated.ok().contains("signs with ed25519:"));
    let after = key_of(&servers[0]);
    assert_ne!(after.key_id, before.key_id);
    assert!(servers[0].stop().await.clean);
    servers[0].resume().await;
    assert_eq!(key_of(&servers[0]).key_id, after.key_id);
    let document = servers[0].server().state().federation.own_keys();
    assert!(document["old_verify_keys"][&before.key_id]["key"].is_string());

    // Without a running server as well.
    assert!(servers[0].stop().await.clean);
    let rotated = run(&[&["federation", "rotate-key"], &settings[..]].concat()).await;
    rotated.ok();
    servers[0].resume().await;
    let document = servers[0].server().state().federation.own_keys();
    assert_eq!(
        document["old_verify_keys"]
            .as_object()
            .map(serde_json::Map::len),
        Some(2)
    );
    let last = key_of(&servers[0]);
    assert_ne!(last.key_id, after.key_id);
    // The other server asks again for a key that it does not know, as soon as it may.
    let federation = servers[1].server().state().federation.clone();
    let document = federation.check(servers[0].name()).await;
    assert!(document.is_good(), "{document}");
    assert!(document.to_string().contains(&last.key_id), "{document}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replacement_of_the_key_that_was_cut_short_is_completed() {
    let mut servers = Federated::start(1).await;
    let before = key_of(&servers[0]);
    assert!(servers[0].stop().await.clean);
    let next = "ed25519 a_next AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8\n";
    std::fs::write(servers[0].data_dir().join("signing.key.next"), next)
        .expect("a file can be written");
    servers[0].resume().await;
    assert_eq!(key_of(&servers[0]).key_id, "ed25519:a_next");
    let document = servers[0].server().state().federation.own_keys();
    assert!(document["old_verify_keys"][&before.key_id]["key"].is_string());
    servers[0].restart().await;
    assert_eq!(key_of(&servers[0]).key_id, "ed25519:a_next");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_is_checked_from_the_command_line() {
    let servers = Federated::start(2).await;
    let data_dir = servers[0].data_dir();
    let check = |name: &str| {
        let data_dir = path(&data_dir).to_owned();
        let own = servers[0].name().to_string();
        let name = name.to_owned();
        async move {
            let arguments = [
                "federation",
                "check",
                &name,
                "--data-dir",
                &data_dir,
                "--server-name",
                &own,
            ];
            run(&arguments).await
        }
    };
    let good = check(servers[1].name().as_str()).await.ok();
    assert!(good.contains("can be reached"), "{good}");
    let own = check(servers[0].name().as_str()).await.ok();
    assert!(own.contains("do not send requests to themselves"), "{own}");
    let bad = check("localhost:1").await;
    assert_eq!(bad.code, Some(1), "{}", bad.stdout);
    assert!(bad.stdout.contains("cannot be reached"), "{}", bad.stdout);
}

fn path(path: &std::path::Path) -> &str {
    path.to_str()
        .expect("a temporary directory has a plain name")
}

/// Runs the program, which waits for a server of this process.
async fn run(arguments: &[&str]) -> crate::process::Ran {
    let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
    let running = tokio::task::spawn_blocking(move || {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        crate::process::Place::new().run(&arguments)
    });
    running.await.expect("the program runs")
}
