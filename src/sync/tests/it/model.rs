//! Random histories: whoever applies his syncs has the room as it is, sees nothing that is hidden, and misses nothing.

use std::collections::{BTreeMap, HashMap};

use myelin_data::rooms::{Membership, Place, Timeline};
use myelin_rooms::{Preset, Thread, read::RoomView};
use myelin_store::Scan;
use ruma::{OwnedRoomId, RoomId};
use serde_json::{Value, json};

use crate::support::{ALICE, BOB, CHARLIE, Client, Server, of};

use myelin_data::rooms::ReceiptKind;
use proptest::prelude::*;

const USERS: [&str; 3] = [ALICE, BOB, CHARLIE];
const VISIBILITIES: [&str; 4] = ["world_readable", "shared", "invited", "joined"];

#[derive(Clone, Debug)]
enum Step {
    Say {
        who: usize,
        room: usize,
        mention: bool,
    },
    Set {
        who: usize,
        room: usize,
        key: u8,
        value: u8,
    },
    See {
        room: usize,
        visibility: usize,
    },
    Join {
        who: usize,
        room: usize,
    },
    Leave {
        who: usize,
        room: usize,
    },
    Invite {
        who: usize,
        room: usize,
    },
    Kick {
        who: usize,
        room: usize,
    },
    Ban {
        who: usize,
        room: usize,
    },
    Unban {
        who: usize,
        room: usize,
    },
    Read {
        who: usize,
        room: usize,
        back: usize,
    },
    Sync {
        client: usize,
        limit: usize,
        full: bool,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let (who, room) = (0..3_usize, 0..2_usize);
    let other = 1..3_usize;
    prop_oneof![
        6 => (who.clone(), room.clone(), any::<bool>()).prop_map(|(who, room, mention)| Step::Say { who, room, mention }),
        3 => (who.clone(), room.clone(), 0..3_u8, any::<u8>())
            .prop_map(|(who, room, key, value)| Step::Set { who, room, key, value }),
        1 => (room.clone(), 0..4_usize).prop_map(|(room, visibility)| Step::See { room, visibility }),
        4 => (other.clone(), room.clone()).prop_map(|(who, room)| Step::Join { who, room }),
        2 => (other.clone(), room.clone()).prop_map(|(who, room)| Step::Leave { who, room }),
        1 => (other.clone(), room.clone()).prop_map(|(who, room)| Step::Invite { who, room }),
        1 => (other.clone(), room.clone()).prop_map(|(who, room)| Step::Kick { who, room }),
        1 => (other.clone(), room.clone()).prop_map(|(who, room)| Step::Ban { who, room }),
        1 => (other, room.clone()).prop_map(|(who, room)| Step::Unban { who, room }),
        2 => (who, room, 0..6_usize).prop_map(|(who, room, back)| Step::Read { who, room, back }),
        6 => (0..7_usize, 1..8_usize, prop::bool::weighted(0.1))
            .prop_map(|(client, limit, full)| Step::Sync { client, limit, full }),
    ]
}

/// Event type and state key: event id.
type State = BTreeMap<(String, String), String>;

/// What a client has of a room that it is in.
#[derive(Default)]
struct Copy {
    state: State,
    /// Everything since the last gap.
    timeline: Vec<String>,
    unread: (u64, u64),
}

struct Device {
    client: Client,
    /// Whether it loads members lazily.
    lazy: bool,
    rooms: HashMap<OwnedRoomId, Copy>,
}

/// An event as it truly is.
struct Truth {
    id: String,
    sender: String,
    kind: String,
    key: Option<String>,
    content: Value,
    place: Place,
}

fn truth(server: &Server, room: &RoomId) -> Vec<Truth> {
    let view = server.store.view();
    let num = server.num(room);
    let room = RoomView::open(&server.rooms, &view, num).expect("the room is there");
    view.scan::<Timeline>(Scan::prefix(&num))
        .map(|row| {
            let ((_, place), entry) = row.expect("the timeline can be read");
            let event = room.event(entry.event).expect("the event is there");
            Truth {
                id: event.pdu.event_id().to_owned(),
                sender: event.pdu.sender().to_owned(),
                kind: event.pdu.event_type().to_owned(),
                key: event.pdu.state_key().map(ToOwned::to_owned),
                content: Value::Object(event.pdu.content().clone()),
                place,
            }
        })
        .collect()
}

/// The events of a timeline that a joined user may see: the rules of history visibility, event by event.
fn visible<'a>(truth: &'a [Truth], who: &str) -> Vec<&'a Truth> {
    let (mut visibility, mut membership) = ("shared".to_owned(), "leave".to_owned());
    let mut seen = Vec::new();
    for event in truth {
        let before = (visibility.clone(), membership.clone());
        if event.kind == "m.room.history_visibility" {
            event.content["history_visibility"]
                .as_str()
                .unwrap_or("shared")
                .clone_into(&mut visibility);
        }
        let own = event.kind == "m.room.member" && event.key.as_deref() == Some(who);
        if own {
            event.content["membership"]
                .as_str()
                .unwrap_or("leave")
                .clone_into(&mut membership);
        }
        let allowed = |(visibility, membership): &(String, String)| {
            visibility == "world_readable"
                || membership == "join"
                || visibility == "shared"
                || (membership == "invite" && visibility == "invited")
        };
        if own || allowed(&before) || allowed(&(visibility.clone(), membership.clone())) {
            seen.push(event);
        }
    }
    seen
}

