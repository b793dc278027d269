//! Long polling: woken exactly by what matters.

use std::time::Duration;

use myelin_data::rooms::ReceiptKind;
use myelin_rooms::Thread;
use myelin_types::RoomNum;
use serde_json::{Value, json};
use tokio::{task::JoinHandle, time::timeout};

use crate::support::{ALICE, BOB, Client, Server, brief, of};

const LONG: Duration = Duration::from_mins(1);

/// A sync that waits, begun before this returns.
async fn waiting(mut client: Client) -> JoinHandle<(Client, Value)> {
    let task = tokio::spawn(async move {
        let response = client.wait(LONG).await;
        (client, response)
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    task
}

async fn woken(task: JoinHandle<(Client, Value)>) -> (Client, Value) {
    timeout(Duration::from_secs(10), task)
        .await
        .expect("the sync is woken")
        .expect("the sync does not panic")
}

#[tokio::test]
async fn news_wake_and_noise_does_not() {
    let server = Server::new().await;
    let room = server.room().await;
    let elsewhere = server.room().await;
    server.join(&room, BOB).await;
    let mut bob = server.client(BOB).await;
    bob.sync().await;

    let task = waiting(bob).await;
    server.say(&elsewhere, ALICE, "noise").await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!task.is_finished());
    server.say(&room, ALICE, "news").await;
    let (bob, response) = woken(task).await;
    assert_eq!(
        brief(&of(&response, "join", &room)["timeline"]["events"]),
        ["news"]
    );

    let user = bob.viewer.user;
    let task = waiting(bob).await;
    server.invite(&elsewhere, ALICE, BOB).await;
    let (bob, response) = woken(task).await;
    assert!(of(&response, "invite", &elsewhere).is_object());

    let task = waiting(bob).await;
    server.join(&elsewhere, BOB).await;
    let (bob, response) = woken(task).await;
    assert!(of(&response, "join", &elsewhere).is_object());

    let task = waiting(bob).await;
    server.say(&elsewhere, ALICE, "now it matters").await;
    let (bob, response) = woken(task).await;
    assert_eq!(
        of(&response, "join", &elsewhere)["timeline"]["events"][0]["content"]["body"],
        "now it matters"
    );

    let task = waiting(bob).await;
    let content = myelin_data::RawJson::of(&json!({"a": 1})).expect("JSON");
    server
        .accounts
        .set_account_data(user, RoomNum::NONE, "x.y", content)
        .await
        .expect("account data can be set");
    let (bob, response) = woken(task).await;
    assert_eq!(response["account_data"]["events"][0]["type"], "x.y");

    let task = waiting(bob).await;
    server
        .rooms
        .set_typing(
            &room,
            &crate::support::user(ALICE),
            Some(Duration::from_secs(20)),
        )
        .await
        .expect("members may type");
    let (bob, response) = woken(task).await;
    assert_eq!(
        of(&response, "join", &room)["ephemeral"]["events"][0]["type"],
        "m.typing"
    );

    let task = waiting(bob).await;
    server.leave(&elsewhere, BOB).await;
    let (bob, response) = woken(task).await;
    assert!(of(&response, "leave", &elsewhere).is_object());

    let task = waiting(bob).await;
    server.say(&elsewhere, ALICE, "not for him").await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!task.is_finished());
    server.sync.stop_waiting();
    let (_, response) = woken(task).await;
    assert_eq!(response["rooms"], json!({}));
}

#[tokio::test]
async fn a_receipt_wakes_the_other_devices_of_its_user() {
    let server = Server::new().await;
    let room = server.room().await;
    server.join(&room, BOB).await;
    for kind in [ReceiptKind::Read, ReceiptKind::ReadPrivate] {
        let event = server.say(&room, ALICE, "x").await;
        let (mut bob, mut alice) = (server.client(BOB).await, server.client(ALICE).await);
        bob.sync().await;
        alice.sync().await;
        let (bob, alice) = (waiting(bob).await, waiting(alice).await);
        let thread = Thread::Unthreaded;
        server.read(&room, BOB, &event, kind, thread).await;
        let (_, response) = woken(bob).await;
        let unread = &of(&response, "join", &room)["unread_notifications"];
        assert_eq!(unread["notification_count"], 0);
        if kind == ReceiptKind::Read {
            woken(alice).await;
        } else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            assert!(!alice.is_finished());
            alice.abort();
        }
    }
}

#[tokio::test]
async fn a_timeout_answers_with_nothing() {
    let server = Server::new().await;
    server.room().await;
    let mut alice = server.client(ALICE).await;
    alice.sync().await;
    let response = alice.wait(Duration::from_millis(30)).await;
    assert_eq!(response["rooms"], json!({}));
}

#[tokio::test]
async fn everybody_in_the_room_is_woken() {
    let server = Server::new().await;
    let room = server.room().await;
    let mut tasks = Vec::new();
    for number in 0..20 {
        let id = format!("@user{number}:here.org");
        server.join(&room, &id).await;
    }
    for number in 0..20 {
        let mut client = server.client(&format!("@user{number}:here.org")).await;
        client.sync().await;
        tasks.push(waiting(client).await);
    }
    server.say(&room, ALICE, "all").await;
    for task in tasks {
        let (_, response) = woken(task).await;
        assert_eq!(
            brief(&of(&response, "join", &room)["timeline"]["events"]),
            ["all"]
        );
    }
}

#[tokio::test]
async fn an_idle_sync_reads_next_to_nothing_however_many_rooms() {
    let server = Server::new().await;
    let mut rooms = Vec::new();
    for _ in 0..60 {
        rooms.push(server.room().await);
    }
    let mut alice = server.client(ALICE).await;
    alice.sync().await;
    alice.sync().await;
    let reads = || {
        let counters = server.store.counters();
        counters.gets + counters.scans
    };
    let before = reads();
    let response = alice.sync().await;
    assert_eq!(response["rooms"], json!({}));
    let idle = reads() - before;
    assert!(idle <= 10, "{idle} reads");

    server.say(&rooms[7], ALICE, "x").await;
    let before = reads();
    let response = alice.sync().await;
    assert!(of(&response, "join", &rooms[7]).is_object());
    let busy = reads() - before;
    assert!(busy <= 60, "{busy} reads for one room that moved");
}
