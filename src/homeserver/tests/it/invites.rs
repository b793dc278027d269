//! Invitations, knocks and their ends between two servers.

use myelin_testkit::{Client, Federated, encoded};
use serde_json::{Value, json};

const V3: &str = "/_matrix/client/v3";

/// What a user's sync says of a room in one of its sections.
async fn section(client: &Client, section: &str, room: &str) -> Value {
    client.sync(None).await["rooms"][section][room].clone()
}

/// What a user is in a room, as somebody in it sees.
async fn membership(client: &Client, room: &str, user: &str) -> Value {
    let path = format!(
        "{V3}/rooms/{}/state/m.room.member/{}",
        encoded(room),
        encoded(user)
    );
    client.get(&path).await.body["membership"].clone()
}

/// The events of a type among those that somebody outside a room is shown.
fn shown<'a>(section: &'a Value, state: &str, kind: &str) -> Vec<&'a Value> {
    let events = section[state]["events"].as_array();
    let events = events.expect("the room is shown").iter();
    events.filter(|event| event["type"] == kind).collect()
}

async fn two() -> (Federated, Client, Client) {
    let servers = Federated::start(2).await;
    let alice = servers[0].register("alice").await;
    let bob = servers[1].register("bob").await;
    (servers, alice, bob)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invitation_is_shown_and_declined_as_often_as_it_comes() {
    let (_servers, alice, bob) = two().await;
    for version in ["1", "11", "12"] {
        let request = json!({
            "preset": "private_chat", "name": "Invites room", "room_version": version,
            "is_direct": true, "invite": [bob.user_id()],
        });
        let room = alice.create_room(&request).await;
        for time in 0..3 {
            let invited = section(&bob, "invite", &room).await;
            let names = shown(&invited, "invite_state", "m.room.name");
            assert_eq!(names[0]["content"]["name"], "Invites room", "{version}");
            assert_eq!(shown(&invited, "invite_state", "m.room.create").len(), 1);
            let members = shown(&invited, "invite_state", "m.room.member");
            // Who invites him, and the invitation.
            assert_eq!(members.len(), 2, "{version}");
            assert_eq!(members[1]["state_key"], bob.user_id());
            assert_eq!(members[1]["content"]["is_direct"] == true, time == 0);

            let since = bob.sync(None).await["next_batch"].clone();
            bob.leave(&room).await.ok();
            assert_eq!(membership(&alice, &room, bob.user_id()).await, "leave");
            let sync = bob.sync(since.as_str()).await;
            let left = &sync["rooms"]["leave"][&room]["timeline"]["events"];
            assert_eq!(left[0]["content"]["membership"], "leave", "{version}");
            assert!(section(&bob, "invite", &room).await.is_null());
            // Once more does no harm.
            bob.leave(&room).await.ok();
            alice.invite(&room, bob.user_id()).await.ok();
        }
        let forget = format!("{V3}/rooms/{}/forget", encoded(&room));
        bob.post(&forget, &json!({}))
            .await
            .refused(400, "M_UNKNOWN");
        bob.leave(&room).await.ok();
        bob.post(&forget, &json!({})).await.ok();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_invited_gets_in_without_being_told_where() {
    let (_servers, alice, bob) = two().await;
    let room = alice
        .create_room(&json!({ "preset": "private_chat", "invite": [bob.user_id()] }))
        .await;
    bob.join(&room).await.ok();
    assert_eq!(membership(&alice, &room, bob.user_id()).await, "join");
    let joined = section(&bob, "join", &room).await;
    let events = joined["timeline"]["events"].as_array().expect("a timeline");
    let join = events
        .iter()
        .find(|event| event["content"]["membership"] == "join" && event["sender"] == bob.user_id())
        .expect("his join is shown");
    assert_eq!(join["unsigned"]["prev_content"]["membership"], "invite");
    // He is in the room, and neither invited twice nor again.
    alice
        .invite(&room, bob.user_id())
        .await
        .refused(403, "M_FORBIDDEN");
    assert!(section(&bob, "invite", &room).await.is_null());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_kept_waiting_by_a_server_that_is_gone() {
    let (mut servers, alice, bob) = two().await;
    let room = alice
        .create_room(&json!({ "preset": "private_chat", "invite": [bob.user_id()] }))
        .await;
    assert!(servers[0].stop().await.clean);
    bob.leave(&room).await.ok();
    assert!(section(&bob, "invite", &room).await.is_null());
    servers[0].resume().await;
    // There he is invited still, and can be invited again.
    assert_eq!(membership(&alice, &room, bob.user_id()).await, "invite");
    alice.invite(&room, bob.user_id()).await.ok();
    assert!(section(&bob, "invite", &room).await.is_object());

    assert!(servers[1].stop().await.clean);
    let late = alice
        .invite(&room, &bob.user_id().replace("bob", "late"))
        .await;
    late.refused(502, "M_UNKNOWN");
    servers[1].resume().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invitations_are_refused_where_they_are_not_wanted() {
    let (_servers, alice, bob) = two().await;
    let room = alice
        .create_room(&json!({ "preset": "private_chat" }))
        .await;
    let nobody = bob.user_id().replace("bob", "nobody");
    alice
        .invite(&room, &nobody)
        .await
        .refused(403, "M_FORBIDDEN");
    let path = format!(
        "{V3}/user/{}/account_data/m.invite_permission_config",
        encoded(bob.user_id())
    );
    bob.put(&path, &json!({ "default_action": "block" }))
        .await
        .ok();
    alice
        .invite(&room, bob.user_id())
        .await
        .refused(403, "M_INVITE_BLOCKED");
    assert!(section(&bob, "invite", &room).await.is_null());
    assert!(membership(&alice, &room, bob.user_id()).await.is_null());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn knocks_are_taken_back_turned_away_and_answered() {
    let (servers, alice, bob) = two().await;
    for (version, rule) in [("7", "knock"), ("10", "knock_restricted"), ("12", "knock")] {
        let request = json!({
            "preset": "private_chat", "name": "Door", "room_version": version,
        });
        let room = alice.create_room(&request).await;
        let server = encoded(servers[0].name().as_str());
        let path = format!("{V3}/knock/{}?server_name={server}", encoded(&room));
        let reason = json!({ "reason": "let me in" });
        // The room is for invited users.
        bob.post(&path, &reason).await.refused(403, "M_FORBIDDEN");
        let rules = json!({ "join_rule": rule, "allow": [] });
        alice
            .set_state(&room, "m.room.join_rules", "", &rules)
            .await;

        for _ in 0..2 {
            bob.post(&path, &reason).await.ok();
            assert_eq!(membership(&alice, &room, bob.user_id()).await, "knock");
            let knocked = section(&bob, "knock", &room).await;
            let names = shown(&knocked, "knock_state", "m.room.name");
            assert_eq!(names[0]["content"]["name"], "Door", "{version}");
            bob.leave(&room).await.ok();
            assert_eq!(membership(&alice, &room, bob.user_id()).await, "leave");
            assert!(section(&bob, "knock", &room).await.is_null());
        }
        bob.post(&path, &reason).await.ok();
        let kick = format!("{V3}/rooms/{}/kick", encoded(&room));
        let target = json!({ "user_id": bob.user_id() });
        alice.post(&kick, &target).await.ok();
        bob.post(&path, &json!({})).await.ok();
        alice.invite(&room, bob.user_id()).await.ok();
        assert!(section(&bob, "invite", &room).await.is_object());
        assert!(section(&bob, "knock", &room).await.is_null());
        bob.post(&path, &reason).await.refused(403, "M_FORBIDDEN");
        bob.join(&room).await.ok();
        bob.post(&path, &reason).await.refused(403, "M_FORBIDDEN");
    }
    let nowhere = format!(
        "{V3}/knock/{}",
        encoded(&format!("!nowhere:{}", servers[0].name()))
    );
    bob.post(&nowhere, &json!({}))
        .await
        .refused(404, "M_NOT_FOUND");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invitation_that_is_taken_back_ends_at_the_invited_user() {
    let (_servers, alice, bob) = two().await;
    for version in ["1", "11", "12"] {
        let request = json!({
            "preset": "private_chat", "room_version": version, "invite": [bob.user_id()],
        });
        let room = alice.create_room(&request).await;
        let sync = bob.sync(None).await;
        assert!(sync["rooms"]["invite"][&room].is_object(), "{version}");
        let since = sync["next_batch"].as_str().map(str::to_owned);
        let kick = format!("{V3}/rooms/{}/kick", encoded(&room));
        let target = json!({ "user_id": bob.user_id(), "reason": "a mistake" });
        alice.post(&kick, &target).await.ok();
        let sync = bob
            .sync_until(since, |sync| !sync["rooms"]["leave"][&room].is_null())
            .await;
        let left = &sync["rooms"]["leave"][&room]["timeline"]["events"];
        assert_eq!(left[0]["sender"], alice.user_id(), "{version}");
        assert_eq!(left[0]["content"]["membership"], "leave");
        assert_eq!(left[0]["content"]["reason"], "a mistake");
        assert!(section(&bob, "invite", &room).await.is_null());
        let refused = bob.join(&room).await;
        assert!([403, 404].contains(&refused.status), "{refused:?}");
        // It can be given again.
        alice.invite(&room, bob.user_id()).await.ok();
        bob.join(&room).await.ok();
        assert_eq!(membership(&alice, &room, bob.user_id()).await, "join");
    }
}