fn state_of(truth: &[Truth]) -> State {
    let mut state = State::new();
    for event in truth {
        if let Some(key) = &event.key {
            state.insert((event.kind.clone(), key.clone()), event.id.clone());
        }
    }
    state
}

/// What a user has not read, counted by going through everything.
fn unread(server: &Server, truth: &[Truth], room: &RoomId, who: &str) -> (u64, u64) {
    let view = server.store.view();
    let num = server.num(room);
    let user = server
        .rooms
        .interner()
        .find_user(&view, &crate::support::user(who))
        .expect("users can be read");
    let user = user.expect("the user is known");
    let mut read = Place::START;
    for row in view.scan::<myelin_data::rooms::Receipts>(Scan::prefix(&(num, user))) {
        let (_, receipt) = row.expect("receipts can be read");
        read = read.max(receipt.place);
    }
    let (mut counts, mut joined) = ((0, 0), false);
    for event in truth {
        if event.kind == "m.room.member" && event.key.as_deref() == Some(who) {
            let joins = event.content["membership"] == Membership::Join.as_str();
            if joins && !joined {
                counts = (0, 0);
            }
            joined = joins;
        }
        if event.kind != "m.room.message" {
            continue;
        }
        if event.sender == who || event.place <= read {
            counts = (0, 0);
            continue;
        }
        let mentions = event.content["m.mentions"]["user_ids"].as_array();
        counts.0 += 1;
        counts.1 += u64::from(mentions.is_some_and(|users| users.iter().any(|user| user == who)));
    }
    counts
}

fn ids(events: &Value) -> Vec<String> {
    let events = events.as_array().map(Vec::as_slice).unwrap_or_default();
    events
        .iter()
        .filter_map(|event| Some(event["event_id"].as_str()?.to_owned()))
        .collect()
}

fn apply(state: &mut State, events: &Value) {
    for event in events.as_array().map(Vec::as_slice).unwrap_or_default() {
        if let (Some(kind), Some(key), Some(id)) = (
            event["type"].as_str(),
            event["state_key"].as_str(),
            event["event_id"].as_str(),
        ) {
            state.insert((kind.to_owned(), key.to_owned()), id.to_owned());
        }
    }
}

