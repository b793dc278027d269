//! What must not be lost and is no event: messages to devices, and changes of device lists.

use std::collections::BTreeSet;

use myelin_data::{
    accounts::{Device, Devices},
    e2ee::{DeviceListChange, DeviceLists, ToDeviceOutbox, record_change},
};
use myelin_e2ee::{Recipient, SendToDevice};
use myelin_rooms::{Enter, JsonObject, Profile, TransactionId};
use myelin_store::{Batch, Scan};
use myelin_types::UserNum;
use ruma::{RoomId, ServerName, UserId, user_id};
use serde_json::{Value, json, value::to_raw_value};

use super::support::{Process, World, alice, server, until};
use crate::testing::NOW;

/// Sends numbered messages to a user of a server, each with a request of its own.
async fn send(process: &Process, to: &ServerName, numbers: std::ops::Range<u64>) {
    let user = UserId::parse(format!("@bob:{to}")).expect("a user id");
    for number in numbers {
        let content = to_raw_value(&json!({ "n": number })).expect("it is JSON");
        let devices = [(Recipient::Device("B".to_owned()), content)];
        let request = SendToDevice {
            sender: UserNum(1),
            sender_id: alice(),
            event_type: "my.test.type".to_owned(),
            transaction: TransactionId {
                device_id: "A".to_owned(),
                path: format!("/{to}"),
                id: number.to_string(),
            },
            messages: [(user.clone(), devices.into())].into(),
        };
        let sent = process.outbound.0.e2ee.send_to_device(request).await;
        sent.expect("it is sent");
    }
}

fn is_message(edu: &Value) -> bool {
    edu["edu_type"] == "m.direct_to_device"
}

