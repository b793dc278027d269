//! `myelin room …`.

use myelin_data::rooms::Heads;
use myelin_store::Batch;
use myelin_testkit::TestServer;
use ruma::RoomId;
use serde_json::{Value, json};

use crate::users::on;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_is_examined_while_the_server_runs() {
    let server = TestServer::start().await;
    let alice = server.register("alice").await;
    let bob = server.register("bob").await;
    let request = json!({ "preset": "public_chat", "room_alias_name": "tea" });
    let room = alice.create_room(&request).await;
    bob.join(&room).await.ok();
    let secret = "nobody else's business";
    alice.say(&room, secret).await;

    let alias = format!("#tea:{}", server.name());
    for name in [&room, &alias] {
        let report = on(&server, &["room", "check", name], "").await.ok();
        assert!(report.contains("The room is healthy."), "{report}");
        assert!(report.contains(&room) && report.contains("2 members on 1 servers"));
    }
    let nowhere = format!("!nowhere:{}", server.name());
    let failed = on(&server, &["room", "check", &nowhere], "").await.failed();
    assert!(failed.contains("no such room"), "{failed}");
    let failed = on(&server, &["room", "check", "tea"], "").await.failed();
    assert!(failed.contains("no room id and no alias"), "{failed}");

    // Somebody meddles with the database.
    let state = server.server().state();
    let store = state.rooms.store();
    let view = store.view();
    let id = <&RoomId>::try_from(room.as_str()).expect("a room id");
    let handle = state.rooms.find(&view, id).expect("read").expect("known");
    let head = view.get::<Heads>(&handle.num).expect("read");
    let mut head = head.expect("the room has a head");
    head.joined = 7;
    let mut batch = Batch::new();
    batch.put::<Heads>(&handle.num, &head);
    store.commit(batch).await.expect("committed");

    let ran = on(&server, &["room", "check", &room], "").await;
    assert_eq!(ran.code, Some(2), "{}{}", ran.stdout, ran.stderr);
    for expected in [
        "WRONG: a wrong count",
        "2 users are joined, and 7 are counted.",
        "What to do:",
    ] {
        assert!(ran.stdout.contains(expected), "{}", ran.stdout);
    }
    let ran = on(&server, &["room", "check", &room, "--json"], "").await;
    assert_eq!(ran.code, Some(2));
    assert!(!ran.stdout.contains(secret), "contents stay here");
    let report: Value = serde_json::from_str(&ran.stdout).expect("JSON");
    assert_eq!(report["verdict"], "damaged");
    assert_eq!(report["findings"][0]["problem"], "wrong_count");
    assert_eq!(report["findings"][0]["severity"], "damage");
}
