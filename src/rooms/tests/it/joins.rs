//! Entering a room of another server, with all of its state or without its members, which are fetched afterwards.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use myelin_data::{
    partial::{PartialEvents, PartialJoin, PartialJoins},
    rooms::{EventStatus, Gaps, Membership, Receipts},
    topic::Changed,
};
use myelin_rooms::{
    Completeness, JoinError, Rooms, Thread,
    doctor::{Examination, Finding, Severity},
    remote::{
        DraftError, EnterError, Fetch, FetchError, Fetching, JoinAnswer, MakeJoin, MakeJoinError,
        MakeMembership, MakeMembershipError, MissingEvents, Outcome, RemoteReceipt, StateEvents,
        StateIds, Step, Wanted, WantedKey,
    },
};
use myelin_rules::{
    EventBuilder, EventRef, Pdu, RoomVersion, Signer, SigningKey,
    auth::auth_types,
    sign::{VerifyKey, VerifyKeys},
};
use myelin_store::{Observer, Scan, Store, Topic};
use myelin_types::{Millis, Pos, RoomNum};
use parking_lot::Mutex;
use ruma::{EventId, OwnedEventId, OwnedRoomId, RoomId, ServerName, owned_server_name};
use serde_json::{Value, json, value::RawValue};
use tokio_util::sync::CancellationToken;

use crate::support::{ALICE, BOB, Server, enter, object, user};

const DORA: &str = "@dora:there.org";

fn raw(pdu: &Pdu) -> Box<RawValue> {
    RawValue::from_string(pdu.json().to_owned()).expect("events are JSON")
}

fn event(id: &str) -> OwnedEventId {
    OwnedEventId::try_from(id).expect("an event id")
}

fn signing_key() -> SigningKey {
    SigningKey::from_seed("b_test", [9; 32])
}

/// A room of another server.
struct Far {
    version: RoomVersion,
    room: OwnedRoomId,
    events: Mutex<HashMap<String, Pdu>>,
    state: BTreeMap<(String, String), Pdu>,
    last: Pdu,
    /// The state that `state_ids` and `state` answer, for any event.
    told: Mutex<Option<Vec<Pdu>>>,
    asked: Mutex<Vec<&'static str>>,
}

impl Far {
    /// One that Dora has made, with further members.
    fn new(version: RoomVersion, members: usize) -> Far {
        let rules = version.rules();
        let mut content = json!({ "room_version": version.as_str() });
        if !rules.creator_is_sender {
            content["creator"] = DORA.into();
        }
        let room_id = (!rules.room_id_is_create_hash).then(|| "!far:there.org".to_owned());
        let create = EventBuilder {
            room_id,
            sender: DORA.to_owned(),
            event_type: "m.room.create".to_owned(),
            state_key: Some(String::new()),
            content: object(content),
            redacts: None,
            prev_events: Vec::new(),
            auth_events: Vec::new(),
            depth: 1,
            origin_server_ts: Millis(1_700_000_000_000),
        };
        let create = create
            .sign(version, &Signer::new("there.org", signing_key()))
            .expect("a small event");
        let mut far = Far {
            version,
            room: OwnedRoomId::try_from(create.room_id()).expect("a room id"),
            events: Mutex::default(),
            state: BTreeMap::new(),
            last: create.clone(),
            told: Mutex::default(),
            asked: Mutex::default(),
        };
        far.note(&create);
        far.member(DORA, "join");
        let levels = if rules.privileged_creators {
            json!({ "users": {} })
        } else {
            json!({ "users": { DORA: 100 } })
        };
        far.send(DORA, "m.room.power_levels", Some(""), levels);
        let rule = json!({ "join_rule": "public" });
        far.send(DORA, "m.room.join_rules", Some(""), rule);
        for number in 0..members {
            far.member(&format!("@user{number}:there.org"), "join");
        }
        far
    }

    fn note(&mut self, pdu: &Pdu) {
        if let Some(state_key) = pdu.state_key() {
            let key = (pdu.event_type().to_owned(), state_key.to_owned());
            self.state.insert(key, pdu.clone());
        }
        let id = pdu.event_id().to_owned();
        self.events.lock().insert(id, pdu.clone());
        self.last = pdu.clone();
    }

