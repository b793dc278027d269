//! The index of servers in rooms.

use myelin_data::{
    log::{Log, LogRow},
    servers::{RoomServers, ServerInRoom, ServerRooms},
};
use myelin_rooms::read::RoomView;
use myelin_store::{Batch, Scan};
use myelin_types::Pos;
use ruma::{OwnedServerName, RoomId, server_name};

use crate::support::{ALICE, BOB, CHARLIE, Server, moderate, user};

const HERE: &str = "here.org";

impl Server {
    fn server_row(&self, room: &RoomId, name: &str) -> Option<ServerInRoom> {
        let key = (self.handle(room).num, name.to_owned());
        self.view().get::<RoomServers>(&key).expect("rows are read")
    }

    fn servers(&self, room: &RoomId) -> Vec<OwnedServerName> {
        let view = self.view();
        let room = RoomView::open(&self.rooms, &view, self.handle(room).num).expect("it opens");
        room.servers().expect("rows are read")
    }

    /// The index as a version of the program that did not know it would have left it.
    async fn forget_servers(&self) {
        let mut batch = Batch::new();
        batch.delete_prefix::<RoomServers>(&());
        batch.delete_prefix::<ServerRooms>(&());
        self.store.commit(batch).await.expect("committed");
    }
}

#[tokio::test]
async fn members_are_counted_and_the_last_one_takes_the_server_with_him() {
    let server = Server::new().await;
    let room = server.public_room().await;
    let made = server.head(&room);
    assert_eq!(made.joined, 1);
    let row = server.server_row(&room, HERE).expect("we are in our room");
    assert_eq!(row.joined, 1);
    assert_eq!(row.stays.len(), 1);
    let began = row.stays[0].from;
    assert!(began > Pos::ZERO && began <= server.store.watermark());

    // All at once, so that batches build on others which are still on their way.
    tokio::join!(
        server.join(&room, BOB),
        server.join(&room, CHARLIE),
        server.join(&room, "@dave:here.org"),
    );
    let row = server.server_row(&room, HERE).expect("we are still there");
    assert_eq!((row.joined, row.stays.len()), (4, 1));
    assert_eq!(row.stays[0].from, began);

    for who in [BOB, CHARLIE, "@dave:here.org"] {
        let kicked = server.rooms.kick(moderate(&room, ALICE, who)).await;
        kicked.expect("she has the power");
    }
    assert_eq!(server.servers(&room), [HERE]);
    server
        .rooms
        .leave(&room, &user(ALICE), None)
        .await
        .expect("she may leave");
    assert_eq!(server.server_row(&room, HERE), None);
    assert!(server.servers(&room).is_empty());
    let rooms = server
        .rooms
        .rooms_of_server(&server.view(), server_name!("here.org"));
    assert!(rooms.expect("rows are read").is_empty());
}

#[tokio::test]
async fn the_log_says_what_goes_out_and_where_servers_moved() {
    let server = Server::new().await;
    let room = server.public_room().await;
    server.say(&room, ALICE, "hello").await;
    let num = server.handle(&room).num;
    let view = server.view();
    let rows = view.scan::<Log>(Scan::all());
    let rows: Vec<LogRow> = rows.map(|row| row.expect("it is read").1).collect();
    assert_eq!(rows.len(), 2);
    assert_eq!((rows[0].servers_of, rows[1].servers_of), (Some(num), None));
    let logged = rows.iter().flat_map(|row| &row.events);
    let logged: Vec<_> = logged.map(|event| (event.event, event.outgoing)).collect();
    let timeline = server.timeline(&room);
    let placed = timeline.iter();
    let placed: Vec<_> = placed
        .map(|(_, entry, _)| (entry.event, entry.traits.outgoing))
        .collect();
    assert_eq!(logged, placed);
    assert!(logged.iter().all(|(_, outgoing)| *outgoing));
}

#[tokio::test]
async fn messages_and_profiles_write_none_of_it() {
    let server = Server::new().await;
    let room = server.public_room().await;
    server.join(&room, BOB).await;
    let before = server.server_row(&room, HERE);
    let counters = server.settled().await;
    server.say(&room, ALICE, "hello").await;
    let one = server.settled().await.puts - counters.puts;
    assert_eq!(server.server_row(&room, HERE), before);
    // A room with many more members writes as much for a message.
    for number in 0..20 {
        server.join(&room, &format!("@u{number}:here.org")).await;
    }
    server.say(&room, ALICE, "hello").await;
    let counters = server.settled().await;
    server.say(&room, ALICE, "hello").await;
    assert_eq!(server.settled().await.puts - counters.puts, one);
}

#[tokio::test]
async fn rooms_of_before_are_indexed_in_steps_and_answer_meanwhile() {
    let server = Server::new().await;
    let mut rooms = Vec::new();
    for _ in 0..70 {
        rooms.push(server.public_room().await);
    }
    server.join(&rooms[1], BOB).await;
    server.forget_servers().await;
    assert_eq!(server.servers(&rooms[0]), [HERE]);
    let view = server.view();
    for (name, there) in [("here.org", true), ("there.org", false)] {
        let name = OwnedServerName::try_from(name).expect("a name");
        let found = server
            .rooms
            .is_server_in_room(&view, server.handle(&rooms[0]).num, &name);
        assert_eq!(found.expect("rows are read"), there);
    }

    // A writer that comes first finds the others who are there.
    server.join(&rooms[1], CHARLIE).await;
    assert_eq!(
        server.server_row(&rooms[1], HERE).map(|row| row.joined),
        Some(3)
    );
    assert_eq!(server.server_row(&rooms[0], HERE), None);

    let mut steps = 0;
    while server.rooms.index_servers().await.expect("it is built") {
        steps += 1;
    }
    assert_eq!(steps, 1);
    for (index, room) in rooms.iter().enumerate() {
        let joined = if index == 1 { 3 } else { 1 };
        let row = server.server_row(room, HERE).expect("it is there");
        assert_eq!(row, ServerInRoom::long_there(joined), "room {index}");
    }
    assert_eq!(server.view().keys::<ServerRooms>(Scan::all()).count(), 70);

    // Once it is built nothing is looked at any more.
    let counters = server.settled().await;
    let more = server.rooms.index_servers().await.expect("it is built");
    assert!(!more);
    let after = server.settled().await;
    assert_eq!(
        (after.scans, after.puts),
        (counters.scans, counters.puts),
        "one lookup"
    );
}
