//! Messages over a real store: what waits for other servers, what comes from them, and what is thrown away.

use std::{sync::Arc, time::Duration};

use myelin_data::e2ee::{ToDeviceInbox, ToDeviceOutbox, ToDeviceSeen, ToDeviceSeenByTime};
use myelin_rooms::{TransactionId, token::InboxPlace};
use myelin_store::Scan;
use myelin_types::{Pos, UserNum};
use parking_lot::Mutex;
use ruma::{OwnedServerName, owned_server_name};
use serde_json::{Value, json, value::to_raw_value};

use super::*;
use crate::testing::{World, id};

const ALICE: &str = "@alice:here.example";
const BOB: &str = "@bob:there.example";

fn messages(user: &str, recipient: Recipient, content: &Value) -> Messages {
    let content = to_raw_value(content).expect("it is JSON");
    [(id(user), [(recipient, content)].into())].into()
}

fn device(name: &str) -> Recipient {
    Recipient::Device(name.to_owned())
}

fn there() -> OwnedServerName {
    owned_server_name!("there.example")
}

async fn send(world: &World, sender: UserNum, number: u64, messages: Messages) {
    let request = SendToDevice {
        sender,
        sender_id: id(ALICE),
        event_type: "my.test.type".to_owned(),
        transaction: TransactionId {
            device_id: "A".to_owned(),
            path: "/sendToDevice/my.test.type".to_owned(),
            id: number.to_string(),
        },
        messages,
    };
    world
        .e2ee
        .send_to_device(request)
        .await
        .expect("it is sent");
}

fn remote(message_id: &str, messages: Messages) -> RemoteMessage {
    RemoteMessage {
        sender: id(BOB),
        event_type: "my.test.type".to_owned(),
        message_id: message_id.to_owned(),
        messages,
    }
}

/// What a device is told, as numbers.
fn told(world: &World, user: UserNum, device: &str) -> Vec<u64> {
    let inbox = world.e2ee.inbox(&world.store.view(), user, device, None);
    let inbox = inbox.expect("the store reads");
    let events = inbox.events.iter().map(|event| {
        let event: Value = serde_json::from_str(event.get()).expect("it is JSON");
        event["content"]["n"].as_u64().expect("a number")
    });
    events.collect()
}

fn outbox(world: &World) -> Vec<Value> {
    let messages = world
        .e2ee
        .outbox(&world.store.view(), &there(), 1_000, usize::MAX);
    let messages = messages.expect("the store reads").into_iter();
    messages
        .map(|message| serde_json::from_str(message.content.get()).expect("it is JSON"))
        .collect()
}

#[tokio::test]
async fn messages_for_other_servers_wait_in_their_order() {
    let world = World::new().await;
    let alice = world.user(ALICE, &["A"]).await;
    let for_bob = |n: u64| messages(BOB, device("B"), &json!({ "n": n }));
    // As long as nobody takes them they are passed over.
    send(&world, alice, 0, for_bob(0)).await;
    let told: Arc<Mutex<Vec<OwnedServerName>>> = Arc::default();
    let teller = Arc::clone(&told);
    world
        .e2ee
        .serve_outbox(move |server| teller.lock().push(server.to_owned()));
    for n in [1, 2, 2, 3] {
        send(&world, alice, n, for_bob(n)).await;
    }
    assert_eq!(*told.lock(), [there(), there(), there()]);
    let waiting = outbox(&world);
    let numbers: Vec<&Value> = waiting
        .iter()
        .map(|edu| &edu["messages"][BOB]["B"]["n"])
        .collect();
    assert_eq!(numbers, [&json!(1), &json!(2), &json!(3)]);
    assert_eq!(waiting[0]["sender"], ALICE);
    assert_eq!(waiting[0]["type"], "my.test.type");
    let ids: std::collections::BTreeSet<String> = waiting
        .iter()
        .map(|edu| edu["message_id"].to_string())
        .collect();
    assert_eq!(ids.len(), 3);
    let view = world.store.view();
    let servers = world.e2ee.servers_with_outbox(&view);
    assert_eq!(servers.expect("the store reads"), [there()]);

    let first = world.e2ee.outbox(&view, &there(), 2, usize::MAX);
    let places: Vec<_> = first
        .expect("the store reads")
        .iter()
        .map(|message| message.place)
        .collect();
    let deleted = world.e2ee.delete_sent(&there(), &places).await;
    deleted.expect("the store works");
    assert_eq!(outbox(&world).len(), 1);
    // One that is too long alone is handed over all the same.
    let long = world.e2ee.outbox(&world.store.view(), &there(), 2, 1);
    assert_eq!(long.expect("the store reads").len(), 1);
}

#[tokio::test]
async fn large_requests_are_divided() {
    let world = World::new().await;
    let alice = world.user(ALICE, &["A"]).await;
    world.e2ee.serve_outbox(|_| {});
    let mut all = Messages::new();
    for number in 0..10 {
        let content = json!({ "text": "x".repeat(20_000) });
        let of_one = messages(
            &format!("@u{number}:there.example"),
            Recipient::All,
            &content,
        );
        all.extend(of_one);
    }
    send(&world, alice, 1, all).await;
    let edus = outbox(&world);
    assert_eq!(edus.len(), 5);
    let users = edus
        .iter()
        .flat_map(|edu| edu["messages"].as_object().expect("a map").keys());
    assert_eq!(users.count(), 10);
}