    fn build(&self, sender: &str, kind: &str, key: Option<&str>, content: Value) -> EventBuilder {
        let content = object(content);
        let auth = auth_types(self.version, kind, sender, key, &content);
        let auth = auth
            .iter()
            .filter_map(|(kind, key)| self.state.get(&((*kind).to_owned(), key.clone())));
        EventBuilder {
            room_id: Some(self.room.to_string()),
            sender: sender.to_owned(),
            event_type: kind.to_owned(),
            state_key: key.map(str::to_owned),
            content,
            redacts: None,
            prev_events: vec![EventRef::from(&self.last)],
            auth_events: auth.map(EventRef::from).collect(),
            depth: self.last.depth() + 1,
            origin_server_ts: Millis(1_700_000_001_000),
        }
    }

    fn sign(&self, builder: EventBuilder) -> Pdu {
        builder
            .sign(self.version, &Signer::new("there.org", signing_key()))
            .expect("a small event")
    }

    /// Sends an event, whether its sender may or not.
    fn send(&mut self, sender: &str, kind: &str, key: Option<&str>, content: Value) -> Pdu {
        let pdu = self.sign(self.build(sender, kind, key, content));
        self.note(&pdu);
        pdu
    }

    fn member(&mut self, who: &str, membership: &str) -> Pdu {
        let content = json!({ "membership": membership });
        self.send(who, "m.room.member", Some(who), content)
    }

    fn text(&mut self, who: &str) -> Pdu {
        let content = json!({ "msgtype": "m.text", "body": "Hello" });
        self.send(who, "m.room.message", None, content)
    }

    /// What `make_join` answers.
    fn draft(&self, who: &str) -> Value {
        let join = json!({ "membership": "join" });
        let builder = self.build(who, "m.room.member", Some(who), join);
        let refer = |references: &[EventRef]| {
            let paired = self.version.as_str() < "3" && self.version.as_str().len() == 1;
            references
                .iter()
                .map(|reference| {
                    if paired {
                        let pdu = &self.events.lock()[&reference.event_id];
                        let json: Value = serde_json::from_str(pdu.json()).expect("JSON");
                        // Any hash of the right length will do: nobody checks it.
                        json!([reference.event_id, { "sha256": json["hashes"]["sha256"] }])
                    } else {
                        json!(reference.event_id)
                    }
                })
                .collect::<Vec<Value>>()
        };
        json!({
            "type": "m.room.member", "room_id": self.room, "sender": who, "state_key": who,
            "content": { "membership": "join", "evil": true }, "depth": builder.depth,
            "prev_events": refer(&builder.prev_events),
            "auth_events": refer(&builder.auth_events),
            "origin_server_ts": 5, "unsigned": {}, "evil": true,
        })
    }

    /// Lets a user of ours in, as it is told to.
    fn answer(&mut self, join: &Pdu, omit_members: bool) -> JoinAnswer {
        let state: Vec<Pdu> = self.state.values().cloned().collect();
        *self.told.lock() = Some(state.clone());
        let answer = JoinAnswer {
            room_id: self.room.clone(),
            version: self.version,
            server: owned_server_name!("there.org"),
            join: join.clone(),
            event: Some(raw(join)),
            state: state
                .iter()
                .filter(|pdu| !omit_members || pdu.event_type() != "m.room.member")
                .map(raw)
                .collect(),
            auth_chain: vec![raw(&self.state[&("m.room.member".into(), DORA.into())])],
            members_omitted: omit_members,
            servers: vec![
                owned_server_name!("there.org"),
                owned_server_name!("away.org"),
            ],
        };
        self.note(join);
        answer
    }
}

