//! A server without HTTP: a store in a temporary directory, rooms over it, a clock that stands still.

use std::{sync::Arc, time::Duration};

use myelin_data::{
    Interner, PRODUCT, SCHEMA,
    rooms::{Head, Heads, Place, Timeline, TimelineEntry},
    tables,
};
use myelin_rooms::{
    CreateRoom, Enter, Event, Invite, Invitee, JsonObject, Moderate, Options, Preset, Profile,
    RoomHandle, Rooms, SendMessage, SendState, TransactionId,
};
use myelin_rules::{RoomVersion, Signer, SigningKey};
use myelin_store::{OpenError, Scan, Store, View};
use myelin_types::{Millis, MockClock, SeededRandom};
use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, server_name};
use serde_json::{Value, json};
use tempfile::TempDir;

pub(crate) const ALICE: &str = "@alice:here.org";
pub(crate) const BOB: &str = "@bob:here.org";
pub(crate) const CHARLIE: &str = "@charlie:here.org";

pub(crate) struct Server {
    pub(crate) dir: TempDir,
    pub(crate) store: Store,
    pub(crate) rooms: Rooms,
    pub(crate) clock: Arc<MockClock>,
}

pub(crate) fn user(id: &str) -> OwnedUserId {
    OwnedUserId::try_from(id).expect("test users are well-formed")
}

pub(crate) fn object(value: Value) -> JsonObject {
    match value {
        Value::Object(object) => object,
        other => panic!("{other} is no object"),
    }
}

pub(crate) fn profile(name: &str) -> Profile {
    Profile {
        displayname: Some(name.to_owned()),
        avatar_url: None,
    }
}

fn try_open(dir: &TempDir) -> Result<Store, OpenError> {
    Store::open(
        dir.path(),
        myelin_store::Options {
            memory_budget: 64 << 20,
            product: PRODUCT,
            schema: SCHEMA,
            tables: tables(),
        },
    )
}

async fn over(store: &Store, clock: &Arc<MockClock>, options: Options) -> Rooms {
    let interner = Interner::open(store.clone()).await.expect("interner opens");
    let key = SigningKey::from_seed("a_test", [7; 32]);
    let clock: Arc<MockClock> = Arc::clone(clock);
    Rooms::open(
        store.clone(),
        interner,
        Arc::new(Signer::new("here.org", key)),
        server_name!("here.org").to_owned(),
        clock,
        Arc::new(SeededRandom::new(1)),
        options,
    )
}

impl Server {
    pub(crate) async fn new() -> Server {
        Self::with(Options::default()).await
    }

    pub(crate) async fn with(options: Options) -> Server {
        let dir = TempDir::new().expect("temporary directories can be made");
        let clock = Arc::new(MockClock::new(Millis(1_700_000_000_000)));
        let store = try_open(&dir).expect("an empty directory can be opened");
        let rooms = over(&store, &clock, options).await;
        Server {
            dir,
            store,
            rooms,
            clock,
        }
    }