/// Nothing of after the end of a stay is told, but later memberships of the user's own.
fn check_end(truth: &[Truth], told: &[String], who: &str) {
    let Some(end) = truth.iter().rposition(|event| {
        event.kind == "m.room.member"
            && event.key.as_deref() == Some(who)
            && event.content["membership"] != "join"
    }) else {
        panic!("{who} never left");
    };
    for id in told {
        let at = truth
            .iter()
            .position(|event| event.id == *id)
            .expect("the event is of this room");
        assert!(at <= end, "{who} sees what came after he left");
    }
}

impl Device {
    async fn sync(&mut self, server: &Server, rooms: &[OwnedRoomId], limit: usize, full: bool) {
        let lazy = json!({"lazy_load_members": self.lazy});
        self.client.filter = json!({"room": {"timeline": {"limit": limit}, "state": lazy}});
        self.client.full_state = full;
        let first = self.client.since.is_none();
        let response = self.client.sync().await;
        let who = self.client.viewer.user_id.to_string();
        for room in rooms {
            let truth = truth(server, room);
            let may_see: Vec<&str> = visible(&truth, &who)
                .into_iter()
                .map(|event| event.id.as_str())
                .collect();
            let left = of(&response, "leave", room);
            if left.is_object() {
                assert!(!first, "left rooms are not asked for");
                let told = ids(&left["timeline"]["events"]);
                assert!(
                    told.iter().all(|id| may_see.contains(&id.as_str())),
                    "{who} sees what is hidden"
                );
                check_end(&truth, &told, &who);
                self.rooms.remove(room);
            }
            if of(&response, "invite", room).is_object() {
                // He left since, and was invited again.
                self.rooms.remove(room);
            }
            let joined = of(&response, "join", room);
            if joined.is_object() {
                assert!(!left.is_object() && !of(&response, "invite", room).is_object());
                self.apply(room, joined, &may_see, limit);
            }
            self.compare(server, room, &truth, &may_see, &who);
        }
    }

    fn apply(&mut self, room: &OwnedRoomId, joined: &Value, may_see: &[&str], limit: usize) {
        let timeline = &joined["timeline"];
        let told = ids(&timeline["events"]);
        assert!(told.len() <= limit);
        for id in &told {
            assert!(may_see.contains(&id.as_str()), "a hidden event is told");
        }
        let copy = self.rooms.entry(room.clone()).or_default();
        if timeline["limited"] == true {
            copy.timeline.clear();
        }
        copy.timeline.extend(told);
        if self.client.state_after {
            apply(&mut copy.state, &joined["state_after"]["events"]);
        } else {
            apply(&mut copy.state, &joined["state"]["events"]);
            apply(&mut copy.state, &timeline["events"]);
        }
        let number = |name: &str| {
            joined["unread_notifications"][name]
                .as_u64()
                .expect("there is a count")
        };
        copy.unread = (number("notification_count"), number("highlight_count"));
    }

    fn compare(
        &self,
        server: &Server,
        room: &RoomId,
        truth: &[Truth],
        may_see: &[&str],
        who: &str,
    ) {
        let in_room = truth
            .iter()
            .rfind(|event| event.kind == "m.room.member" && event.key.as_deref() == Some(who))
            .is_some_and(|event| event.content["membership"] == "join");
        let copy = self.rooms.get(room);
        assert_eq!(
            in_room,
            copy.is_some(),
            "{who} knows whether he is in {room}"
        );
        let Some(copy) = copy else {
            return;
        };
        let mut state = state_of(truth);
        if self.lazy {
            let senders: Vec<&str> = truth
                .iter()
                .filter(|event| copy.timeline.contains(&event.id))
                .map(|event| event.sender.as_str())
                .collect();
            state.retain(|key, _| {
                key.0 != "m.room.member"
                    || senders.contains(&key.1.as_str())
                    || copy.state.contains_key(key)
            });
        }
        assert_eq!(copy.state, state, "the state of {who} in {room}");
        let end = &may_see[may_see.len() - copy.timeline.len()..];
        assert_eq!(copy.timeline, end, "the timeline of {who} in {room}");
        assert_eq!(
            copy.unread,
            unread(server, truth, room, who),
            "the unread count of {who} in {room}"
        );
    }
}