impl Fetch for Far {
    fn missing_events<'a>(
        &'a self,
        _: &'a ServerName,
        _: &'a RoomId,
        _: &'a MissingEvents,
    ) -> Fetching<'a, Result<Vec<Box<RawValue>>, FetchError>> {
        Box::pin(async move { Ok(Vec::new()) })
    }

    fn event<'a>(
        &'a self,
        _: &'a ServerName,
        event_id: &'a EventId,
    ) -> Fetching<'a, Result<Box<RawValue>, FetchError>> {
        Box::pin(async move {
            self.asked.lock().push("event");
            let event = self.events.lock().get(event_id.as_str()).map(raw);
            event.ok_or_else(refused)
        })
    }

    fn state_ids<'a>(
        &'a self,
        _: &'a ServerName,
        _: &'a RoomId,
        _: &'a EventId,
    ) -> Fetching<'a, Result<StateIds, FetchError>> {
        Box::pin(async move {
            self.asked.lock().push("state_ids");
            let told = self.told.lock();
            let state = told.as_ref().ok_or_else(refused)?;
            let ids = state
                .iter()
                .map(|pdu| OwnedEventId::try_from(pdu.event_id()));
            Ok(StateIds {
                state: ids.map(|id| id.expect("an event id")).collect(),
                auth_chain: Vec::new(),
            })
        })
    }

    fn state<'a>(
        &'a self,
        _: &'a ServerName,
        _: &'a RoomId,
        _: &'a EventId,
    ) -> Fetching<'a, Result<StateEvents, FetchError>> {
        Box::pin(async move {
            self.asked.lock().push("state");
            let told = self.told.lock();
            let state = told.as_ref().ok_or_else(refused)?;
            Ok(StateEvents {
                state: state.iter().map(raw).collect(),
                auth_chain: Vec::new(),
            })
        })
    }

    fn keys<'a>(&'a self, wanted: &'a [WantedKey]) -> Fetching<'a, VerifyKeys> {
        Box::pin(async move {
            let mut keys = VerifyKeys::new();
            for wanted in wanted.iter().filter(|key| key.server == "there.org") {
                let key = VerifyKey {
                    key: signing_key().public_key_bytes(),
                    valid_until: None,
                    expired: None,
                };
                let of_server = keys.entry(wanted.server.to_string()).or_default();
                of_server.insert("ed25519:b_test".to_owned(), key);
            }
            keys
        })
    }
}

fn refused() -> FetchError {
    FetchError::Refused {
        status: 404,
        errcode: "M_NOT_FOUND".to_owned(),
    }
}

fn wanted(far: &Far, who: &str) -> Wanted {
    let server = owned_server_name!("there.org");
    Wanted::join(&enter(&far.room, who), far.version, server)
}

fn join(server: &Server, far: &Far, who: &str) -> Pdu {
    let draft = RawValue::from_string(far.draft(who).to_string()).expect("JSON");
    server
        .rooms
        .fill_in(&draft, &wanted(far, who))
        .expect("the draft is good")
}

/// A server that has entered a room without its members.
async fn partial(members: usize) -> (Server, Arc<Far>) {
    let server = Server::new().await;
    let mut far = Far::new(RoomVersion::V11, members);
    let join = join(&server, &far, ALICE);
    let answer = far.answer(&join, true);
    let far = Arc::new(far);
    server
        .rooms
        .enter(Arc::clone(&far) as Arc<dyn Fetch>, answer)
        .await
        .expect("the answer is good");
    (server, far)
}

impl Server {
    fn completeness(&self, room: &RoomId) -> Completeness {
        let num = self.handle(room).num;
        self.rooms
            .completeness(&self.view(), num)
            .expect("it can be read")
    }

    /// What the doctor finds that is no mere note.
    async fn ailments(&self, far: &Arc<Far>) -> Vec<Finding> {
        let report = self.rooms.examine(
            &far.room,
            Examination::default(),
            Arc::clone(far) as Arc<dyn Fetch>,
            Arc::new(|_| {}),
        );
        let mut findings = report.await.expect("the room can be examined").findings;
        findings.retain(|finding| finding.severity != Severity::Note);
        findings
    }

    fn status(&self, room: &RoomId, pdu: &Pdu) -> EventStatus {
        let (view, num) = (self.view(), self.handle(room).num);
        let id = <&EventId>::try_from(pdu.event_id()).expect("an event id");
        let event = self.rooms.event_num(&view, num, id).expect("read");
        let event = self
            .rooms
            .event(&view, num, event.expect("it is stored"))
            .expect("read");
        event.expect("it is stored").header.status
    }

    /// Takes in an event that the other server sends, and says what became of it.
    async fn receive(&self, far: &Arc<Far>, pdu: &Pdu) -> Outcome {
        let origin = owned_server_name!("there.org");
        let delivered = self.rooms.deliver(&origin, vec![raw(pdu)]).await;
        delivered.expect("there is room in the inbox");
        let work = self.rooms.claim_inbox().await.expect("it can be read");
        let mut work = work.expect("something is due");
        let judged = work.step(&**far, &CancellationToken::new()).await;
        let judged = judged.expect("no fault").pop();
        judged.expect("the event was dealt with").outcome
    }
}