/// The numbers of messages, and their ids.
fn numbers(edus: &[Value]) -> (Vec<u64>, Vec<String>) {
    let messages = edus.iter().filter(|edu| is_message(edu));
    let read = messages.map(|edu| {
        let content = &edu["content"];
        let users = content["messages"].as_object().expect("a map");
        let number = users.values().next().map(|devices| &devices["B"]["n"]);
        let number = number.and_then(Value::as_u64).expect("a number");
        (number, content["message_id"].to_string())
    });
    read.unzip()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_was_down_gets_all_messages_in_order_and_not_behind_events() {
    let world = World::new().await;
    let room = world.room(2).await;
    let (down, up) = (server(0), server(1));
    world.elsewhere.refuse(&down, 502);
    let process = world.start().await;
    for number in 0..300 {
        world.say(&room, number.to_string()).await;
    }
    for half in [0..500, 500..1_000] {
        send(&process, &down, half.clone()).await;
        send(&process, &up, half).await;
    }
    until(|| numbers(&world.elsewhere.edus(&up)).0.len() >= 1_000).await;
    until(|| !world.elsewhere.came(&down).is_empty()).await;
    process.stop().await;

    let process = world.start().await;
    world.elsewhere.answer(&down);
    process.outbound.heard(&down);
    until(|| numbers(&world.elsewhere.edus(&down)).0.len() >= 400).await;
    process.crash().await;
    let process = world.start().await;
    process.outbound.heard(&down);
    let all: Vec<u64> = (0..1_000).collect();
    let seen = |server| {
        let (numbers, ids) = numbers(&world.elsewhere.edus(server));
        let mut met = BTreeSet::new();
        // A crash sends what it cut off again, under the same id.
        let first = numbers
            .into_iter()
            .zip(ids)
            .filter(|(_, id)| met.insert(id.clone()));
        first.map(|(number, _)| number).collect::<Vec<_>>()
    };
    until(|| seen(&down).len() >= 1_000 && world.elsewhere.texts(&down).len() >= 300).await;
    process.stop().await;
    assert_eq!(seen(&up), all);
    assert_eq!(seen(&down), all);
    // They do not wait for the events that were said before them.
    let first = &world.elsewhere.taken(&down)[0].content;
    let edus = first["edus"].as_array().expect("a list");
    assert!(edus.iter().any(is_message));
    let view = world.here.store.view();
    assert_eq!(view.keys::<ToDeviceOutbox>(Scan::all()).count(), 0);
}

#[tokio::test]
async fn a_message_that_was_cut_off_comes_again_under_its_id() {
    let world = World::new().await;
    let there = server(0);
    let process = world.start().await;
    world.elsewhere.hold(&there);
    send(&process, &there, 0..1).await;
    until(|| world.elsewhere.came(&there).len() == 1).await;
    process.crash().await;
    world.elsewhere.let_go();
    world
        .here
        .clock
        .advance(std::time::Duration::from_millis(1));
    let process = world.start().await;
    until(|| !world.elsewhere.taken(&there).is_empty()).await;
    process.stop().await;
    let came = world.elsewhere.came(&there);
    assert_eq!(came.len(), 2);
    assert_eq!(came[0].content["edus"], came[1].content["edus"]);
    assert_ne!(came[0].id, came[1].id);
}

#[tokio::test]
async fn after_a_failure_messages_go_alone() {
    let world = World::new().await;
    let room = world.room(1).await;
    let there = server(0);
    world.elsewhere.refuse(&there, 502);
    let process = world.start().await;
    world
        .say(&room, "an event that may be at fault".to_owned())
        .await;
    until(|| process.outbound.with(|book| book.census().waiting) == Some(1)).await;
    send(&process, &there, 0..1).await;
    world.elsewhere.answer(&there);
    world.here.clock.advance(std::time::Duration::from_mins(1));
    process.outbound.0.wake.notify_one();
    until(|| world.elsewhere.taken(&there).len() == 2).await;
    process.stop().await;
    let taken = world.elsewhere.taken(&there);
    assert_eq!(taken[0].content["pdus"], json!([]));
    assert!(is_message(&taken[0].content["edus"][0]));
    assert_eq!(world.elsewhere.texts(&there).len(), 1);
}

#[tokio::test]
async fn messages_that_a_server_refuses_again_and_again_are_passed_over() {
    let world = World::new().await;
    let there = server(0);
    let process = world.start().await;
    world.elsewhere.refuse(&there, 400);
    send(&process, &there, 0..1).await;
    for attempts in 1..=3 {
        until(|| world.elsewhere.came(&there).len() == attempts).await;
        until(|| process.outbound.with(|book| book.census().sending) == Some(0)).await;
        world.here.clock.advance(std::time::Duration::from_mins(1));
        process.outbound.0.wake.notify_one();
    }
    world.elsewhere.answer(&there);
    send(&process, &there, 1..2).await;
    until(|| !world.elsewhere.taken(&there).is_empty()).await;
    process.stop().await;
    assert_eq!(numbers(&world.elsewhere.edus(&there)).0, [1]);
}

async fn user(world: &World, user: &UserId) -> UserNum {
    let user = world.here.rooms.interner().user(user).await;
    user.expect("the store works")
}

/// Changes a device of a user; `there`: it is there afterwards.
async fn change(world: &World, user: UserNum, device: &str, there: bool) {
    let mut batch = Batch::new();
    let key = (user, device.to_owned());
    if there {
        let row = Device {
            display_name: Some(device.to_lowercase()),
            created_at: NOW,
            last_seen_at: None,
            last_seen_ip: None,
        };
        batch.put::<Devices>(&key, &row);
    } else {
        batch.delete::<Devices>(&key);
    }
    let changes = [DeviceListChange::Device(device.to_owned())];
    record_change(&world.here.store.view(), &mut batch, user, changes).expect("it is read");
    world.here.store.commit(batch).await.expect("committed");
}

fn update(device: &str, number: u64, deleted: bool) -> Value {
    let mut content = json!({
        "user_id": alice(),
        "device_id": device,
        "stream_id": number,
        "prev_id": [number - 1],
    });
    if deleted {
        content["deleted"] = true.into();
    } else {
        content["device_display_name"] = device.to_lowercase().into();
    }
    json!({ "edu_type": "m.device_list_update", "content": content })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_of_shared_rooms_hear_of_every_change_once() {
    let world = World::new().await;
    world.room(2).await;
    world.room(2).await;
    let alice = user(&world, &alice()).await;
    let nobody = user(&world, user_id!("@nobody:here.example")).await;
    let remote = user(&world, user_id!("@bob:s0.example")).await;
    let process = world.start().await;
    let (down, up) = (server(0), server(1));
    change(&world, alice, "A", true).await;
    let first = [update("A", 1, false)];
    for there in [&down, &up] {
        until(|| world.elsewhere.edus(there) == first).await;
    }
    world.elsewhere.refuse(&down, 502);
    change(&world, alice, "B", true).await;
    until(|| world.elsewhere.came(&down).len() == 2).await;
    process.crash().await;
    let process = world.start().await;
    change(&world, nobody, "X", true).await;
    change(&world, remote, "Y", true).await;
    change(&world, alice, "A", false).await;
    let all = [
        update("A", 1, false),
        update("B", 2, false),
        update("A", 3, true),
    ];
    until(|| world.elsewhere.edus(&up).last() == Some(&all[2])).await;
    world.elsewhere.answer(&down);
    process.outbound.heard(&down);
    until(|| world.elsewhere.edus(&down).len() >= 3).await;
    process.stop().await;
    assert_eq!(world.elsewhere.edus(&down), all);
    // The process that crashed had not stored how far it was.
    let mut last = world.elsewhere.edus(&up);
    last.dedup();
    for edu in all {
        assert!(last.contains(&edu), "{edu}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_missed_much_hears_of_the_newest_change_alone() {
    let world = World::new().await;
    let room = world.room(1).await;
    let num = user(&world, &alice()).await;
    let there = server(0);
    world.elsewhere.refuse(&there, 502);
    let process = world.start().await;
    world.say(&room, "before".to_owned()).await;
    until(|| process.outbound.with(|book| book.census().waiting) == Some(1)).await;
    for number in 0..40 {
        change(&world, num, &format!("D{number}"), true).await;
    }
    let list = world.here.store.view().get::<DeviceLists>(&num);
    let list = list.expect("it is read").expect("it is there");
    assert_eq!((list.stream_id, list.recent.len()), (40, 16));
    process.stop().await;
    let process = world.start().await;
    world.elsewhere.answer(&there);
    process.outbound.heard(&there);
    until(|| !world.elsewhere.texts(&there).is_empty()).await;
    process.stop().await;
    assert_eq!(world.elsewhere.edus(&there), [update("D39", 40, false)]);
}

async fn join(world: &World, room: &RoomId) {
    let joined = world.here.rooms.join(Enter {
        room_id: room.to_owned(),
        user: alice(),
        profile: Profile::default(),
        reason: None,
        extra: JsonObject::new(),
    });
    joined.await.expect("she may come");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_meets_a_user_learns_of_the_list() {
    let world = World::new().await;
    let num = user(&world, &alice()).await;
    for device in ["A", "B"] {
        change(&world, num, device, true).await;
    }
    // Alice shares a room with the first two already, but not with the third.
    world.room(2).await;
    let room = world.room_of(user_id!("@carol:here.example"), 3).await;
    let process = world.start().await;
    join(&world, &room).await;
    for number in 0..3 {
        until(|| !world.elsewhere.taken(&server(number)).is_empty()).await;
    }
    process.stop().await;
    for number in 0..2 {
        assert_eq!(world.elsewhere.edus(&server(number)), [json!(null); 0]);
    }
    // With the event that tells of her, the newest change: who does not know the one before asks for all.
    let taken = world.elsewhere.taken(&server(2));
    assert_eq!(taken.len(), 1);
    assert_eq!(taken[0].content["edus"], json!([update("B", 2, false)]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_meets_a_user_without_keys_learns_of_his_devices() {
    let world = World::new().await;
    let num = user(&world, &alice()).await;
    let device = Device {
        display_name: Some("a".to_owned()),
        created_at: NOW,
        last_seen_at: None,
        last_seen_ip: None,
    };
    let mut batch = Batch::new();
    batch.put::<Devices>(&(num, "A".to_owned()), &device);
    world.here.store.commit(batch).await.expect("committed");
    let room = world.room_of(user_id!("@carol:here.example"), 1).await;
    let process = world.start().await;
    join(&world, &room).await;
    until(|| !world.elsewhere.edus(&server(0)).is_empty()).await;
    process.stop().await;
    let told = world.elsewhere.edus(&server(0));
    assert_eq!(told[0]["content"]["device_id"], "A");
    assert_eq!(told[0]["content"]["device_display_name"], "a");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_did_not_answer_then_learns_of_the_list_later() {
    let world = World::new().await;
    let num = user(&world, &alice()).await;
    change(&world, num, "A", true).await;
    let room = world.room_of(user_id!("@carol:here.example"), 1).await;
    let there = server(0);
    let process = world.start().await;
    world.elsewhere.refuse(&there, 502);
    join(&world, &room).await;
    until(|| process.outbound.with(|book| book.census().waiting) == Some(1)).await;
    world.elsewhere.answer(&there);
    process.outbound.heard(&there);
    until(|| !world.elsewhere.edus(&there).is_empty()).await;
    process.stop().await;
    assert_eq!(world.elsewhere.edus(&there)[0], update("A", 1, false));
}
