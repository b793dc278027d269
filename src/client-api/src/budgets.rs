//! What requests may cost the store: counts of rows and bytes, which are the same on every machine.
//!
//! [`BUDGETS`] is compared to the letter, so that a change for the better has to be written down as well as one for the
//! worse. Every input has a fixed length, the clock stands still, chance has a seed, and requests follow one another; so
//! every number is exact. *Warm* means that the same request was made before, as it is with a server that runs; *cold*,
//! that it is the first of its kind since the server was opened.
//!
//! `bytes` are those of keys and values written; `gets`, keys looked up; `scans`, ranges walked; `rows`, rows seen in
//! them. The caches of events and state trees stand in front of these: what they answer costs nothing here.

use std::fmt::Write as _;

use myelin_store::{Batch, Counters};
use serde_json::{Value, json};

use crate::testing::{Answer, Server, User, encode, in_room, text};

const BUDGETS: &str = "
request                                         batches  puts  deletes  bytes  gets  scans  rows
create a room                                         1    32        0   5034     2      0     0
send, room of 2                                       1     8        0   2154     1      0     0
send, the same again                                  0     0        0      0     1      0     0
send, room of 100                                     1     8        0   2159     1      0     0
state, replaced                                       1     6        0    893     0      0     0
join, the first of a user                             3    13        0   1086    13      0     0
join, room of 100                                     1    11        0   1192     4      0     0
receipt                                               1     2        1    112     3      0     0
typing                                                0     0        0      0     2      0     0
sync, nothing new in 2 rooms                          0     0        0      0     0      0     0
sync, nothing new in 200 rooms                        0     0        0      0     0      0     0
message to a device                                   1     3        0    331     2      0     0
sync, a message to the device                         0     0        0      0     0      1     1
sync, acknowledging it                                1     0        1     28     0      1     1
sync, nothing new after that                          0     0        0      0     0      0     0
sync, a message in one of 200 rooms                   0     0        0      0     9      5     1
first sync, 20 rooms                                  0     0        0      0   106    121   160
first sync, 20 rooms, lazy members                    0     0        0      0   106    121   160
messages, 50                                          0     0        0      0     3      2    51
members, 101                                          0     0        0      0     2      0     0
event                                                 0     0        0      0     2      0     0
event, cold                                           0     0        0      0    10      0     0
messages, 50, cold                                    0     0        0      0    53      2    51
members, 101, cold                                    0     0        0      0   114      0     0
sync, 51 new in one of 2 rooms, cold                  0     0        0      0    26     14    22
sync, nothing new in 200 rooms, cold                  0     0        0      0     1    405   400
first sync, 20 rooms, cold                            0     0        0      0   453    123   180
send, room of 100, cold                               2     9        0   2176    17      0     0
";

/// How many rooms somebody is in who is in many.
const MANY: usize = 200;
/// How many of these somebody is in who syncs for the first time.
const SOME: usize = 20;
/// The members of the large room.
const CROWD: usize = 100;

/// The table of what was measured.
struct Ledger {
    table: String,
}

impl Ledger {
    fn new() -> Self {
        Self {
            table: format!(
                "\n{:<46}{:>9}{:>6}{:>9}{:>7}{:>6}{:>7}{:>6}\n",
                "request", "batches", "puts", "deletes", "bytes", "gets", "scans", "rows"
            ),
        }
    }

    /// Makes a request and enters what it cost, the writes included for which nobody waited. Returns its answer.
    async fn enter(
        &mut self,
        server: &Server,
        request: &str,
        answer: impl Future<Output = Answer>,
    ) -> Answer {
        let before = settled(server).await;
        let answer = answer.await;
        assert!(
            answer.status.is_success(),
            "{request}: {} {}",
            answer.status,
            answer.body
        );
        let after = settled(server).await;
        assert_eq!(after.reruns, before.reruns, "{request}: needed the disk");
        // One batch is that of `settled`.
        let batches = after.batches - before.batches - 1;
        let deletes = after.deletes + after.range_deletes - before.deletes - before.range_deletes;
        writeln!(
            self.table,
            "{request:<46}{:>9}{:>6}{:>9}{:>7}{:>6}{:>7}{:>6}",
            batches,
            after.puts - before.puts,
            deletes,
            after.bytes - before.bytes,
            after.gets - before.gets,
            after.scans - before.scans,
            after.rows_scanned - before.rows_scanned,
        )
        .expect("a string takes everything");
        answer
    }
}