#[tokio::test]
async fn a_room_of_every_version_is_entered_with_its_state() {
    for version in RoomVersion::ALL {
        let server = Server::new().await;
        let mut far = Far::new(version, 3);
        let join = join(&server, &far, ALICE);
        let content = Value::Object(join.content().clone());
        assert_eq!(content["membership"], "join", "{version}");
        // Nothing that the other server wrote is signed.
        assert_eq!(content.get("evil"), None);
        assert!(!join.json().contains("evil"));
        let answer = far.answer(&join, false);
        let room = far.room.clone();
        let far = Arc::new(far);
        let id = server
            .rooms
            .enter(Arc::clone(&far) as Arc<dyn Fetch>, answer)
            .await
            .expect("the answer is good");
        assert_eq!(id, join.event_id());
        assert_eq!(server.head(&room).joined, 5, "{version}");
        assert_eq!(server.completeness(&room), Completeness::Whole);
        let timeline = server.timeline(&room);
        assert_eq!(timeline.len(), 1);
        assert_eq!(timeline[0].2.header.event_id, join.event_id());
        let num = server.handle(&room).num;
        let gaps: Vec<_> = server
            .view()
            .scan::<Gaps>(Scan::prefix(&num))
            .collect::<Result<_, _>>()
            .expect("gaps can be read");
        let prev: Vec<&str> = join.prev_events().collect();
        assert_eq!(gaps.len(), 1);
        assert_eq!(gaps[0].1.missing, prev);
        // The room goes on.
        server.say(&room, ALICE, "Hello").await;
        assert_eq!(server.timeline(&room).len(), 2);
    }
}

#[tokio::test]
async fn a_draft_of_another_event_is_not_signed() {
    let server = Server::new().await;
    let far = Far::new(RoomVersion::V10, 0);
    let try_with = |change: &dyn Fn(&mut Value)| {
        let mut draft = far.draft(ALICE);
        change(&mut draft);
        let draft = RawValue::from_string(draft.to_string()).expect("JSON");
        server.rooms.fill_in(&draft, &wanted(&far, ALICE))
    };
    try_with(&|_| {}).expect("unchanged it is good");
    for (key, value) in [
        ("type", json!("m.room.message")),
        ("room_id", json!("!other:there.org")),
        ("sender", json!("@bob:here.org")),
        ("state_key", json!("@bob:here.org")),
        ("content", json!({ "membership": "leave" })),
    ] {
        let refused = try_with(&|draft| draft[key] = value.clone());
        assert!(matches!(refused, Err(DraftError::Mismatch(_))), "{key}");
    }
    for (key, value) in [
        ("prev_events", json!([])),
        ("prev_events", json!(["no id"])),
        ("auth_events", json!([7])),
        ("depth", json!("deep")),
        (
            "content",
            json!({ "membership": "join", "join_authorised_via_users_server": "@x:away.org" }),
        ),
    ] {
        let refused = try_with(&|draft| draft[key] = value.clone());
        assert!(matches!(refused, Err(DraftError::Malformed(_))), "{key}");
    }
    let many: Vec<String> = (0..30).map(|number| format!("$e{number}")).collect();
    let refused = try_with(&|draft| draft["prev_events"] = json!(many));
    assert!(matches!(refused, Err(DraftError::Build(_))));
    let vouched = json!({ "membership": "join", "join_authorised_via_users_server": DORA });
    let join = try_with(&|draft| draft["content"] = vouched.clone()).expect("it is good");
    assert_eq!(join.content()["join_authorised_via_users_server"], DORA);
}

