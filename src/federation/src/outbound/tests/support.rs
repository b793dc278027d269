//! Servers that the tests play, and ours with rooms that they are in.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use myelin_data::{
    Present,
    log::Log,
    servers::{RoomServers, ServerInRoom, ServerRooms},
};
use myelin_e2ee::E2ee;
use myelin_rooms::{CreateRoom, Preset, Profile, SendMessage};
use myelin_store::{Batch, Counters, Scan};
use myelin_types::Clock;
use parking_lot::Mutex;
use ruma::{OwnedRoomId, OwnedServerName, OwnedUserId, RoomId, ServerName, UserId, user_id};
use serde_json::{Value, json};
use tokio::{sync::Notify, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use super::super::{
    Outbound,
    book::Lane,
    dispatch::Dispatcher,
    transaction::{Sending, Wire},
};
use crate::{
    RequestError,
    testing::{Here, our_name},
};

/// A transaction that came to a server.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Came {
    pub(super) server: OwnedServerName,
    pub(super) id: String,
    pub(super) content: Value,
}

/// The other servers.
#[derive(Default)]
pub(super) struct Elsewhere {
    /// What came, whether or not it was answered.
    came: Mutex<Vec<Came>>,
    /// What was answered.
    taken: Mutex<Vec<Came>>,
    /// Who answers with this status.
    refusing: Mutex<HashMap<OwnedServerName, u16>>,
    /// Who does not answer until they are let go.
    held: Mutex<HashSet<OwnedServerName>>,
    let_go: Notify,
}

impl Wire for Elsewhere {
    fn send<'a>(&'a self, server: &'a ServerName, id: &'a str, content: &'a Value) -> Sending<'a> {
        Box::pin(async move {
            let came = Came {
                server: server.to_owned(),
                id: id.to_owned(),
                content: content.clone(),
            };
            self.came.lock().push(came.clone());
            loop {
                let let_go = self.let_go.notified();
                if !self.held.lock().contains(server) {
                    break;
                }
                let_go.await;
            }
            if let Some(status) = self.refusing.lock().get(server) {
                return Err(RequestError::Refused {
                    status: *status,
                    errcode: String::new(),
                    text: String::new(),
                });
            }
            self.taken.lock().push(came);
            Ok(Bytes::from_static(b"{\"pdus\":{}}"))
        })
    }
}

impl Elsewhere {
    pub(super) fn refuse(&self, server: &ServerName, status: u16) {
        self.refusing.lock().insert(server.to_owned(), status);
    }

    pub(super) fn answer(&self, server: &ServerName) {
        self.refusing.lock().remove(server);
    }

    pub(super) fn hold(&self, server: &ServerName) {
        self.held.lock().insert(server.to_owned());
    }

    pub(super) fn let_go(&self) {
        self.held.lock().clear();
        self.let_go.notify_waiters();
    }

    /// Everything that came to a server, answered or not.
    pub(super) fn came(&self, server: &ServerName) -> Vec<Came> {
        of(&self.came.lock(), server)
    }

    /// What a server has taken.
    pub(super) fn taken(&self, server: &ServerName) -> Vec<Came> {
        of(&self.taken.lock(), server)
    }

    /// The texts of the messages that a server has taken, in their order.
    pub(super) fn texts(&self, server: &ServerName) -> Vec<String> {
        texts(&self.taken(server))
    }

    /// The EDUs that a server has taken, in their order.
    pub(super) fn edus(&self, server: &ServerName) -> Vec<Value> {
        let taken = self.taken(server).into_iter();
        taken
            .flat_map(|came| came.content["edus"].as_array().cloned().unwrap_or_default())
            .collect()
    }
}

fn of(all: &[Came], server: &ServerName) -> Vec<Came> {
    let of = all.iter().filter(|came| came.server == server);
    of.cloned().collect()
}

pub(super) fn texts(transactions: &[Came]) -> Vec<String> {
    let pdus = transactions
        .iter()
        .filter_map(|came| came.content["pdus"].as_array());
    pdus.flatten()
        .filter_map(|pdu| pdu["content"]["body"].as_str().map(str::to_owned))
        .collect()
}

/// Our server, and what it talks to.
pub(super) struct World {
    pub(super) here: Here,
    pub(super) elsewhere: Arc<Elsewhere>,
}

/// What sends, as one process does.
pub(super) struct Process {
    pub(super) outbound: Outbound,
    soft: CancellationToken,
    task: JoinHandle<()>,
}

pub(super) fn server(number: usize) -> OwnedServerName {
    OwnedServerName::try_from(format!("s{number}.example")).expect("a server name")
}

pub(super) fn alice() -> OwnedUserId {
    user_id!("@alice:here.example").to_owned()
}

