//! The floors of growing tables.

use myelin_data::log::{Cursor, Cursors, Log};
use myelin_store::{Batch, Scan};

use crate::support::{ALICE, Server};

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