#[tokio::test]
async fn an_answer_that_does_not_hold_together_is_not_believed() {
    let server = Server::new().await;
    for (what, spoil) in [
        (
            "create event",
            (|answer: &mut JoinAnswer| {
                answer
                    .state
                    .retain(|event| !event.get().contains("m.room.create"));
            }) as fn(&mut JoinAnswer),
        ),
        ("auth event", |answer| {
            answer
                .state
                .retain(|event| !event.get().contains("\"m.room.join_rules\""));
        }),
        ("another join", |answer| {
            answer.event = answer.state.pop();
        }),
        ("two events", |answer| {
            answer.state.extend(answer.auth_chain.clone());
            let other = Far::new(RoomVersion::V11, 1);
            let rules = &other.state[&("m.room.member".into(), "@user0:there.org".into())];
            answer.state.push(raw(rules));
        }),
    ] {
        let mut far = Far::new(RoomVersion::V11, 2);
        if what == "two events" {
            far.text(DORA);
            far.member("@user0:there.org", "join");
        }
        let join = join(&server, &far, ALICE);
        let mut answer = far.answer(&join, false);
        spoil(&mut answer);
        let entered = server.rooms.enter(Arc::new(far), answer).await;
        assert!(matches!(entered, Err(EnterError::Untrusted(_))), "{what}");
    }
    let view = server.view();
    let room = <&RoomId>::try_from("!far:there.org").expect("a room id");
    let found = server.rooms.find(&view, room).expect("rooms can be read");
    assert!(found.is_none(), "nothing is left of a failed join");
}

#[tokio::test]
async fn events_that_cannot_be_verified_do_not_keep_anybody_out() {
    let server = Server::new().await;
    let mut far = Far::new(RoomVersion::V11, 2);
    let join = join(&server, &far, ALICE);
    let mut answer = far.answer(&join, false);
    let room = far.room.clone();
    let stranger = Signer::new("there.org", SigningKey::from_seed("b_test", [3; 32]));
    let forged = far
        .build(DORA, "m.room.name", Some(""), json!({ "name": "Forged" }))
        .sign(RoomVersion::V11, &stranger)
        .expect("a small event");
    answer.state.push(raw(&forged));
    answer
        .state
        .push(RawValue::from_string("{}".to_owned()).expect("JSON"));
    server
        .rooms
        .enter(Arc::new(far), answer)
        .await
        .expect("the rest is good");
    assert_eq!(server.content(&room, "m.room.name", ""), Value::Null);
    assert_eq!(server.head(&room).joined, 4);
}

#[tokio::test]
async fn a_room_is_usable_before_its_members_are_known() {
    let (server, far) = partial(60).await;
    let room = &far.room;
    assert_eq!(server.completeness(room), Completeness::Partial);
    // Dora is named by the join rules' chain only, so that only Alice is known to be there.
    assert_eq!(server.head(room).joined, 1);
    server.say(room, ALICE, "Hello").await;
    let (view, num) = (server.view(), server.handle(room).num);
    let servers = server.rooms.servers_in_room(&view, num).expect("read");
    assert_eq!(servers, ["away.org", "here.org", "there.org"]);
    // Nobody is let in through a server that does not know who is banned.
    let request = MakeJoin {
        room_id: room.clone(),
        user: user("@x:away.org"),
        origin: owned_server_name!("away.org"),
        versions: vec!["11".to_owned()],
    };
    let template = server.rooms.make_join(request).await;
    assert!(matches!(template, Err(MakeJoinError::RoomNotFound)));

    let there = owned_server_name!("there.org");
    let waiting = tokio::spawn({
        let (rooms, room) = (server.rooms.clone(), room.clone());
        async move { rooms.wait_until_whole(&room, Duration::from_mins(1)).await }
    });
    server
        .rooms
        .complete(&*far, room, &there)
        .await
        .expect("the answer is good");
    assert!(waiting.await.expect("no panic").expect("no fault"));
    assert!(matches!(server.completeness(room), Completeness::Since(_)));
    assert_eq!(server.head(room).joined, 62);
    assert_eq!(server.membership(room, "@user7:there.org"), "join");
    let view = server.view();
    let servers = server.rooms.servers_in_room(&view, num).expect("read");
    assert_eq!(servers, ["here.org", "there.org"]);
    let mut left = view.keys::<PartialEvents>(Scan::prefix(&num));
    assert!(left.next().is_none(), "everything was judged again");
    assert!(server.rooms.partial_rooms().await.expect("read").is_empty());
    assert_eq!(*far.asked.lock(), ["state_ids", "state"]);
    server.say(room, ALICE, "Hello all").await;
    assert_eq!(server.timeline(room).len(), 3);
}

/// What a reader finds who is woken by a change of a room.
struct Woken {
    store: Store,
    rooms: Rooms,
    room: RoomNum,
    found: Mutex<Vec<Completeness>>,
}