/// The counters, once everything that was queued is written.
async fn settled(server: &Server) -> Counters {
    let empty = server.store.commit(Batch::new()).await;
    empty.expect("the disk works");
    server.store.counters()
}

/// A request for a public room with a name.
fn public() -> Value {
    json!({ "preset": "public_chat", "name": "A room" })
}

/// Who and what the requests are about.
struct World {
    server: Server,
    /// Who sends.
    bob: User,
    /// Who is in [`MANY`] rooms.
    alice: User,
    /// Who is in two rooms.
    carol: User,
    /// Who is in [`SOME`] rooms.
    dave: User,
    /// Who is in none.
    erin: User,
    many: Vec<String>,
    few: Vec<String>,
    /// The room with [`CROWD`] members.
    crowded: String,
}

impl World {
    async fn new() -> World {
        let server = Server::new().await;
        let bob = server.register("bob").await;
        let alice = server.register("alice").await;
        let carol = server.register("carol").await;
        let dave = server.register("dave").await;
        let erin = server.register("erin").await;
        let public = public();
        let mut many = Vec::new();
        for number in 0..MANY {
            let room = server.room(&bob, &public).await;
            server.join(&room, &alice).await;
            if number < SOME {
                server.join(&room, &dave).await;
            }
            many.push(room);
        }
        let mut few = Vec::new();
        for _ in 0..2 {
            let room = server.room(&bob, &public).await;
            server.join(&room, &carol).await;
            few.push(room);
        }
        let crowded = server.room(&bob, &public).await;
        for number in 1..CROWD {
            let member = server.register(&format!("member{number:03}")).await;
            server.join(&crowded, &member).await;
        }
        World {
            server,
            bob,
            alice,
            carol,
            dave,
            erin,
            many,
            few,
            crowded,
        }
    }

    /// A text of a kilobyte from bob. `number` has three digits, and makes transaction ids of one length.
    async fn send(&self, room: &str, number: usize) -> Answer {
        let path = in_room(
            room,
            &format!("/send/m.room.message/transaction{number:03}"),
        );
        let content = json!({ "msgtype": "m.text", "body": "x".repeat(1_000) });
        self.server.put(&path, &self.bob, &content).await
    }

    async fn room(&self, request: &Value) -> Answer {
        self.server.post("/createRoom", &self.bob, request).await
    }

    async fn sync(&self, user: &User, since: Option<&str>) -> Answer {
        let since = since.map_or_else(String::new, |since| format!("&since={since}"));
        let path = format!("/sync?timeout=0{since}");
        self.server.get(&path, user).await
    }

    /// A first sync of dave's that loads members lazily, as most clients do.
    async fn lazy_sync(&self) -> Answer {
        let filter = r#"{"room":{"state":{"lazy_load_members":true}}}"#;
        let path = format!("/sync?timeout=0&filter={}", encode(filter));
        self.server.get(&path, &self.dave).await
    }

    /// A message from bob to alice's device. `number` has three digits.
    async fn send_to_device(&self, number: usize) -> Answer {
        let path = format!("/sendToDevice/m.room_key/transaction{number:03}");
        let content = json!({ "n": "x".repeat(100) });
        let body = json!({ "messages": { &self.alice.id: { &self.alice.device: content } } });
        self.server.put(&path, &self.bob, &body).await
    }

    /// A token that knows everything.
    async fn token(&self, user: &User) -> String {
        text(&self.sync(user, None).await.ok()["next_batch"])
    }

