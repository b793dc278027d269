//! What must hold of sending as a whole: nothing is lost, nothing comes twice or out of order, nobody waits for others,
//! and it costs as little for many servers as for few.

use std::time::Duration;

use myelin_data::{
    federation::Destinations,
    log::Cursors,
    rooms::Timeline,
    servers::{RoomServers, ServerInRoom, ServerRooms, Stay},
};
use myelin_store::{Batch, Scan};
use myelin_types::Pos;

use super::support::{World, exhaust, server, texts, until};
use crate::MAX_PDUS;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_was_down_gets_everything_in_order_and_once() {
    let world = World::new().await;
    let mut rooms = Vec::new();
    for _ in 0..10 {
        rooms.push(world.room(2).await);
    }
    let (down, up) = (server(0), server(1));
    world.elsewhere.refuse(&down, 502);
    let mut process = world.start().await;
    for round in 0..100 {
        if round == 50 {
            // It has failed by now, and the first process is not there to bring it all.
            until(|| !world.elsewhere.came(&down).is_empty()).await;
            process.stop().await;
            process = world.start().await;
        }
        let said = rooms.iter().enumerate();
        let said = said.map(|(index, room)| world.say(room, format!("{index}.{round}")));
        futures_util::future::join_all(said).await;
    }
    let all = world.logged();
    assert_eq!(all.len(), 1_000);
    until(|| world.elsewhere.texts(&up).len() >= 1_000).await;
    assert_eq!(world.elsewhere.texts(&up), all);
    assert!(world.elsewhere.taken(&down).is_empty());

    world.elsewhere.answer(&down);
    process.outbound.heard(&down);
    until(|| world.elsewhere.texts(&down).len() >= 400).await;
    process.stop().await;
    let process = world.start().await;
    until(|| world.elsewhere.texts(&down).len() >= 1_000).await;
    process.stop().await;
    assert_eq!(world.elsewhere.texts(&down), all);
    for came in world.elsewhere.came(&down) {
        let pdus = came.content["pdus"].as_array().expect("a list").len();
        assert!((1..=MAX_PDUS).contains(&pdus));
    }
    // Nothing is kept of a server that has everything.
    let view = world.here.store.view();
    assert_eq!(view.scan::<Destinations>(Scan::all()).count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_crash_cut_off_is_sent_again_under_the_same_name() {
    let world = World::new().await;
    let room = world.room(1).await;
    let there = server(0);
    let process = world.start().await;
    world.say(&room, "before".to_owned()).await;
    until(|| world.elsewhere.texts(&there).len() == 1).await;
    world.elsewhere.hold(&there);
    world.say(&room, "cut off".to_owned()).await;
    until(|| world.elsewhere.came(&there).len() == 2).await;
    for text in ["1", "2", "3"] {
        world.say(&room, text.to_owned()).await;
    }
    process.crash().await;

    world.elsewhere.let_go();
    let process = world.start().await;
    until(|| world.elsewhere.texts(&there).iter().any(|text| text == "3")).await;
    process.stop().await;
    // The first process had stored nothing of what it had sent, so the whole comes again.
    let taken = world.elsewhere.taken(&there);
    assert_eq!(texts(&taken[1..]), world.logged());

    // The same content has the same name, whichever process sends it.
    world.elsewhere.hold(&there);
    let process = world.start().await;
    let count = world.elsewhere.came(&there).len();
    world.say(&room, "again".to_owned()).await;
    until(|| world.elsewhere.came(&there).len() > count).await;
    process.crash().await;
    world.elsewhere.let_go();
    let process = world.start().await;
    until(|| {
        world
            .elsewhere
            .texts(&there)
            .last()
            .is_some_and(|text| text == "again")
    })
    .await;
    process.stop().await;
    let came = world.elsewhere.came(&there);
    let [.., first, second] = came.as_slice() else {
        panic!("it came twice");
    };
    assert_eq!(first.id, second.id);
    assert_eq!(first.content["pdus"], second.content["pdus"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_do_not_answer_slow_nobody_else() {
    const SILENT: usize = 100;
    let world = World::new().await;
    let room = world.room(SILENT + 20).await;
    for number in 0..SILENT {
        // More than there is room for in the slow lane once they have failed.
        world.elsewhere.refuse(&server(number), 502);
    }
    let process = world.start().await;
    world.say(&room, "0".to_owned()).await;
    until(|| (0..SILENT).all(|number| !world.elsewhere.came(&server(number)).is_empty())).await;
    for number in 0..SILENT {
        world.elsewhere.hold(&server(number));
    }
    world.here.clock.advance(Duration::from_secs(10));
    process.outbound.0.wake.notify_one();
    for text in 1..=30 {
        world.say(&room, text.to_string()).await;
    }
    let all = world.logged();
    for number in SILENT..SILENT + 20 {
        until(|| world.elsewhere.texts(&server(number)).len() >= all.len()).await;
        assert_eq!(world.elsewhere.texts(&server(number)), all);
    }
    for number in 0..SILENT {
        assert!(world.elsewhere.taken(&server(number)).is_empty());
    }
    process.crash().await;
}

/// What a message writes from its sending until everybody has it and that is stored: batches, puts, deletes, bytes.
async fn cost(world: &World, servers: usize) -> [u64; 4] {
    let room = world.room(servers).await;
    let outbound = world.outbound();
    let mut reader = outbound.open_book().await.expect("it is read");
    world.say(&room, "first".to_owned()).await;
    exhaust(&outbound, &mut reader).await;
    outbound.persist(&mut reader, false).await.expect("stored");
    let before = world.settled().await;
    world.say(&room, "other".to_owned()).await;
    exhaust(&outbound, &mut reader).await;
    outbound.persist(&mut reader, false).await.expect("stored");
    let after = world.settled().await;
    let all = (0..servers).all(|number| {
        let texts = world.elsewhere.texts(&server(number));
        texts.last().is_some_and(|text| text == "other")
    });
    assert!(all, "everybody has it");
    [
        after.batches - before.batches,
        after.puts - before.puts,
        after.deletes - before.deletes,
        after.bytes - before.bytes,
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_in_a_room_on_3000_servers_writes_what_one_on_2_writes() {
    let (few, many) = (World::new().await, World::new().await);
    let few = cost(&few, 2).await;
    let many = cost(&many, 3_000).await;
    assert_eq!(few, many);
    // The message, the reader's cursor, and the empty batch of the test.
    assert_eq!(few[0], 3);
}

#[tokio::test]
async fn a_full_queue_is_caught_up_with_from_the_timelines() {
    let world = World::new().await;
    let rooms = [world.room(1).await, world.room(1).await];
    let there = server(0);
    world.elsewhere.hold(&there);
    let process = world.start().await;
    for text in 0..300 {
        world.say(&rooms[text % 2], text.to_string()).await;
    }
    let behind = || process.outbound.with(|book| book.is_behind(&there));
    until(|| behind() == Some(true)).await;
    world.elsewhere.let_go();
    until(|| world.elsewhere.texts(&there).len() >= 300).await;
    until(|| behind() == Some(false)).await;
    world.say(&rooms[0], "last".to_owned()).await;
    until(|| world.elsewhere.texts(&there).len() >= 301).await;
    process.stop().await;
    assert_eq!(world.elsewhere.texts(&there), world.logged());
}

#[tokio::test]
async fn a_server_hears_of_its_leaving_and_of_nothing_after_it() {
    let world = World::new().await;
    let room = world.room(2).await;
    let num = world.num(&room);
    let (gone, down) = (server(0), server(1));
    world.elsewhere.refuse(&down, 502);
    let outbound = world.outbound();
    let mut reader = outbound.open_book().await.expect("it is read");
    world.say(&room, "they are here".to_owned()).await;
    world.say(&room, "they leave".to_owned()).await;
    let left = last(&world, num);
    world.say(&room, "they are gone".to_owned()).await;
    let mut batch = Batch::new();
    for name in [&gone, &down] {
        let row = ServerInRoom {
            joined: 0,
            stays: vec![Stay {
                from: Pos::ZERO,
                to: Some(left),
            }],
        };
        batch.put::<RoomServers>(&(num, name.to_string()), &row);
    }
    world.here.store.commit(batch).await.expect("committed");
    exhaust(&outbound, &mut reader).await;
    outbound.persist(&mut reader, false).await.expect("stored");
    let heard = ["they are here", "they leave"];
    assert_eq!(world.elsewhere.texts(&gone), heard);
    let view = world.here.store.view();
    let rows = |name: &str| {
        let in_room = view.contains::<RoomServers>(&(num, name.to_owned()));
        let of_server = view.contains::<ServerRooms>(&(name.to_owned(), num));
        (in_room.expect("it is read"), of_server.expect("it is read"))
    };
    assert_eq!(rows(gone.as_str()), (false, false), "it has been told");
    assert_eq!(rows(down.as_str()), (true, true), "it has not");
    assert!(world.elsewhere.taken(&down).is_empty());

    // A later process knows that it has still to be told.
    let outbound = world.outbound();
    let mut reader = outbound.open_book().await.expect("it is read");
    world.elsewhere.answer(&down);
    world.here.clock.advance(Duration::from_mins(1));
    exhaust(&outbound, &mut reader).await;
    outbound.persist(&mut reader, false).await.expect("stored");
    assert_eq!(world.elsewhere.texts(&down), heard);
    let view = world.here.store.view();
    let kept = view.contains::<RoomServers>(&(num, down.to_string()));
    assert!(!kept.expect("it is read"));
    assert_eq!(view.scan::<Destinations>(Scan::all()).count(), 0);
}

fn last(world: &World, num: myelin_types::RoomNum) -> Pos {
    let view = world.here.store.view();
    let last = view.prefix_last::<Timeline>(&num);
    last.expect("it is read").expect("there are events").1.pos
}

#[tokio::test]
async fn a_reader_that_retires_does_not_hold_the_log() {
    let world = World::new().await;
    let room = world.room(1).await;
    let outbound = world.outbound();
    outbound.open_book().await.expect("it is read");
    world.say(&room, "kept".to_owned()).await;
    world.here.rooms.trim_log().await.expect("trimmed");
    assert_eq!(world.logged(), ["kept"]);
    outbound.retire().await.expect("committed");
    world.here.rooms.trim_log().await.expect("trimmed");
    assert!(world.logged().is_empty());
    let cursors = world.here.store.view().scan::<Cursors>(Scan::all()).count();
    assert_eq!(cursors, 0);
}