impl Observer for Woken {
    fn answered(&self, _: Pos, topics: &[Topic]) {
        let changes = topics.iter().copied().map(Changed::from_topic);
        if changes
            .flatten()
            .any(|changed| changed == Changed::Timeline(self.room))
        {
            let found = self.rooms.completeness(&self.store.view(), self.room);
            self.found.lock().push(found.expect("it can be read"));
        }
    }
}

#[tokio::test]
async fn whoever_is_woken_when_the_members_are_there_finds_them() {
    let (server, far) = partial(4).await;
    let room = server.handle(&far.room).num;
    let woken = Arc::new(Woken {
        store: server.store.clone(),
        rooms: server.rooms.clone(),
        room,
        found: Mutex::default(),
    });
    server
        .store
        .observe(Arc::clone(&woken) as Arc<dyn Observer>);
    server.say(&far.room, ALICE, "Hello").await;
    let before = server.view();
    let there = owned_server_name!("there.org");
    server
        .rooms
        .complete(&*far, &far.room, &there)
        .await
        .expect("the answer is good");
    // The observers are told after the writer is answered.
    server.say(&far.room, ALICE, "Hello all").await;
    let found = woken.found.lock().clone();
    let [Completeness::Partial, Completeness::Since(pos), ..] = found[..] else {
        panic!("woken too soon: {found:?}");
    };
    // Whoever reads from an older view is told what was true then.
    let then = server.rooms.completeness(&before, room);
    assert_eq!(then.expect("it can be read"), Completeness::Partial);
    let newest = |server: &Server| {
        let positions = server.rooms.positions(&server.view(), room);
        positions.expect("they can be read").timeline
    };
    assert!(newest(&server) > pos);
}

#[tokio::test]
async fn what_came_meanwhile_is_judged_again() {
    let server = Server::new().await;
    let mut far = Far::new(RoomVersion::V11, 2);
    // This one left before the join, and says afterwards that he did not.
    let gone = "@user0:there.org";
    let his_join = far.state[&("m.room.member".into(), gone.into())].clone();
    far.member(gone, "leave");
    let join = join(&server, &far, ALICE);
    let answer = far.answer(&join, true);
    let room = far.room.clone();
    let entered = Arc::new(far);
    let fetch = Arc::clone(&entered) as Arc<dyn Fetch>;
    server
        .rooms
        .enter(fetch, answer)
        .await
        .expect("the answer is good");
    let mut far = Arc::into_inner(entered).expect("nobody else has it");
    let key = ("m.room.member".to_owned(), gone.to_owned());
    let left = far.state.insert(key.clone(), his_join).expect("he left");
    let lie = far.text(gone);
    far.state.insert(key, left);
    let truth = far.text("@user1:there.org");
    let far = Arc::new(far);
    assert_eq!(server.receive(&far, &lie).await, Outcome::Accepted);
    assert_eq!(server.receive(&far, &truth).await, Outcome::Accepted);
    assert_eq!(server.membership(&room, gone), "join");
    assert_eq!(server.ailments(&far).await, []);
    let there = owned_server_name!("there.org");
    server
        .rooms
        .complete(&*far, &room, &there)
        .await
        .expect("the answer is good");
    assert_eq!(server.status(&room, &lie), EventStatus::Rejected);
    assert_eq!(server.status(&room, &truth), EventStatus::Accepted);
    assert_eq!(server.membership(&room, gone), "leave");
    assert_eq!(server.head(&room).joined, 3);
    let head = server.head(&room);
    assert_eq!(head.extremities.len(), 1);
    assert_eq!(head.extremities[0].1, truth.event_id());
    assert_eq!(server.ailments(&far).await, []);
}