impl World {
    pub(super) async fn new() -> World {
        World {
            here: Here::new().await,
            elsewhere: Arc::default(),
        }
    }

    /// A room of Alice's with so many other servers.
    pub(super) async fn room(&self, servers: usize) -> OwnedRoomId {
        self.room_of(&alice(), servers).await
    }

    /// A room of a local user's with so many other servers.
    pub(super) async fn room_of(&self, creator: &UserId, servers: usize) -> OwnedRoomId {
        let mut request = CreateRoom::new(creator.to_owned(), Profile::default());
        request.preset = Some(Preset::PublicChat);
        let room = self.here.rooms.create_room(request).await;
        let room = room.expect("the room is made");
        let num = self.num(&room);
        let mut batch = Batch::new();
        for number in 0..servers {
            let name = server(number).to_string();
            let row = ServerInRoom::long_there(1);
            batch.put::<RoomServers>(&(num, name.clone()), &row);
            batch.put::<ServerRooms>(&(name, num), &Present);
        }
        self.here.store.commit(batch).await.expect("committed");
        room
    }

    pub(super) fn num(&self, room: &RoomId) -> myelin_types::RoomNum {
        let handle = self.here.rooms.find(&self.here.store.view(), room);
        handle.expect("it is read").expect("it exists").num
    }

    pub(super) async fn say(&self, room: &RoomId, text: String) {
        let message = SendMessage {
            room_id: room.to_owned(),
            sender: alice(),
            event_type: "m.room.message".to_owned(),
            content: json!({ "msgtype": "m.text", "body": text })
                .as_object()
                .expect("an object")
                .clone(),
            transaction: None,
        };
        let sent = self.here.rooms.send_message(message).await;
        sent.expect("she may speak");
    }

    /// The texts of all messages in the order of the log.
    pub(super) fn logged(&self) -> Vec<String> {
        let view = self.here.store.view();
        let rows = view.scan::<Log>(Scan::all());
        let events = rows.flat_map(|row| row.expect("it is read").1.events);
        let texts = events.filter_map(|logged| {
            let event = self.here.rooms.event(&view, logged.room, logged.event);
            let event = event.expect("it is read").expect("it is there");
            event.pdu.content().get("body")?.as_str().map(str::to_owned)
        });
        // Events without a body are no messages.
        texts.collect()
    }

    pub(super) fn outbound(&self) -> Outbound {
        let clock = || Arc::clone(&self.here.clock) as Arc<dyn Clock>;
        let random = || Arc::clone(&self.here.random);
        let e2ee = E2ee::new(self.here.rooms.clone(), clock(), random());
        let outbound = Outbound::new(
            our_name(),
            self.here.rooms.clone(),
            e2ee.clone(),
            clock(),
            random(),
            Arc::clone(&self.elsewhere) as Arc<dyn Wire>,
        );
        outbound.serve_outbox_of(&e2ee);
        outbound
    }

    /// Starts a process.
    pub(super) async fn start(&self) -> Process {
        let outbound = self.outbound();
        let soft = CancellationToken::new();
        let (running, stop) = (outbound.clone(), soft.clone());
        let task = tokio::spawn(async move { running.run(stop).await });
        until(|| outbound.with(|_| ()).is_some()).await;
        Process {
            outbound,
            soft,
            task,
        }
    }

    /// What was written, once nothing is on its way any more.
    pub(super) async fn settled(&self) -> Counters {
        let empty = self.here.store.commit(Batch::new()).await;
        empty.expect("the disk works");
        self.here.store.counters()
    }
}

impl Process {
    /// Ends it in order.
    pub(super) async fn stop(self) {
        self.soft.cancel();
        self.task.await.expect("it ends");
    }

    /// Ends it in the middle of whatever it does.
    pub(super) async fn crash(self) {
        self.task.abort();
        self.task.await.ok();
    }
}

/// Reads on in the log and sends until everything that can be sent is, as [`Outbound::run`] does, step by step.
pub(super) async fn exhaust(outbound: &Outbound, reader: &mut Dispatcher) {
    while outbound.dispatch(reader).await.expect("the log is read") {}
    loop {
        let now = outbound.0.clock.now();
        let job = outbound.with(|book| {
            book.wake(now);
            book.take(Lane::Quick).or_else(|| book.take(Lane::Slow))
        });
        match job.flatten() {
            Some(job) => outbound.serve(job).await,
            None => return,
        }
    }
}

/// Waits for a condition.
pub(super) async fn until(holds: impl Fn() -> bool) {
    let deadline = Duration::from_mins(1);
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let waited = tokio::time::timeout(deadline, wait).await;
    waited.expect("the condition holds in time");
}