    /// The same server after a restart.
    pub(crate) async fn restart(self) -> Server {
        let Server {
            dir,
            store,
            rooms,
            clock,
        } = self;
        rooms.drain().await;
        drop(rooms);
        store.close();
        drop(store);
        clock.advance(Duration::from_secs(10));
        // Tasks of the old server may hold the last handles for a moment.
        let mut attempts = 0;
        let store = loop {
            match try_open(&dir) {
                Ok(store) => break store,
                Err(error) if attempts > 100 => panic!("reopen the store: {error}"),
                Err(_) => {
                    attempts += 1;
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        };
        let rooms = over(&store, &clock, Options::default()).await;
        Server {
            dir,
            store,
            rooms,
            clock,
        }
    }

    pub(crate) fn view(&self) -> View {
        self.store.view()
    }

    pub(crate) fn handle(&self, room: &RoomId) -> RoomHandle {
        self.rooms
            .find(&self.view(), room)
            .expect("rooms can be read")
            .expect("the room exists")
    }

    /// The store's counters, once they count everything that was answered: they are added up after the answer.
    pub(crate) async fn settled(&self) -> myelin_store::Counters {
        let mut last = self.store.counters();
        loop {
            tokio::time::sleep(Duration::from_millis(25)).await;
            let counters = self.store.counters();
            if counters.batches == last.batches {
                return counters;
            }
            last = counters;
        }
    }

    /// A room of Alice's.
    pub(crate) async fn room(&self, preset: Preset, version: RoomVersion) -> OwnedRoomId {
        let mut request = CreateRoom::new(user(ALICE), profile("Alice"));
        request.preset = Some(preset);
        request.room_version = Some(version.to_string());
        self.rooms
            .create_room(request)
            .await
            .expect("the room is made")
    }

    pub(crate) async fn public_room(&self) -> OwnedRoomId {
        self.room(Preset::PublicChat, RoomVersion::V11).await
    }

    pub(crate) async fn join(&self, room: &RoomId, who: &str) -> OwnedEventId {
        self.rooms
            .join(enter(room, who))
            .await
            .expect("the user may join")
    }

    pub(crate) async fn say(&self, room: &RoomId, who: &str, text: &str) -> OwnedEventId {
        self.rooms
            .send_message(message(room, who, text))
            .await
            .expect("the message may be sent")
    }

    /// A state event of the current state, decoded.
    pub(crate) fn state(&self, room: &RoomId, kind: &str, key: &str) -> Option<Arc<Event>> {
        let view = self.view();
        let handle = self.handle(room);
        let head = self.head(room);
        let num = self
            .rooms
            .interner()
            .find_state_key(&view, kind, key)
            .expect("state keys can be read")?;
        let nodes = self.rooms.nodes(&view, handle.num);
        let event = myelin_state::get(&nodes, head.root(), num).expect("the state can be read")?;
        self.rooms
            .event(&view, handle.num, event)
            .expect("events can be read")
    }

    pub(crate) fn content(&self, room: &RoomId, kind: &str, key: &str) -> Value {
        self.state(room, kind, key).map_or(Value::Null, |event| {
            Value::Object(event.pdu.content().clone())
        })
    }

    pub(crate) fn membership(&self, room: &RoomId, who: &str) -> String {
        let content = self.content(room, "m.room.member", who);
        content["membership"].as_str().unwrap_or("none").to_owned()
    }

    pub(crate) fn head(&self, room: &RoomId) -> Head {
        self.view()
            .get::<Heads>(&self.handle(room).num)
            .expect("heads can be read")
            .expect("the room has a head")
    }

    pub(crate) fn timeline(&self, room: &RoomId) -> Vec<(Place, TimelineEntry, Arc<Event>)> {
        let view = self.view();
        let num = self.handle(room).num;
        view.scan::<Timeline>(Scan::prefix(&num))
            .map(|row| {
                let ((_, place), entry) = row.expect("the timeline can be read");
                let event = self
                    .rooms
                    .event(&view, num, entry.event)
                    .expect("events can be read")
                    .expect("the event is there");
                (place, entry, event)
            })
            .collect()
    }

    pub(crate) fn types(&self, room: &RoomId) -> Vec<String> {
        self.timeline(room)
            .into_iter()
            .map(|(_, _, event)| event.pdu.event_type().to_owned())
            .collect()
    }

    /// Checks what must hold of every room of ours: one linear chain without gaps, whose end is the only extremity.
    pub(crate) fn check_chain(&self, room: &RoomId) {
        let timeline = self.timeline(room);
        let mut before: Option<&(Place, TimelineEntry, Arc<Event>)> = None;
        for row in &timeline {
            let (place, entry, event) = row;
            let prev: Vec<&str> = event.pdu.prev_events().collect();
            match before {
                None => assert!(prev.is_empty()),
                Some((last, last_entry, last_event)) => {
                    assert_eq!(*place, last.next(), "no gap in the timeline");
                    assert!(entry.pos >= last_entry.pos, "positions do not go back");
                    assert_eq!(prev, [last_event.pdu.event_id()], "one chain");
                    assert_eq!(event.pdu.depth(), last_event.pdu.depth() + 1);
                    assert_eq!(
                        event.header.before(),
                        last_event.header.after(),
                        "the state before an event is the state after the one before it"
                    );
                }
            }
            assert_eq!(event.header.place, Some(*place));
            assert_eq!(event.pos, entry.pos);
            before = Some(row);
        }
        let head = self.head(room);
        let (place, _, event) = before.expect("a room has events");
        assert_eq!(head.last, *place);
        assert_eq!(
            head.extremities,
            [(event.num, event.header.event_id.clone())]
        );
        assert_eq!(head.root(), event.header.after());
    }
}

pub(crate) fn enter(room: &RoomId, who: &str) -> Enter {
    Enter {
        room_id: room.to_owned(),
        user: user(who),
        profile: profile(who),
        reason: None,
        extra: JsonObject::new(),
    }
}

pub(crate) fn invite(room: &RoomId, sender: &str, target: &str) -> Invite {
    Invite {
        room_id: room.to_owned(),
        sender: user(sender),
        target: user(target),
        profile: profile(target),
        reason: None,
        is_direct: false,
    }
}

pub(crate) fn invitee(who: &str) -> Invitee {
    Invitee {
        user_id: user(who),
        profile: profile(who),
    }
}

pub(crate) fn moderate(room: &RoomId, sender: &str, target: &str) -> Moderate {
    Moderate {
        room_id: room.to_owned(),
        sender: user(sender),
        target: user(target),
        reason: Some("because".to_owned()),
    }
}

pub(crate) fn message(room: &RoomId, who: &str, text: &str) -> SendMessage {
    SendMessage {
        room_id: room.to_owned(),
        sender: user(who),
        event_type: "m.room.message".to_owned(),
        content: object(json!({"msgtype": "m.text", "body": text})),
        transaction: None,
    }
}

pub(crate) fn state(room: &RoomId, who: &str, kind: &str, key: &str, content: Value) -> SendState {
    SendState {
        room_id: room.to_owned(),
        sender: user(who),
        event_type: kind.to_owned(),
        state_key: key.to_owned(),
        content: object(content),
    }
}

pub(crate) fn transaction(device: &str, id: &str) -> TransactionId {
    TransactionId {
        device_id: device.to_owned(),
        path: "send".to_owned(),
        id: id.to_owned(),
    }
}
