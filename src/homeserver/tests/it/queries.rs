//! What one server asks another for its clients: aliases, profiles, OpenID tokens.

use myelin_testkit::{Federated, encoded};
use serde_json::json;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn aliases_and_profiles_of_another_server_are_found() {
    let servers = Federated::start(2).await;
    let (alice, bob) = (
        servers[0].register("alice").await,
        servers[1].register("bob").await,
    );
    let here = servers[0].name().as_str();

    let request = json!({ "preset": "public_chat" });
    let room = alice.create_room(&request).await;
    // #老虎🤨/+& as somebody may name a room.
    let alias = format!("#\u{8001}\u{864e}\u{1f928}/+&:{here}");
    let path = format!("/_matrix/client/v3/directory/room/{}", encoded(&alias));
    let named = json!({ "room_id": room });
    alice.put(&path, &named).await.ok();
    let found = bob.get(&path).await.ok();
    assert_eq!(found["room_id"], room);
    assert_eq!(found["servers"], json!([here]));
    let nowhere = encoded(&format!("#nowhere:{here}"));
    bob.get(&format!("/_matrix/client/v3/directory/room/{nowhere}"))
        .await
        .refused(404, "M_NOT_FOUND");

    let profile = format!(
        "/_matrix/client/v3/profile/{}",
        encoded(&servers[0].user_id("alice"))
    );
    for (field, value) in [
        ("displayname", json!("Alice \u{1f928}")),
        ("org.example.job", json!({ "title": "engineer" })),
    ] {
        let path = format!("{profile}/{field}");
        alice.put(&path, &json!({ field: value })).await.ok();
    }
    let whole = json!({
        "displayname": "Alice \u{1f928}",
        "org.example.job": { "title": "engineer" },
    });
    assert_eq!(bob.get(&profile).await.ok(), whole);
    let field = bob.get(&format!("{profile}/displayname")).await.ok();
    assert_eq!(field, json!({ "displayname": "Alice \u{1f928}" }));
    bob.get(&format!("{profile}/avatar_url"))
        .await
        .refused(404, "M_NOT_FOUND");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_not_there_has_no_aliases() {
    let mut servers = Federated::start(2).await;
    let alice = servers[0].register("alice").await;
    let gone = servers[1].name().to_owned();
    servers[1].stop().await;
    for path in [
        format!("directory/room/{}", encoded(&format!("#a:{gone}"))),
        format!("profile/{}", encoded(&format!("@a:{gone}"))),
    ] {
        alice
            .get(&format!("/_matrix/client/v3/{path}"))
            .await
            .refused(404, "M_NOT_FOUND");
    }
}
