//! Rooms that span servers, entered through real servers over TLS.

use myelin_testkit::{Client, Federated, encoded};
use reqwest::Method;
use serde_json::{Value, json};

async fn post(client: &Client, path: &str, body: &Value) -> myelin_testkit::Reply {
    let path = format!("/_matrix/client/v3{path}");
    client.request(Method::POST, &path, Some(body)).await
}

async fn get(client: &Client, path: &str) -> myelin_testkit::Reply {
    let path = format!("/_matrix/client/v3{path}");
    client.request(Method::GET, &path, None).await
}

async fn room(client: &Client, request: &Value) -> String {
    let answer = post(client, "/createRoom", request).await.ok();
    let id = answer["room_id"].as_str();
    id.expect("a room has an id").to_owned()
}

/// A path that joins a room through a server.
fn via(room: &str, server: &str) -> String {
    format!("/join/{}?via={}", encoded(room), encoded(server))
}

async fn joined(client: &Client, room: &str) -> Vec<String> {
    let path = format!("/rooms/{}/joined_members", encoded(room));
    let answer = get(client, &path).await.ok();
    let members = answer["joined"].as_object().expect("an object");
    let mut members: Vec<String> = members.keys().cloned().collect();
    members.sort_unstable();
    members
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_of_every_version_is_entered_from_another_server() {
    let servers = Federated::start(2).await;
    let alice = servers[0].register("alice").await;
    let bob = servers[1].register("bob").await;
    for version in 1..=12 {
        let request = json!({ "preset": "public_chat", "room_version": version.to_string() });
        let room = room(&alice, &request).await;
        let path = via(&room, servers[0].name().as_str());
        let answer = post(&bob, &path, &json!({ "reason": "curious" })).await;
        assert_eq!(answer.ok(), json!({ "room_id": room }), "version {version}");
        let both = joined(&alice, &room).await;
        assert_eq!(both.len(), 2, "version {version}");
        assert_eq!(joined(&bob, &room).await, both);
        // Whoever joins twice has joined once.
        post(&bob, &path, &json!({})).await.ok();
        let entry = format!("m.room.member/{}", encoded(bob.user_id()));
        let path = format!("/rooms/{}/state/{entry}", encoded(&room));
        let here = get(&bob, &path).await.ok();
        assert_eq!(here["reason"], "curious");
        assert_eq!(get(&alice, &path).await.ok(), here);
        let sync = get(&bob, "/sync").await.ok();
        let timeline = &sync["rooms"]["join"][&room]["timeline"]["events"];
        assert_eq!(timeline.as_array().map(Vec::len), Some(1));
        assert_eq!(timeline[0]["state_key"], bob.user_id());
        // What was before is there for whoever pages back.
        let timeline = &sync["rooms"]["join"][&room]["timeline"];
        assert_eq!(timeline["limited"], true, "version {version}");
        let from = encoded(timeline["prev_batch"].as_str().expect("a token"));
        let path = format!("/rooms/{}/messages?dir=b&from={from}", encoded(&room));
        let page = get(&bob, &path).await.ok();
        let chunk = page["chunk"].as_array().expect("a list");
        assert!(chunk.iter().any(|event| event["type"] == "m.room.create"));
        let state = &sync["rooms"]["join"][&room]["state"]["events"];
        let state = state.as_array().expect("a list");
        assert!(state.iter().any(|event| event["type"] == "m.room.create"));
        let sync = get(&alice, "/sync").await.ok();
        let whole = &sync["rooms"]["join"][&room]["timeline"];
        assert_eq!(whole["limited"], false, "she has it from its beginning");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_servers_are_asked_when_one_does_not_help() {
    let servers = Federated::start(3).await;
    let alice = servers[0].register("alice").await;
    let bob = servers[1].register("bob").await;
    let request = json!({ "preset": "public_chat", "room_alias_name": "door" });
    let public = room(&alice, &request).await;
    // The third server is not in the room.
    let (first, third) = (servers[0].name().as_str(), servers[2].name().as_str());
    let path = format!("{}&via={}", via(&public, third), encoded(first));
    post(&bob, &path, &json!({})).await.ok();
    assert_eq!(joined(&bob, &public).await.len(), 2);

    let charlie = servers[2].register("charlie").await;
    let alias = format!("/join/{}", encoded(&format!("#door:{first}")));
    post(&charlie, &alias, &json!({})).await.ok();
    // Now also through somebody who entered it himself.
    let dora = servers[2].register("dora").await;
    post(&dora, &via(&public, third), &json!({})).await.ok();

    let private = room(&alice, &json!({ "preset": "private_chat" })).await;
    post(&bob, &via(&private, first), &json!({}))
        .await
        .refused(403, "M_FORBIDDEN");
    // The server in the room's id is asked if no other is named.
    let nowhere = "!nowhere:localhost:1";
    post(&bob, &via(nowhere, first), &json!({}))
        .await
        .refused(404, "M_NOT_FOUND");
    post(&bob, &format!("/join/{}", encoded(nowhere)), &json!({}))
        .await
        .refused(502, "M_UNKNOWN");
    let unknown = format!("!nowhere:{first}");
    post(&bob, &via(&unknown, third), &json!({}))
        .await
        .refused(404, "M_NOT_FOUND");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_that_was_left_is_entered_again() {
    let mut servers = Federated::start(2).await;
    let alice = servers[0].register("alice").await;
    let bob = servers[1].register("bob").await;
    let room = room(&alice, &json!({ "preset": "public_chat" })).await;
    let path = via(&room, servers[0].name().as_str());
    post(&bob, &path, &json!({})).await.ok();
    let leave = format!("/rooms/{}/leave", encoded(&room));
    post(&bob, &leave, &json!({})).await.ok();
    servers[1].stop().await;
    servers[1].resume().await;
    let name = format!("/rooms/{}/state/m.room.name", encoded(&room));
    let body = json!({ "name": "New" });
    let put = format!("/_matrix/client/v3{name}");
    alice.request(Method::PUT, &put, Some(&body)).await.ok();
    post(&bob, &path, &json!({})).await.ok();
    assert_eq!(get(&bob, &name).await.ok(), body);
    assert_eq!(joined(&bob, &room).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_names_servers_gets_in_through_none_but_those() {
    let servers = Federated::start(3).await;
    let alice = servers[0].register("alice").await;
    let bob = servers[1].register("bob").await;
    let charlie = servers[2].register("charlie").await;
    let (first, second) = (servers[0].name().as_str(), servers[1].name().as_str());
    // Version 8: the room's id names the first server.
    let request = json!({ "preset": "public_chat", "room_version": "8" });
    let (allowed, door) = (room(&alice, &request).await, room(&alice, &request).await);
    let rule = json!({
        "join_rule": "restricted",
        "allow": [{ "type": "m.room_membership", "room_id": allowed }],
    });
    alice.set_state(&door, "m.room.join_rules", "", &rule).await;
    let levels = json!({ "invite": 100, "users": { alice.user_id(): 100 } });
    alice
        .set_state(&door, "m.room.power_levels", "", &levels)
        .await;
    for room in [&allowed, &door] {
        post(&bob, &via(room, first), &json!({})).await.ok();
    }
    post(&charlie, &via(&allowed, first), &json!({})).await.ok();
    bob.sync_until(None, |sync| {
        let allowed = &sync["rooms"]["join"][&allowed];
        allowed.to_string().contains(charlie.user_id())
    })
    .await;
    // Nobody on the second server may let him in.
    post(&charlie, &via(&door, second), &json!({}))
        .await
        .refused(502, "M_UNKNOWN");
    let both = format!("{}&via={}", via(&door, second), encoded(first));
    post(&charlie, &both, &json!({})).await.ok();
    let member = format!(
        "/rooms/{}/state/m.room.member/{}",
        encoded(&door),
        encoded(charlie.user_id())
    );
    let joined = get(&alice, &member).await.ok();
    assert_eq!(joined["join_authorised_via_users_server"], alice.user_id());

    // The second server may let people in now, but cannot tell any more who is in the other room.
    let levels = json!({ "users": { alice.user_id(): 100, bob.user_id(): 100 }, "invite": 100 });
    let levels = alice
        .set_state(&door, "m.room.power_levels", "", &levels)
        .await;
    bob.sync_until(None, |sync| {
        sync["rooms"]["join"][&door].to_string().contains(&levels)
    })
    .await;
    post(
        &bob,
        &format!("/rooms/{}/leave", encoded(&allowed)),
        &json!({}),
    )
    .await
    .ok();
    charlie.leave(&door).await.ok();
    bob.sync_until(None, |sync| {
        sync["rooms"]["join"][&door]["summary"]["m.joined_member_count"] == 2
    })
    .await;
    post(&charlie, &via(&door, second), &json!({}))
        .await
        .refused(502, "M_UNKNOWN");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_not_let_in_hears_why_from_the_room_s_server() {
    let servers = Federated::start(2).await;
    let alice = servers[0].register("alice").await;
    let bob = servers[1].register("bob").await;
    let request = json!({ "preset": "public_chat" });
    let room = room(&alice, &request).await;
    let ban = json!({ "user_id": bob.user_id() });
    let path = format!("/rooms/{}/ban", encoded(&room));
    post(&alice, &path, &ban).await.ok();
    let refused = post(&bob, &via(&room, servers[0].name().as_str()), &json!({})).await;
    let refused = refused.refused(403, "M_FORBIDDEN");
    let text = refused["error"].as_str().expect("a text");
    assert!(text.contains("banned"), "{text}");
}
