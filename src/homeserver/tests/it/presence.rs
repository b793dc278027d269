//! Presence across servers, and a room between them as the doctor sees it.

use std::sync::Arc;

use myelin_rooms::doctor::{Examination, Report, Verdict};
use myelin_testkit::{Client, Federated, TestServer, encoded};
use ruma::RoomId;
use serde_json::{Value, json};

/// Sets a client's presence.
async fn set(client: &Client, state: &str, status: Option<&str>) {
    let user = encoded(client.user_id());
    let path = format!("/_matrix/client/v3/presence/{user}/status");
    let mut body = json!({ "presence": state });
    if let Some(status) = status {
        body["status_msg"] = Value::from(status);
    }
    client.put(&path, &body).await.ok();
}

/// The presence of somebody in an answer to a sync.
fn told<'a>(sync: &'a Value, user: &str) -> Option<&'a Value> {
    let events = sync["presence"]["events"].as_array()?;
    let of_user = events.iter().rfind(|event| event["sender"] == user);
    of_user.map(|event| &event["content"])
}

/// A room of alice's on the first server that bob of the second one is in.
async fn shared_room(servers: &Federated) -> (Client, Client, String) {
    let alice = servers[0].register("alice").await;
    let bob = servers[1].register("bob").await;
    let room = alice.create_room(&json!({ "preset": "public_chat" })).await;
    let via = encoded(servers[0].name().as_str());
    let join = format!("/_matrix/client/v3/join/{}?via={via}", encoded(&room));
    bob.post(&join, &json!({})).await.ok();
    (alice, bob, room)
}

fn token(sync: &Value) -> Option<String> {
    sync["next_batch"].as_str().map(str::to_owned)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_of_other_servers_see_who_is_there() {
    let servers = Federated::start(2).await;
    let (alice, bob, _) = shared_room(&servers).await;
    let since = token(&bob.sync(None).await);

    set(&alice, "online", Some("Across servers")).await;
    let sync = bob
        .sync_until(since, |sync| {
            told(sync, alice.user_id()).is_some_and(|content| content["presence"] == "online")
        })
        .await;
    let content = told(&sync, alice.user_id()).expect("it was awaited");
    assert_eq!(content["status_msg"], "Across servers");
    assert_eq!(content["currently_active"], true);

    set(&alice, "unavailable", None).await;
    bob.sync_until(token(&sync), |sync| {
        told(sync, alice.user_id()).is_some_and(|content| {
            content["presence"] == "unavailable" && content.get("status_msg").is_none()
        })
    })
    .await;
    let user = encoded(alice.user_id());
    let path = format!("/_matrix/client/v3/presence/{user}/status");
    assert_eq!(bob.get(&path).await.ok()["presence"], "unavailable");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn presence_stays_at_home_where_it_is_told_to() {
    let servers = Federated::builder(2)
        .configure(|number, config| config.presence.outbound = number == 1)
        .start()
        .await;
    let (alice, bob, _) = shared_room(&servers).await;
    let since = token(&bob.sync(None).await);
    let home = token(&alice.sync(None).await);
    set(&alice, "unavailable", Some("At home")).await;
    set(&bob, "unavailable", Some("Across servers")).await;
    // What the second server tells arrives, so what the first one told would have, too.
    alice
        .sync_until(home, |sync| {
            told(sync, bob.user_id())
                .is_some_and(|content| content["status_msg"] == "Across servers")
        })
        .await;
    assert_eq!(
        told(&bob.sync(since.as_deref()).await, alice.user_id()),
        None
    );
}

async fn examine(server: &TestServer, room: &str) -> Report {
    let state = server.server().state();
    let room = <&RoomId>::try_from(room).expect("a room id");
    let examined = state
        .rooms
        .examine(
            room,
            Examination { compare_with: 3 },
            Arc::new(state.federation.clone()),
            Arc::new(|_| {}),
        )
        .await;
    examined.expect("the room can be examined")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_servers_have_the_same_healthy_room() {
    let servers = Federated::start(2).await;
    let (alice, bob, room) = shared_room(&servers).await;
    let since = token(&bob.sync(None).await);
    alice
        .set_state(&room, "m.room.topic", "", &json!({ "topic": "Health" }))
        .await;
    let last = alice.say(&room, "last").await;
    let events = |sync: &Value| {
        let timeline = &sync["rooms"]["join"][&room]["timeline"]["events"];
        timeline.as_array().cloned().unwrap_or_default()
    };
    bob.sync_until(since, |sync| {
        events(sync).iter().any(|event| event["event_id"] == last)
    })
    .await;
    for server in &servers {
        let report = examine(server, &room).await;
        assert_eq!(report.verdict, Verdict::Healthy, "{report:?}");
        assert_eq!((report.joined, report.servers), (2, 2));
        let [peer] = report.peers.as_slice() else {
            panic!("there is one other server: {report:?}");
        };
        assert!(peer.agrees, "{report:?}");
    }
}