#[tokio::test]
async fn completing_goes_on_after_a_restart_and_with_another_server() {
    let (server, far) = partial(80).await;
    let room = far.room.clone();
    let there = owned_server_name!("there.org");
    let told = far.told.lock().take();
    server
        .rooms
        .complete(&*far, &room, &there)
        .await
        .expect_err("the server refuses");
    let server = server.restart().await;
    assert_eq!(server.completeness(&room), Completeness::Partial);
    assert_eq!(
        server.rooms.partial_rooms().await.expect("read"),
        std::slice::from_ref(&room)
    );
    let completing = server.rooms.completing(&room).await.expect("read");
    let completing = completing.expect("something is missing");
    assert_eq!(completing.servers, ["there.org", "away.org"]);
    *far.told.lock() = told;
    server
        .rooms
        .complete(&*far, &room, &owned_server_name!("away.org"))
        .await
        .expect("the answer is good");
    assert_eq!(server.head(&room).joined, 82);
    // Done twice is done once.
    server
        .rooms
        .complete(&*far, &room, &there)
        .await
        .expect("nothing is left to do");
    let server = server.restart().await;
    let Completeness::Since(pos) = server.completeness(&room) else {
        panic!("it is complete");
    };
    assert_eq!(server.head(&room).joined, 82);
    // Whoever knows the room from before is told of it, though no event came with the members.
    let num = server.handle(&room).num;
    let positions = server.rooms.positions(&server.view(), num);
    assert_eq!(positions.expect("they can be read").timeline, pos);
}

#[tokio::test]
async fn a_room_that_everybody_left_is_not_completed() {
    let (server, far) = partial(3).await;
    let room = far.room.clone();
    server
        .rooms
        .leave(&room, &user(ALICE), None)
        .await
        .expect("Alice leaves");
    let completing = server.rooms.completing(&room).await.expect("read");
    assert!(completing.is_none());
    // Whoever was shown nothing of it is told everything if he enters it again.
    assert!(matches!(server.completeness(&room), Completeness::Since(_)));
    let num = server.handle(&room).num;
    let row = server.view().get::<PartialJoins>(&num).expect("read");
    assert!(matches!(row, Some(PartialJoin::Complete(_))));
    let view = server.view();
    let membership = server.rooms.membership(&view, num, &user(ALICE));
    assert_eq!(membership.expect("read"), Some(Membership::Leave));
}

#[tokio::test]
async fn a_room_that_is_entered_again_with_all_of_its_state_is_whole() {
    let (server, far) = partial(3).await;
    let room = far.room.clone();
    let mut far = Arc::into_inner(far).expect("nobody else has it");
    let join = join(&server, &far, ALICE);
    let answer = far.answer(&join, false);
    let far = Arc::new(far);
    let fetch = Arc::clone(&far) as Arc<dyn Fetch>;
    let entered = server.rooms.enter(fetch, answer).await;
    entered.expect("the answer is good");
    assert!(matches!(server.completeness(&room), Completeness::Since(_)));
    assert_eq!(server.head(&room).joined, 5);
    assert!(server.rooms.partial_rooms().await.expect("read").is_empty());
    server.say(&room, ALICE, "Hello").await;
    let (view, num) = (server.view(), server.handle(&room).num);
    let mut noted = view.keys::<PartialEvents>(Scan::prefix(&num));
    assert!(noted.next().is_none(), "nothing is to be judged again");
    let servers = server.rooms.servers_in_room(&view, num).expect("read");
    assert_eq!(servers, ["here.org", "there.org"]);
}

#[tokio::test]
async fn a_join_that_another_server_lets_in_does_not_enter_the_room_anew() {
    let (server, far) = partial(3).await;
    let room = far.room.clone();
    server.say(&room, ALICE, "Hello").await;
    let mut far = Arc::into_inner(far).expect("nobody else has it");
    let join = join(&server, &far, BOB);
    far.note(&join);
    let far = Arc::new(far);
    // Who is banned is not known here.
    let alone = server.rooms.join(enter(&room, BOB)).await;
    assert!(matches!(alone, Err(JoinError::NotResident)), "{alone:?}");
    let there = owned_server_name!("there.org");
    server
        .rooms
        .take_vouched(
            Arc::clone(&far) as _,
            &there,
            join.clone(),
            Some(raw(&join)),
        )
        .await
        .expect("the room lets anybody in");
    assert_eq!(server.membership(&room, BOB), "join");
    assert_eq!(server.membership(&room, ALICE), "join");
    // The timeline goes on where it was.
    assert_eq!(
        server.types(&room),
        ["m.room.member", "m.room.message", "m.room.member"]
    );
    assert_eq!(server.completeness(&room), Completeness::Partial);
    server
        .rooms
        .complete(&*far, &room, &there)
        .await
        .expect("the answer is good");
    assert_eq!(server.head(&room).joined, 6);
    assert_eq!(server.membership(&room, BOB), "join");
}