    async fn set_topic(&self, topic: &str) -> Answer {
        let content = json!({ "topic": topic });
        let room = &self.few[0];
        self.server
            .set_state(room, &self.bob, "m.room.topic", &content)
            .await
    }

    async fn read(&self, event: &str) -> Answer {
        let path = in_room(&self.few[0], &format!("/receipt/m.read/{}", encode(event)));
        self.server.post(&path, &self.carol, &json!({})).await
    }

    async fn typing(&self, typing: bool) -> Answer {
        let path = in_room(&self.few[0], &format!("/typing/{}", encode(&self.bob.id)));
        let content = json!({ "typing": typing, "timeout": 30_000 });
        self.server.put(&path, &self.bob, &content).await
    }

    async fn join(&self, room: &str) -> Answer {
        let path = in_room(room, "/join");
        self.server.post(&path, &self.erin, &json!({})).await
    }

    async fn page(&self) -> Answer {
        let path = in_room(&self.few[0], "/messages?dir=b&limit=50");
        self.server.get(&path, &self.carol).await
    }

    async fn members(&self) -> Answer {
        let path = in_room(&self.crowded, "/members");
        self.server.get(&path, &self.bob).await
    }

    async fn event(&self, event: &str) -> Answer {
        let path = in_room(&self.few[0], &format!("/event/{}", encode(event)));
        self.server.get(&path, &self.carol).await
    }

