//! `myelin backup`: made while the server runs, and usable in the place of the data directory.

use myelin_testkit::{TestServer, encoded};
use serde_json::json;

use crate::process::Place;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_is_a_data_directory_of_its_own() {
    let mut server = TestServer::start().await;
    let alice = server.register("alice").await;
    let room = alice.create_room(&json!({ "name": "Attic" })).await;
    let kept = alice.say(&room, "before the backup").await;

    let target = server.dir().join("backup");
    let made = {
        let data_dir = server.data_dir().display().to_string();
        let target = target.display().to_string();
        tokio::task::spawn_blocking(move || {
            let backup = [
                "backup",
                &target,
                "--data-dir",
                &data_dir,
                "--server-name",
                "test.example",
            ];
            let place = Place::new();
            (place.run(&backup), place.run(&backup))
        })
        .await
        .expect("the command does not panic")
    };
    made.0.ok();
    let twice = made.1.failed();
    assert!(twice.contains("exists already"), "{twice}");
    let lost = alice.say(&room, "after the backup").await;
    server.stop().await;

    let restored = TestServer::builder().data_dir(target).start().await;
    let alice = restored.reconnect(&alice);
    let event = |id: &str| {
        let path = format!(
            "/_matrix/client/v3/rooms/{}/event/{}",
            encoded(&room),
            encoded(id)
        );
        let alice = &alice;
        async move { alice.get(&path).await }
    };
    let found = event(&kept).await.ok();
    assert_eq!(found["content"]["body"], "before the backup");
    event(&lost).await.refused(404, "M_NOT_FOUND");
    alice.say(&room, "life goes on").await;
}

#[test]
fn a_backup_without_a_server_holds_key_and_settings() {
    let place = Place::new();
    drop(place.first_start(&["--server-name", "example.org"]));
    place
        .run_with(&["user", "create", "alice"], "a good password")
        .ok();
    place.run(&["backup", "copy"]).ok();
    for file in ["signing.key", "myelin.toml", "server_name"] {
        let read = |path| std::fs::read_to_string(path).expect("the file exists");
        let original = match file {
            "myelin.toml" => place.join(file),
            _ => place.join("myelin-data").join(file),
        };
        assert_eq!(read(place.join("copy").join(file)), read(original));
    }
    let listed = place.run(&["user", "list", "--data-dir", "copy"]).ok();
    assert!(listed.contains("@alice:example.org"), "{listed}");
}
