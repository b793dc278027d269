//! Lazy loading of members.

use serde_json::json;

use crate::support::{ALICE, BOB, CHARLIE, Client, Server, brief, of};

async fn lazy(server: &Server, redundant: bool) -> Client {
    let state = json!({"lazy_load_members": true, "include_redundant_members": redundant});
    let filter = json!({"room": {"state": state, "timeline": {"limit": 1}}});
    server.client(ALICE).await.filter(filter)
}

fn members(state: &serde_json::Value) -> Vec<String> {
    let mut members = brief(state);
    members.retain(|event| event.contains('@'));
    members.sort();
    members
}

#[tokio::test]
async fn members_come_with_what_they_say() {
    let server = Server::new().await;
    let room = server.room().await;
    server
        .set(&room, ALICE, "m.room.name", "", json!({"name": "n"}))
        .await;
    for who in [BOB, CHARLIE, "@dora:here.org"] {
        server.join(&room, who).await;
    }
    server.say(&room, BOB, "one").await;
    let mut sparing = lazy(&server, false).await;
    let mut generous = lazy(&server, true).await;
    generous.viewer.device_id = Some("OTHER".to_owned());
    for client in [&mut sparing, &mut generous] {
        let response = client.sync().await;
        let joined = of(&response, "join", &room);
        assert_eq!(
            members(&joined["state"]["events"]),
            ["join @alice", "join @bob"]
        );
    }
    server.say(&room, BOB, "two").await;
    let before = sparing.since;
    for (client, expected) in [(&mut sparing, &[][..]), (&mut generous, &["join @bob"][..])] {
        let response = client.sync().await;
        assert_eq!(
            members(&of(&response, "join", &room)["state"]["events"]),
            expected
        );
    }
    server.say(&room, CHARLIE, "three").await;
    let response = sparing.sync().await;
    assert_eq!(
        members(&of(&response, "join", &room)["state"]["events"]),
        ["join @charlie"]
    );

    // The answers since were lost: Charlie must be told again, together with whoever changed in the gap.
    server.leave(&room, "@dora:here.org").await;
    server.say(&room, CHARLIE, "four").await;
    sparing.since = before;
    let response = sparing.sync().await;
    let joined = of(&response, "join", &room);
    assert_eq!(brief(&joined["timeline"]["events"]), ["four"]);
    assert_eq!(joined["timeline"]["limited"], true);
    assert_eq!(
        members(&joined["state"]["events"]),
        ["join @charlie", "leave @dora"]
    );
}

#[tokio::test]
async fn heroes_come_with_their_memberships() {
    let server = Server::new().await;
    let room = server.room().await;
    for who in [CHARLIE, BOB] {
        server.join(&room, who).await;
    }
    server.say(&room, ALICE, "one").await;
    let mut alice = lazy(&server, false).await;
    let response = alice.sync().await;
    let joined = of(&response, "join", &room);
    assert_eq!(joined["summary"]["m.heroes"], json!([CHARLIE, BOB]));
    assert_eq!(
        members(&joined["state"]["events"]),
        ["join @alice", "join @bob", "join @charlie"]
    );
}