    /// Opens the server again: nothing is remembered, but everybody has logged in.
    async fn restart(self) -> World {
        let server = self.server.restart().await;
        for user in [&self.bob, &self.alice, &self.carol, &self.dave] {
            server.get("/account/whoami", user).await.ok();
        }
        World { server, ..self }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_cost_what_is_written_here() {
    let mut ledger = Ledger::new();
    let world = World::new().await;
    writes(&mut ledger, &world).await;
    let tokens = syncs(&mut ledger, &world).await;
    let event = reads(&mut ledger, &world).await;

    let world = world.restart().await;
    cold(&mut ledger, &world, &tokens, &event).await;

    assert!(
        ledger.table == BUDGETS,
        "the costs are not those of BUDGETS: look into what costs more, and write down what is right.\n{}",
        ledger.table
    );
}

async fn writes(ledger: &mut Ledger, world: &World) {
    let server = &world.server;
    let few = &world.few[0];
    let public = public();
    world.room(&public).await.ok();
    ledger
        .enter(server, "create a room", world.room(&public))
        .await;
    world.send(few, 0).await.ok();
    ledger
        .enter(server, "send, room of 2", world.send(few, 1))
        .await;
    ledger
        .enter(server, "send, the same again", world.send(few, 1))
        .await;
    world.send(&world.crowded, 2).await.ok();
    ledger
        .enter(server, "send, room of 100", world.send(&world.crowded, 3))
        .await;

    world.set_topic("Topic 0").await.ok();
    ledger
        .enter(server, "state, replaced", world.set_topic("Topic 1"))
        .await;
    ledger
        .enter(server, "join, the first of a user", world.join(few))
        .await;
    ledger
        .enter(server, "join, room of 100", world.join(&world.crowded))
        .await;

    let first = text(&world.send(few, 4).await.ok()["event_id"]);
    let second = text(&world.send(few, 5).await.ok()["event_id"]);
    world.read(&first).await.ok();
    ledger.enter(server, "receipt", world.read(&second)).await;
    world.typing(true).await.ok();
    ledger.enter(server, "typing", world.typing(false)).await;
}

/// Returns tokens that know everything: of whoever is in many rooms, and in few.
async fn syncs(ledger: &mut Ledger, world: &World) -> [String; 2] {
    let server = &world.server;
    let [few, many] = [
        world.token(&world.carol).await,
        world.token(&world.alice).await,
    ];
    world.sync(&world.carol, Some(&few)).await.ok();
    world.sync(&world.alice, Some(&many)).await.ok();
    ledger
        .enter(
            server,
            "sync, nothing new in 2 rooms",
            world.sync(&world.carol, Some(&few)),
        )
        .await;
    ledger
        .enter(
            server,
            "sync, nothing new in 200 rooms",
            world.sync(&world.alice, Some(&many)),
        )
        .await;

    world.send_to_device(0).await.ok();
    let token = world.token(&world.alice).await;
    world.sync(&world.alice, Some(&token)).await.ok();
    ledger
        .enter(server, "message to a device", world.send_to_device(1))
        .await;
    let alice = &world.alice;
    let mut told = text(
        &ledger
            .enter(
                server,
                "sync, a message to the device",
                world.sync(alice, Some(&token)),
            )
            .await
            .ok()["next_batch"],
    );
    for request in ["sync, acknowledging it", "sync, nothing new after that"] {
        let sync = ledger.enter(server, request, world.sync(alice, Some(&told)));
        told = text(&sync.await.ok()["next_batch"]);
    }

    // Twice: the first time, nothing is counted yet.
    world.send(&world.many[SOME], 6).await.ok();
    let many = world.sync(&world.alice, Some(&many)).await.ok();
    let many = text(&many["next_batch"]);
    world.send(&world.many[SOME], 7).await.ok();
    let many = ledger
        .enter(
            server,
            "sync, a message in one of 200 rooms",
            world.sync(&world.alice, Some(&many)),
        )
        .await
        .ok();
    let rooms = many["rooms"]["join"].as_object();
    assert_eq!(rooms.map(serde_json::Map::len), Some(1), "{many}");

    world.token(&world.dave).await;
    let all = ledger
        .enter(
            server,
            "first sync, 20 rooms",
            world.sync(&world.dave, None),
        )
        .await
        .ok();
    let rooms = all["rooms"]["join"].as_object();
    assert_eq!(rooms.map(serde_json::Map::len), Some(SOME));
    world.lazy_sync().await.ok();
    ledger
        .enter(
            server,
            "first sync, 20 rooms, lazy members",
            world.lazy_sync(),
        )
        .await;
    [text(&many["next_batch"]), world.token(&world.carol).await]
}

/// Returns an event of the room that the page is of.
async fn reads(ledger: &mut Ledger, world: &World) -> String {
    let server = &world.server;
    let mut event = String::new();
    for number in 100..150 {
        event = text(&world.send(&world.few[0], number).await.ok()["event_id"]);
    }
    let page = world.page().await.ok();
    assert_eq!(page["chunk"].as_array().map(Vec::len), Some(50));
    ledger.enter(server, "messages, 50", world.page()).await;

    let members = world.members().await.ok();
    let expected = CROWD + 1;
    assert_eq!(members["chunk"].as_array().map(Vec::len), Some(expected));
    ledger.enter(server, "members, 101", world.members()).await;

    world.event(&event).await.ok();
    ledger.enter(server, "event", world.event(&event)).await;
    event
}

async fn cold(ledger: &mut Ledger, world: &World, tokens: &[String; 2], event: &str) {
    let server = &world.server;
    let [many, few] = tokens;
    ledger
        .enter(server, "event, cold", world.event(event))
        .await;
    ledger
        .enter(server, "messages, 50, cold", world.page())
        .await;
    ledger
        .enter(server, "members, 101, cold", world.members())
        .await;
    ledger
        .enter(
            server,
            "sync, 51 new in one of 2 rooms, cold",
            world.sync(&world.carol, Some(few)),
        )
        .await;
    ledger
        .enter(
            server,
            "sync, nothing new in 200 rooms, cold",
            world.sync(&world.alice, Some(many)),
        )
        .await;
    ledger
        .enter(
            server,
            "first sync, 20 rooms, cold",
            world.sync(&world.dave, None),
        )
        .await;
    ledger
        .enter(
            server,
            "send, room of 100, cold",
            world.send(&world.crowded, 8),
        )
        .await;
}
