//! The floors of growing tables.

use std::time::Duration;

use myelin_data::{
    accounts::{Transactions, TransactionsByTime},
    log::{Cursor, Cursors, Log},
};
use myelin_store::{Batch, Scan};
use myelin_types::Clock;

use crate::support::{ALICE, Server, message, transaction};

#[tokio::test]
async fn the_log_is_trimmed_to_its_slowest_reader() {
    let server = Server::new().await;
    let room = server.public_room().await;
    server.say(&room, ALICE, "1").await;
    let read = server.store.watermark();
    server.say(&room, ALICE, "2").await;
    let mut batch = Batch::new();
    batch.put::<Cursors>(&"slow".to_owned(), &Cursor(read));
    server.store.commit(batch).await.expect("committed");
    let rows = || server.view().scan::<Log>(Scan::all()).count();
    assert_eq!(rows(), 3);
    assert_eq!(server.rooms.trim_log().await.expect("trimmed"), 2);
    assert_eq!(server.rooms.trim_log().await.expect("trimmed"), 0);
    assert_eq!(rows(), 1);
    let mut batch = Batch::new();
    batch.delete::<Cursors>(&"slow".to_owned());
    server.store.commit(batch).await.expect("committed");
    assert_eq!(server.rooms.trim_log().await.expect("trimmed"), 1);
    assert_eq!(rows(), 0);
}

#[tokio::test]
async fn transactions_are_forgotten_after_a_day() {
    let server = Server::new().await;
    let room = server.public_room().await;
    let send = |id: &str| {
        let mut request = message(&room, ALICE, "hello");
        request.transaction = Some(transaction("PHONE", id));
        server.rooms.send_message(request)
    };
    let first = send("old").await.expect("sent");
    server.clock.advance(Duration::from_secs(23 * 60 * 60));
    send("new").await.expect("sent");
    assert_eq!(server.rooms.expire_transactions(server.clock.now()).await.expect("run"), 0);
    server.clock.advance(Duration::from_secs(2 * 60 * 60));
    assert_eq!(server.rooms.expire_transactions(server.clock.now()).await.expect("run"), 1);
    assert_eq!(server.rooms.expire_transactions(server.clock.now()).await.expect("run"), 0);
    let view = server.view();
    assert_eq!(view.scan::<Transactions>(Scan::all()).count(), 1);
    assert_eq!(view.scan::<TransactionsByTime>(Scan::all()).count(), 1);
    assert_ne!(send("old").await.expect("sent"), first);
}