#[tokio::test]
async fn nobody_comes_in_through_a_server_that_does_not_know_the_members() {
    let (server, far) = partial(3).await;
    for step in [Step::Leave, Step::Knock] {
        let request = MakeMembership {
            room_id: far.room.clone(),
            user: user("@x:away.org"),
            step,
            origin: owned_server_name!("away.org"),
            versions: None,
        };
        let template = server.rooms.make_membership(request).await;
        assert!(matches!(template, Err(MakeMembershipError::RoomNotFound)));
    }
}

#[tokio::test]
async fn members_who_are_missing_are_seen_typing_and_reading() {
    let (server, far) = partial(3).await;
    let room = &far.room;
    let said = server.say(room, ALICE, "Hello").await;
    let (member, stranger) = (user("@user1:there.org"), user("@x:nowhere.org"));
    for (who, seen) in [(&member, true), (&stranger, false)] {
        let typing = server
            .rooms
            .set_typing(room, who, Some(Duration::from_secs(9)));
        assert_eq!(typing.await.is_ok(), seen, "{who}");
        let receipt = RemoteReceipt {
            room_id: room.clone(),
            user_id: who.clone(),
            thread: Thread::Unthreaded,
            event_id: said.clone(),
            at: None,
        };
        let read = server
            .rooms
            .receive_receipts(who.server_name(), vec![receipt]);
        read.await.expect("the server works");
    }
    let num = server.handle(room).num;
    let receipts = |server: &Server| {
        let view = server.view();
        let rows = view.scan::<Receipts>(Scan::prefix(&num));
        let rows = rows.map(|row| row.expect("it can be read").1.event_id);
        rows.collect::<Vec<String>>()
    };
    assert_eq!(receipts(&server), [said.as_str()]);
    // What is from before the join is not here, and what is here comes after it.
    let unknown = ["$one:there.org", "$two:there.org"].map(event);
    for (who, event_id) in [
        ("user1", &unknown[0]),
        ("user2", &unknown[0]),
        ("user2", &unknown[1]),
    ] {
        let receipt = RemoteReceipt {
            room_id: room.clone(),
            user_id: user(&format!("@{who}:there.org")),
            thread: Thread::Unthreaded,
            event_id: event_id.clone(),
            at: None,
        };
        let read = server
            .rooms
            .receive_receipts(member.server_name(), vec![receipt]);
        read.await.expect("the server works");
    }
    let mut shown = receipts(&server);
    shown.sort_unstable();
    let mut expected = [said.as_str(), "$two:there.org"];
    expected.sort_unstable();
    assert_eq!(shown, expected);
}

#[tokio::test]
async fn whoever_left_before_the_members_came_enters_again() {
    let (server, far) = partial(3).await;
    let room = far.room.clone();
    let left = server.rooms.leave(&room, &user(ALICE), None).await;
    left.expect("Alice leaves");
    let mut far = Arc::into_inner(far).expect("nobody else has it");
    let leave = server.state(&room, "m.room.member", ALICE);
    far.note(&leave.expect("she left").pdu);
    // The answer lacks the leave, to which the join refers.
    let join = join(&server, &far, ALICE);
    let answer = far.answer(&join, true);
    let far = Arc::new(far);
    let fetch = Arc::clone(&far) as Arc<dyn Fetch>;
    let entered = server.rooms.enter(fetch, answer).await;
    entered.expect("the answer is good");
    assert_eq!(server.membership(&room, ALICE), "join");
    assert_eq!(server.completeness(&room), Completeness::Partial);
    let there = owned_server_name!("there.org");
    let completed = server.rooms.complete(&*far, &room, &there).await;
    completed.expect("the answer is good");
    assert_eq!(server.head(&room).joined, 5);
}

#[tokio::test]
async fn a_server_that_lets_in_whom_the_room_bans_is_not_followed() {
    let server = Server::new().await;
    let mut far = Far::new(RoomVersion::V11, 1);
    let ban = json!({ "membership": "ban" });
    far.send(DORA, "m.room.member", Some(ALICE), ban);
    let join = join(&server, &far, ALICE);
    let answer = far.answer(&join, false);
    let entered = server.rooms.enter(Arc::new(far), answer).await;
    assert!(
        matches!(entered, Err(EnterError::Refused(_))),
        "{entered:?}"
    );
}