#[tokio::test]
async fn a_message_of_another_server_is_delivered_once() {
    let world = World::new().await;
    let alice = world.user(ALICE, &["A", "B"]).await;
    let message = |id: &str, n: u64| remote(id, messages(ALICE, device("A"), &json!({ "n": n })));
    let origin = there();
    let receive = |messages| world.e2ee.receive_to_device(&origin, messages);
    receive(vec![message("1", 1), message("1", 1), message("2", 2)])
        .await
        .expect("taken");
    receive(vec![message("2", 2), message("3", 3)])
        .await
        .expect("taken");
    assert_eq!(told(&world, alice, "A"), [1, 2, 3]);
    assert_eq!(told(&world, alice, "B"), [0; 0]);
    let all = remote("4", messages(ALICE, Recipient::All, &json!({ "n": 4 })));
    receive(vec![all]).await.expect("taken");
    assert_eq!(told(&world, alice, "B"), [4]);
    // Another server's ids are its own; and nobody speaks for users of others.
    let elsewhere = owned_server_name!("elsewhere.example");
    let forged = world
        .e2ee
        .receive_to_device(&elsewhere, vec![message("5", 5)]);
    forged.await.expect("passed over");
    let unknown = vec![
        remote(
            "6",
            messages("@nobody:here.example", Recipient::All, &json!({ "n": 6 })),
        ),
        remote("7", messages(ALICE, device("C"), &json!({ "n": 7 }))),
        remote("8", messages(BOB, Recipient::All, &json!({ "n": 8 }))),
        remote("9", messages(ALICE, device("A"), &json!(9))),
        message(&"x".repeat(200), 10),
    ];
    receive(unknown).await.expect("passed over");
    assert_eq!(told(&world, alice, "A"), [1, 2, 3, 4]);
}

#[tokio::test]
async fn an_inbox_is_cut_within_a_batch() {
    let world = World::new().await;
    let alice = world.user(ALICE, &["A"]).await;
    let many = (0..150).map(|n| {
        let content = json!({ "n": n });
        remote(&n.to_string(), messages(ALICE, device("A"), &content))
    });
    let origin = there();
    let received = world.e2ee.receive_to_device(&origin, many.collect());
    received.await.expect("taken");
    let view = world.store.view();
    let read = |since| {
        let inbox = world.e2ee.inbox(&view, alice, "A", since);
        inbox.expect("the store reads")
    };
    let first = read(None);
    assert_eq!(first.events.len(), MOST_TOLD);
    let cut = first.cut_at.expect("there are more");
    assert_eq!(cut.index, 99);
    let second = read(Some(cut));
    assert_eq!((second.events.len(), second.cut_at), (50, None));
    world.e2ee.delete_acknowledged(&second);
    // Nobody waits for that; what comes after it does.
    world.commit(Batch::new()).await;
    let view = world.store.view();
    let left = world.e2ee.inbox(&view, alice, "A", None);
    assert_eq!(left.expect("the store reads").events.len(), 50);
}

#[tokio::test]
async fn what_nobody_fetches_goes() {
    let world = World::new().await;
    let alice = world.user(ALICE, &["A"]).await;
    world.e2ee.serve_outbox(|_| {});
    let tidy = async || {
        while world.e2ee.tidy_to_device().await.expect("the store works") {}
        while world.e2ee.tidy_outbox().await.expect("the store works") {}
    };
    let local = |n: u64| messages(ALICE, device("A"), &json!({ "n": n }));
    let message = remote("1", local(0));
    let origin = there();
    let received = world.e2ee.receive_to_device(&origin, vec![message]);
    received.await.expect("taken");
    send(&world, alice, 1, local(1)).await;
    send(&world, alice, 2, messages(BOB, Recipient::All, &json!({}))).await;
    let count = || {
        let view = world.store.view();
        [
            view.keys::<ToDeviceInbox>(Scan::all()).count(),
            view.keys::<ToDeviceOutbox>(Scan::all()).count(),
            view.keys::<ToDeviceSeen>(Scan::all()).count(),
            view.keys::<ToDeviceSeenByTime>(Scan::all()).count(),
        ]
    };
    tidy().await;
    assert_eq!(count(), [2, 1, 1, 1]);
    world.clock.advance(Duration::from_hours(24 * 8));
    tidy().await;
    assert_eq!(count(), [2, 1, 0, 0]);
    world.clock.advance(Duration::from_hours(24 * 170));
    send(&world, alice, 3, local(3)).await;
    world.clock.advance(Duration::from_hours(24 * 5));
    tidy().await;
    assert_eq!(told(&world, alice, "A"), [3]);
    assert_eq!(count(), [1, 0, 0, 0]);
}

#[tokio::test]
async fn a_full_inbox_loses_its_oldest_messages() {
    let world = World::new().await;
    let alice = world.user(ALICE, &["A"]).await;
    // As if they had been sent one by one.
    let mut batch = Batch::new();
    for index in 0..20_100 {
        let message = DeviceMessage {
            since: world.e2ee.0.clock.now(),
            json: RawJson::of(&json!({ "content": { "n": index } })).expect("it is JSON"),
        };
        batch.put::<ToDeviceInbox>(&(alice, "A".to_owned(), Pos(1), index), &message);
    }
    world.commit(batch).await;
    while world.e2ee.tidy_to_device().await.expect("the store works") {}
    let view = world.store.view();
    assert_eq!(view.keys::<ToDeviceInbox>(Scan::all()).count(), 20_000);
    let known = InboxPlace {
        pos: Pos(1),
        index: 98,
    };
    let inbox = world.e2ee.inbox(&view, alice, "A", Some(known));
    let inbox = inbox.expect("the store reads");
    assert!(!inbox.has_acknowledged());
    assert!(inbox.events[0].get().contains("100"));
}