async fn run(steps: Vec<Step>) {
    let server = Server::new().await;
    let mut rooms = Vec::new();
    for visibility in ["shared", "joined"] {
        let state = [(
            "m.room.history_visibility",
            json!({"history_visibility": visibility}),
        )];
        let levels = json!({"state_default": 0});
        let room = server.room_with(Preset::PublicChat, &state).await;
        server
            .set(&room, ALICE, "m.room.power_levels", "", levels)
            .await;
        rooms.push(room);
    }
    let mut devices = Vec::new();
    for (at, who) in [ALICE, BOB, CHARLIE, BOB, CHARLIE, BOB, CHARLIE]
        .iter()
        .enumerate()
    {
        let mut client = server.client(who).await;
        client.viewer.device_id = Some(format!("DEVICE{at}"));
        client.state_after = at == 3 || at == 4 || at == 6;
        let rooms = HashMap::new();
        let lazy = at >= 5;
        devices.push(Device {
            client,
            lazy,
            rooms,
        });
    }
    for step in steps {
        // What a step is not allowed to do is just not done.
        match step {
            Step::Say { who, room, mention } => {
                let mentioned = if mention {
                    json!([USERS[(who + 1) % 3]])
                } else {
                    json!([])
                };
                let content = json!({"msgtype": "m.text", "body": "x", "m.mentions": {"user_ids": mentioned}});
                let _ = server
                    .try_send(&rooms[room], USERS[who], "m.room.message", content)
                    .await;
            }
            Step::Set {
                who,
                room,
                key,
                value,
            } => {
                let content = json!({"value": value});
                let _ = server
                    .try_set(&rooms[room], USERS[who], "a.b", &key.to_string(), content)
                    .await;
            }
            Step::See { room, visibility } => {
                let content = json!({"history_visibility": VISIBILITIES[visibility]});
                server
                    .set(
                        &rooms[room],
                        ALICE,
                        "m.room.history_visibility",
                        "",
                        content,
                    )
                    .await;
            }
            Step::Join { who, room } => {
                let _ = server.try_join(&rooms[room], USERS[who]).await;
            }
            Step::Leave { who, room } => {
                let _ = server.try_leave(&rooms[room], USERS[who]).await;
            }
            Step::Invite { who, room } => {
                let _ = server.try_invite(&rooms[room], ALICE, USERS[who]).await;
            }
            Step::Kick { who, room } => {
                drop(
                    server
                        .rooms
                        .kick(Server::moderate(&rooms[room], ALICE, USERS[who]))
                        .await,
                );
            }
            Step::Ban { who, room } => {
                drop(
                    server
                        .rooms
                        .ban(Server::moderate(&rooms[room], ALICE, USERS[who]))
                        .await,
                );
            }
            Step::Unban { who, room } => {
                drop(
                    server
                        .rooms
                        .unban(Server::moderate(&rooms[room], ALICE, USERS[who]))
                        .await,
                );
            }
            Step::Read { who, room, back } => {
                let truth = truth(&server, &rooms[room]);
                let event = &truth[truth.len() - 1 - back.min(truth.len() - 1)];
                let receipt = myelin_rooms::NewReceipt {
                    kind: ReceiptKind::Read,
                    thread: Thread::Unthreaded,
                    event_id: ruma::EventId::parse(&event.id).expect("event ids are well-formed"),
                };
                let who = crate::support::user(USERS[who]);
                let _ = server
                    .rooms
                    .set_receipts(&rooms[room], &who, vec![receipt])
                    .await;
            }
            Step::Sync {
                client,
                limit,
                full,
            } => devices[client].sync(&server, &rooms, limit, full).await,
        }
    }
    for device in &mut devices {
        device.sync(&server, &rooms, 5, false).await;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 60, ..ProptestConfig::default() })]

    #[test]
    fn clients_have_what_is(steps in prop::collection::vec(step(), 10..80)) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime can be made");
        runtime.block_on(run(steps));
    }
}
