//! Events and joins of another server, which is played by a key, a few builders and a [`Fetch`] in memory.

mod backfill;
mod branches;
mod forms;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use myelin_data::{
    inbox::{AwaitedReceipts, Inbox},
    rooms::{AwaitedTargets, EventStatus, Gaps, Receipts},
    servers::RoomServers,
};
use myelin_rooms::{
    AppendError, Options, Preset, SendError, SendMessage, Thread,
    remote::{
        AcceptJoin, AcceptJoinError, AcceptedJoin, AskPolicy, DeliverError, Fetch, FetchError,
        Fetching, InboxLimits, Load, MakeJoin, MakeJoinError, MissingEvents, NotSigned, NotTaken,
        Outcome, RemoteReceipt, ServeError, StateEvents, StateIds, WantedKey,
    },
};
use myelin_rules::{
    EventBuilder, EventRef, Pdu, RoomVersion, Signer, SigningKey,
    auth::auth_types,
    sign::{VerifyKey, VerifyKeys},
};
use myelin_store::Scan;
use myelin_types::{Millis, Pos};
use parking_lot::Mutex;
use ruma::{EventId, OwnedEventId, OwnedRoomId, RoomId, ServerName, UserId, owned_server_name};
use serde_json::{Value, json, value::RawValue};
use tokio_util::sync::CancellationToken;

use crate::support::{ALICE, BOB, Server, moderate, object, state, user};

const DORA: &str = "@dora:there.org";
const EVE: &str = "@eve:there.org";

/// Other servers: what they would answer.
#[derive(Default)]
pub(crate) struct Elsewhere {
    events: Mutex<HashMap<String, Pdu>>,
    /// What `get_missing_events` may give.
    missing: Mutex<Vec<Pdu>>,
    /// How much of that it gives at once, whatever is asked for; 0 for no such limit.
    most: AtomicUsize,
    /// What `backfill` may give.
    history: Mutex<Vec<Pdu>>,
    /// What `state_ids` answers, for any event.
    state: Mutex<Option<Vec<Pdu>>>,
    asked: Mutex<Vec<String>>,
    /// The servers that cannot be reached.
    down: Mutex<Vec<String>>,
    /// Whether they never answer.
    stuck: AtomicBool,
}

impl Elsewhere {
    fn reach(&self, server: &ServerName) -> Result<(), FetchError> {
        if self.down.lock().iter().any(|down| down == server.as_str()) {
            return Err(FetchError::Unreachable("it is down".to_owned()));
        }
        Ok(())
    }
}

fn refuse<T>() -> Result<T, FetchError> {
    Err(FetchError::Refused {
        status: 404,
        errcode: "M_NOT_FOUND".to_owned(),
    })
}

fn raw(pdu: &Pdu) -> Box<RawValue> {
    RawValue::from_string(pdu.json().to_owned()).expect("events are JSON")
}

fn id(pdu: &Pdu) -> OwnedEventId {
    OwnedEventId::try_from(pdu.event_id()).expect("events have ids")
}

impl Fetch for Elsewhere {
    fn missing_events<'a>(
        &'a self,
        server: &'a ServerName,
        _: &'a RoomId,
        request: &'a MissingEvents,
    ) -> Fetching<'a, Result<Vec<Box<RawValue>>, FetchError>> {
        Box::pin(async move {
            self.reach(server)?;
            self.asked.lock().push("missing_events".to_owned());
            if self.stuck.load(Ordering::SeqCst) {
                std::future::pending::<()>().await;
            }
            let missing = self.missing.lock();
            let mut wanted: Vec<String> = request.latest.iter().map(ToString::to_string).collect();
            let mut found: Vec<Pdu> = Vec::new();
            let limit = match self.most.load(Ordering::SeqCst) {
                0 => request.limit as usize,
                most => most,
            };
            for _ in 0..limit {
                let cited: Vec<String> = self
                    .events
                    .lock()
                    .values()
                    .filter(|event| wanted.iter().any(|id| id == event.event_id()))
                    .flat_map(|event| event.prev_events().map(str::to_owned).collect::<Vec<_>>())
                    .collect();
                wanted = cited;
                let next = missing
                    .iter()
                    .filter(|event| wanted.iter().any(|id| id == event.event_id()));
                found.extend(next.cloned());
            }
            Ok(found.iter().map(raw).collect())
        })
    }

    fn backfill<'a>(
        &'a self,
        _: &'a ServerName,
        _: &'a RoomId,
        from: &'a [OwnedEventId],
        limit: usize,
    ) -> Fetching<'a, Result<Vec<Box<RawValue>>, FetchError>> {
        Box::pin(async move {
            self.asked.lock().push("backfill".to_owned());
            let history = self.history.lock();
            let mut wanted: Vec<String> = from.iter().map(ToString::to_string).collect();
            let mut found = Vec::new();
            while let Some(id) = wanted.pop() {
                let event = history.iter().find(|event| event.event_id() == id);
                if let Some(event) = event.filter(|_| found.len() < limit) {
                    found.push(raw(event));
                    wanted.extend(event.prev_events().map(str::to_owned));
                }
            }
            Ok(found)
        })
    }

    fn event<'a>(
        &'a self,
        server: &'a ServerName,
        event_id: &'a EventId,
    ) -> Fetching<'a, Result<Box<RawValue>, FetchError>> {
        Box::pin(async move {
            self.reach(server)?;
            self.asked.lock().push("event".to_owned());
            match self.events.lock().get(event_id.as_str()) {
                Some(event) => Ok(raw(event)),
                None => refuse(),
            }
        })
    }

    fn state_ids<'a>(
        &'a self,
        server: &'a ServerName,
        _: &'a RoomId,
        _: &'a EventId,
    ) -> Fetching<'a, Result<StateIds, FetchError>> {
        Box::pin(async move {
            self.reach(server)?;
            self.asked.lock().push("state_ids".to_owned());
            match &*self.state.lock() {
                Some(state) => Ok(StateIds {
                    state: state.iter().map(id).collect(),
                    auth_chain: Vec::new(),
                }),
                None => refuse(),
            }
        })
    }

    fn state<'a>(
        &'a self,
        _: &'a ServerName,
        _: &'a RoomId,
        _: &'a EventId,
    ) -> Fetching<'a, Result<StateEvents, FetchError>> {
        Box::pin(async move { refuse() })
    }

    fn keys<'a>(&'a self, wanted: &'a [WantedKey]) -> Fetching<'a, VerifyKeys> {
        Box::pin(async move {
            let mut keys = VerifyKeys::new();
            for wanted in wanted {
                let played = ["there.org", "away.org"].contains(&wanted.server.as_str());
                if played && wanted.key_id == "ed25519:b_test" {
                    let key = VerifyKey {
                        key: signing_key().public_key_bytes(),
                        valid_until: None,
                        expired: None,
                    };
                    let of_server = keys.entry(wanted.server.to_string()).or_default();
                    of_server.insert(wanted.key_id.clone(), key);
                }
            }
            keys
        })
    }
}

fn signing_key() -> SigningKey {
    SigningKey::from_seed("b_test", [9; 32])
}

/// A room in which the other server is.
struct Shared {
    server: Server,
    room: OwnedRoomId,
    version: RoomVersion,
    signer: Signer,
    elsewhere: Arc<Elsewhere>,
    /// The state as the other server has it.
    state: BTreeMap<(String, String), Pdu>,
    join: Pdu,
}

fn make_join(room: &RoomId, who: &str) -> MakeJoin {
    MakeJoin {
        room_id: room.to_owned(),
        user: user(who),
        origin: owned_server_name!("there.org"),
        versions: RoomVersion::ALL.iter().map(ToString::to_string).collect(),
    }
}

fn accept_join(room: &RoomId, pdu: &Pdu) -> AcceptJoin {
    AcceptJoin {
        room_id: room.to_owned(),
        event_id: id(pdu),
        pdu: raw(pdu),
        origin: owned_server_name!("there.org"),
        omit_members: false,
    }
}

/// Makes an event of a template and signs it, as a joining server does.
fn fill_in(template: &Value, version: RoomVersion, known: &HashMap<String, Pdu>) -> Pdu {
    let signer = Signer::new("there.org", signing_key());
    let references = |key: &str| {
        let list = template[key].as_array().cloned().unwrap_or_default();
        list.iter()
            .map(|reference| {
                let id = reference.as_str().or_else(|| reference[0].as_str());
                let id = id.expect("references have ids");
                known
                    .get(id)
                    .map_or_else(|| EventRef::id(id), EventRef::from)
            })
            .collect()
    };
    let text = |key: &str| {
        template[key]
            .as_str()
            .expect("templates are whole")
            .to_owned()
    };
    EventBuilder {
        room_id: Some(text("room_id")),
        sender: text("sender"),
        event_type: text("type"),
        state_key: Some(text("state_key")),
        content: object(template["content"].clone()),
        redacts: None,
        prev_events: references("prev_events"),
        auth_events: references("auth_events"),
        depth: template["depth"].as_i64().expect("templates have depths"),
        origin_server_ts: Millis(1_700_000_000_001),
    }
    .sign(version, &signer)
    .expect("the template is well-formed")
}

impl Server {
    fn known(&self, room: &RoomId) -> HashMap<String, Pdu> {
        self.timeline(room)
            .into_iter()
            .map(|(_, _, event)| (event.header.event_id.clone(), event.pdu.clone()))
            .collect()
    }

    async fn join_from_there(
        &self,
        room: &RoomId,
        who: &str,
        elsewhere: &Arc<Elsewhere>,
    ) -> Result<(Pdu, AcceptedJoin), AcceptJoinError> {
        let template = self
            .rooms
            .make_join(make_join(room, who))
            .await
            .expect("there is a template");
        let event = Value::Object(template.event);
        let pdu = fill_in(&event, template.room_version, &self.known(room));
        let accepted = self
            .rooms
            .accept_join(
                Arc::clone(elsewhere) as Arc<dyn Fetch>,
                accept_join(room, &pdu),
            )
            .await?;
        Ok((pdu, accepted))
    }
}

impl Shared {
    async fn new(version: RoomVersion) -> Shared {
        Shared::on(Server::new().await, version).await
    }

    async fn on(server: Server, version: RoomVersion) -> Shared {
        let room = server.room(Preset::PublicChat, version).await;
        let elsewhere = Arc::new(Elsewhere::default());
        let (join, accepted) = server
            .join_from_there(&room, DORA, &elsewhere)
            .await
            .expect("the room is public");
        let mut shared = Shared {
            server,
            room,
            version,
            signer: Signer::new("there.org", signing_key()),
            elsewhere,
            state: BTreeMap::new(),
            join: join.clone(),
        };
        for event in &accepted.state {
            shared.note(&event.pdu);
        }
        shared.note(&join);
        shared
    }

    /// Makes an event part of what the other server knows.
    fn note(&mut self, pdu: &Pdu) {
        if let Some(state_key) = pdu.state_key() {
            let key = (pdu.event_type().to_owned(), state_key.to_owned());
            self.state.insert(key, pdu.clone());
        }
        let mut events = self.elsewhere.events.lock();
        events.insert(pdu.event_id().to_owned(), pdu.clone());
    }

    fn build(
        &self,
        sender: &str,
        kind: &str,
        state_key: Option<&str>,
        content: Value,
        prev: &[&Pdu],
    ) -> EventBuilder {
        let content = object(content);
        let auth = auth_types(self.version, kind, sender, state_key, &content);
        let auth = auth
            .iter()
            .filter_map(|(kind, key)| self.state.get(&((*kind).to_owned(), key.clone())));
        EventBuilder {
            room_id: Some(self.room.to_string()),
            sender: sender.to_owned(),
            event_type: kind.to_owned(),
            state_key: state_key.map(str::to_owned),
            content,
            redacts: None,
            prev_events: prev.iter().map(|event| EventRef::from(*event)).collect(),
            auth_events: auth.map(EventRef::from).collect(),
            depth: prev.iter().map(|event| event.depth()).max().unwrap_or(0) + 1,
            origin_server_ts: Millis(1_700_000_001_000),
        }
    }

    fn state_event(
        &mut self,
        sender: &str,
        kind: &str,
        key: &str,
        content: Value,
        prev: &[&Pdu],
    ) -> Pdu {
        let pdu = self
            .build(sender, kind, Some(key), content, prev)
            .sign(self.version, &self.signer)
            .expect("a small event");
        self.note(&pdu);
        pdu
    }

    fn text(&mut self, body: &str, prev: &[&Pdu]) -> Pdu {
        let content = json!({"msgtype": "m.text", "body": body});
        let pdu = self
            .build(DORA, "m.room.message", None, content, prev)
            .sign(self.version, &self.signer)
            .expect("a small event");
        self.note(&pdu);
        pdu
    }

    fn redaction(&mut self, sender: &str, target: &str, prev: &[&Pdu]) -> Pdu {
        let mut redaction = self.build(sender, "m.room.redaction", None, json!({}), prev);
        redaction.redacts = Some(target.to_owned());
        let redaction = redaction
            .sign(self.version, &self.signer)
            .expect("a small event");
        self.note(&redaction);
        redaction
    }

    /// A new profile of Dora that is known as a part of the state before a message only, and that message.
    async fn with_outlier(&mut self) -> (Pdu, Pdu) {
        let join = self.join.clone();
        let profile = json!({"membership": "join", "displayname": "Dora"});
        let profile = self.state_event(DORA, "m.room.member", DORA, profile, &[&join]);
        let text = self.text("See my name", &[&profile]);
        let state = self.state.values().cloned().collect();
        *self.elsewhere.state.lock() = Some(state);
        *self.elsewhere.missing.lock() = vec![text.clone()];
        let after = self.text("Well?", &[&text]);
        self.accept(&after).await;
        (profile, text)
    }

    /// So many messages, one after the other.
    fn chain(&mut self, count: usize, from: &Pdu) -> Vec<Pdu> {
        let mut chain: Vec<Pdu> = Vec::new();
        for index in 0..count {
            let before = chain.last().unwrap_or(from).clone();
            chain.push(self.text(&format!("Text {index}"), &[&before]));
        }
        chain
    }

    /// Sends events, and says what became of each.
    async fn send(&self, pdus: Vec<Box<RawValue>>) -> Vec<Result<Outcome, NotTaken>> {
        let origin = owned_server_name!("there.org");
        let delivered = self.server.rooms.deliver(&origin, pdus).await;
        let delivered = delivered.expect("there is room in the inbox");
        let outcomes = self.work().await;
        let outcome = |id: Option<OwnedEventId>| {
            let id = id.expect("what is taken has an id");
            match outcomes.get(id.as_str()) {
                Some(outcome) => outcome.clone(),
                None => self.stands(id.as_str()).expect("it stands already"),
            }
        };
        delivered
            .into_iter()
            .map(|event| event.result.map(|()| outcome(event.event_id)))
            .collect()
    }

    /// Works on the inbox as long as something is due, and says what became of each event.
    async fn work(&self) -> HashMap<String, Outcome> {
        let mut outcomes = HashMap::new();
        let stop = CancellationToken::new();
        while let Some(mut work) = self.server.rooms.claim_inbox().await.expect("reads") {
            loop {
                let judged = work.step(&*self.elsewhere, &stop).await.expect("no faults");
                if judged.is_empty() {
                    break;
                }
                outcomes.extend(
                    judged
                        .into_iter()
                        .map(|event| (event.event_id, event.outcome)),
                );
            }
        }
        outcomes
    }

    /// What became of an event that is stored.
    fn stands(&self, event_id: &str) -> Option<Outcome> {
        Some(match self.stored(event_id)?.header.status {
            EventStatus::Accepted => Outcome::Accepted,
            EventStatus::SoftFailed => Outcome::SoftFailed,
            EventStatus::Rejected => Outcome::Rejected,
            EventStatus::Outlier => return None,
        })
    }

    /// How many events wait in the inbox.
    async fn waiting(&self) -> usize {
        let load = self.server.rooms.inbox_load().await;
        load.expect("the store reads").events
    }

    async fn deliver(&self, pdu: &Pdu) -> Result<Outcome, NotTaken> {
        let mut sent = self.send(vec![raw(pdu)]).await;
        assert_eq!(sent.len(), 1);
        sent.remove(0)
    }

    async fn accept(&self, pdu: &Pdu) {
        let outcome = self.deliver(pdu).await.expect("the event is stored");
        assert_eq!(outcome, Outcome::Accepted);
    }

    fn shown(&self) -> Vec<String> {
        self.server
            .timeline(&self.room)
            .into_iter()
            .map(|(_, _, event)| event.header.event_id.clone())
            .collect()
    }

    fn extremities(&self) -> Vec<String> {
        let head = self.server.head(&self.room);
        head.extremities.into_iter().map(|(_, id)| id).collect()
    }

    fn stored(&self, event_id: &str) -> Option<Arc<myelin_rooms::Event>> {
        let view = self.server.view();
        let num = self.server.handle(&self.room).num;
        let event_id = <&EventId>::try_from(event_id).expect("an event id");
        let event = self
            .server
            .rooms
            .event_num(&view, num, event_id)
            .expect("events can be read")?;
        self.server
            .rooms
            .event(&view, num, event)
            .expect("events can be read")
    }

    async fn say_here(&self, text: &str) -> Pdu {
        let event_id = self.server.say(&self.room, ALICE, text).await;
        let event = self.stored(event_id.as_str()).expect("just sent");
        event.pdu.clone()
    }
}

fn prev(pdu: &Pdu) -> Vec<String> {
    let mut prev: Vec<String> = pdu.prev_events().map(str::to_owned).collect();
    prev.sort_unstable();
    prev
}

fn ids(pdus: &[&Pdu]) -> Vec<String> {
    let mut ids: Vec<String> = pdus.iter().map(|pdu| pdu.event_id().to_owned()).collect();
    ids.sort_unstable();
    ids
}

#[tokio::test]
async fn a_user_from_elsewhere_joins_and_speaks_in_every_version() {
    for version in RoomVersion::ALL {
        let mut shared = Shared::new(version).await;
        let server = &shared.server;
        assert_eq!(server.membership(&shared.room, DORA), "join");
        assert_eq!(server.head(&shared.room).joined, 2);
        server.check_chain(&shared.room);
        let join = shared.join.clone();
        let text = shared.text("Hello", &[&join]);
        shared.accept(&text).await;
        shared.accept(&text).await;
        shared.server.check_chain(&shared.room);
        let answer = shared.say_here("Hello yourself").await;
        assert_eq!(prev(&answer), [text.event_id()], "{version}");
        shared.server.check_chain(&shared.room);
    }
}

#[tokio::test]
async fn a_server_is_in_the_room_from_its_first_user_to_its_last() {
    let mut shared = Shared::new(RoomVersion::V11).await;
    let join = shared.join.clone();
    let spoken = shared.text("Hello", &[&join]);
    shared.accept(&spoken).await;
    let (server, room) = (&shared.server, &shared.room);
    let row = || {
        let key = (server.handle(room).num, "there.org".to_owned());
        server.view().get::<RoomServers>(&key).expect("it is read")
    };
    let came = shared.stored(shared.join.event_id()).expect("stored").pos;
    let row_then = row().expect("it is there");
    assert_eq!(row_then.joined, 1);
    assert!(row_then.was_there(came) && !row_then.was_there(Pos(came.0 - 1)));
    let joined = server.join_from_there(room, EVE, &shared.elsewhere).await;
    joined.expect("the room is public");
    for who in [DORA, EVE] {
        assert!(row().is_some_and(|row| row.joined > 0));
        let kicked = server.rooms.kick(moderate(room, ALICE, who)).await;
        kicked.expect("she has the power");
    }
    let left = server.store.watermark();
    let bystander = shared.say_here("They are gone").await;
    // What the server sent in its own name goes out by us where it joined through us, and not where it spoke.
    let timeline = server.timeline(room);
    let goes_out = |id: &str| {
        let found = timeline.iter().find(|row| row.2.header.event_id == id);
        found.map(|(_, entry, _)| entry.traits.outgoing)
    };
    assert_eq!(goes_out(shared.join.event_id()), Some(true));
    assert_eq!(goes_out(spoken.event_id()), Some(false));
    assert_eq!(goes_out(bystander.event_id()), Some(true));
    let row = row().expect("it has not been told yet");
    assert_eq!((row.joined, row.stays.len()), (0, 1));
    assert!(row.was_there(left) && !row.was_there(Pos(left.0 + 1)));
    let view = server.view();
    let num = server.handle(room).num;
    let there = owned_server_name!("there.org");
    let rooms = server.rooms.rooms_of_server(&view, &there);
    assert_eq!(rooms.expect("rows are read"), [num]);
    let servers = server.rooms.servers_in_room(&view, num);
    assert_eq!(servers.expect("rows are read"), ["here.org"]);
}

#[tokio::test]
async fn the_answer_to_a_join_is_the_state_before_it_and_its_auth_chain() {
    let server = Server::new().await;
    let room = server.room(Preset::PublicChat, RoomVersion::V10).await;
    let before = server.head(&room).root();
    let elsewhere = Arc::new(Elsewhere::default());
    let (pdu, accepted) = server
        .join_from_there(&room, DORA, &elsewhere)
        .await
        .expect("the room is public");
    assert_eq!(accepted.event.header.before(), before);
    assert_eq!(accepted.servers, ["here.org"]);
    let types: Vec<&str> = accepted
        .state
        .iter()
        .map(|event| event.pdu.event_type())
        .collect();
    assert_eq!(
        types
            .iter()
            .filter(|kind| **kind == "m.room.member")
            .count(),
        1
    );
    assert!(types.contains(&"m.room.create"));
    let chain: Vec<&str> = accepted
        .auth_chain
        .iter()
        .map(|event| event.header.event_id.as_str())
        .collect();
    for auth in pdu.auth_events() {
        assert!(chain.contains(&auth));
    }
    let again = server
        .rooms
        .accept_join(elsewhere, accept_join(&room, &pdu))
        .await
        .expect("the same again");
    assert_eq!(again.event.num, accepted.event.num);
    assert_eq!(again.state.len(), accepted.state.len());
    assert_eq!(server.head(&room).joined, 2);
}

#[tokio::test]
async fn joins_are_refused_for_their_reasons() {
    let server = Server::new().await;
    let elsewhere = Arc::new(Elsewhere::default());
    let public = server.room(Preset::PublicChat, RoomVersion::V11).await;
    let private = server.room(Preset::PrivateChat, RoomVersion::V11).await;
    let unknown = <&RoomId>::try_from("!unknown:here.org").expect("a room id");
    let template = |request: MakeJoin| server.rooms.make_join(request);
    let error = template(make_join(unknown, DORA))
        .await
        .expect_err("unknown");
    assert!(matches!(error, MakeJoinError::RoomNotFound));
    let error = template(make_join(&private, DORA))
        .await
        .expect_err("closed");
    assert!(matches!(error, MakeJoinError::Forbidden(_)));
    let error = template(make_join(&public, "@a:elsewhere.org")).await;
    assert!(matches!(error, Err(MakeJoinError::Forbidden(_))));
    let mut old = make_join(&public, DORA);
    old.versions = vec!["1".to_owned()];
    let error = template(old).await.expect_err("too old");
    assert!(matches!(
        error,
        MakeJoinError::IncompatibleVersion(RoomVersion::V11)
    ));

    let known = server.known(&public);
    let whole = template(make_join(&public, DORA))
        .await
        .expect("public")
        .event;
    let mut changed = Vec::new();
    for (key, value) in [
        ("type", json!("m.room.name")),
        ("state_key", json!(EVE)),
        ("content", json!({"membership": "leave"})),
        ("sender", json!("@a:elsewhere.org")),
        ("prev_events", json!(["$nothing"])),
    ] {
        let mut event = Value::Object(whole.clone());
        event[key] = value;
        changed.push(fill_in(&event, RoomVersion::V11, &known));
    }
    for pdu in changed {
        let fetch = Arc::clone(&elsewhere) as Arc<dyn Fetch>;
        let refused = server
            .rooms
            .accept_join(fetch, accept_join(&public, &pdu))
            .await;
        assert!(
            matches!(refused, Err(AcceptJoinError::Malformed(_))),
            "{pdu:?}"
        );
    }
    let pdu = fill_in(&Value::Object(whole), RoomVersion::V11, &known);
    let mut forged = object(serde_json::from_str(pdu.json()).expect("JSON"));
    forged.insert(
        "signatures".to_owned(),
        json!({"there.org": {"ed25519:b_test": "AAAA"}}),
    );
    let mut request = accept_join(&public, &pdu);
    request.pdu = serde_json::value::to_raw_value(&forged).expect("JSON");
    let refused = server.rooms.accept_join(elsewhere, request).await;
    assert!(matches!(refused, Err(AcceptJoinError::Malformed(_))));
    assert_eq!(server.membership(&public, DORA), "none");
}

#[tokio::test]
async fn a_server_that_the_acl_denies_is_not_heard() {
    let mut shared = Shared::new(RoomVersion::V11).await;
    let join = shared.join.clone();
    let text = shared.text("Hello", &[&join]);
    let acl = json!({"allow": ["*"], "deny": ["there.*"]});
    let acl = state(&shared.room, ALICE, "m.room.server_acl", "", acl);
    shared.server.rooms.send_state(acl).await.expect("allowed");
    let denied = shared.deliver(&text).await;
    assert!(matches!(denied, Err(NotTaken::Denied)));
    let template = shared
        .server
        .rooms
        .make_join(make_join(&shared.room, EVE))
        .await;
    assert!(matches!(template, Err(MakeJoinError::Forbidden(_))));
}

#[tokio::test]
async fn members_of_an_allowed_room_are_vouched_for() {
    let shared = Shared::new(RoomVersion::V10).await;
    let server = &shared.server;
    let club = server.room(Preset::PrivateChat, RoomVersion::V10).await;
    let rule = |room: &str| {
        json!({
            "join_rule": "restricted",
            "allow": [{"type": "m.room_membership", "room_id": room}],
        })
    };
    let rules = |content| state(&club, ALICE, "m.room.join_rules", "", content);
    let far = rules(rule("!far:away.org"));
    server.rooms.send_state(far).await.expect("allowed");
    let error = server.rooms.make_join(make_join(&club, DORA)).await;
    assert!(matches!(error, Err(MakeJoinError::UnableToAuthorise)));

    let near = rules(rule(shared.room.as_str()));
    server.rooms.send_state(near).await.expect("allowed");
    let error = server.rooms.make_join(make_join(&club, EVE)).await;
    assert!(matches!(error, Err(MakeJoinError::Forbidden(_))));
    let (pdu, accepted) = server
        .join_from_there(&club, DORA, &shared.elsewhere)
        .await
        .expect("Dora is in the room that is allowed");
    assert_eq!(pdu.content()["join_authorised_via_users_server"], ALICE);
    let signed: Value = serde_json::from_str(accepted.event.pdu.json()).expect("JSON");
    assert!(signed["signatures"]["here.org"]["ed25519:a_test"].is_string());
    assert!(signed["signatures"]["there.org"].is_object());
    assert_eq!(server.membership(&club, DORA), "join");
}

#[tokio::test]
async fn branches_meet_in_the_next_event_of_ours() {
    let mut shared = Shared::new(RoomVersion::V11).await;
    let join = shared.join.clone();
    let here = shared.say_here("Here").await;
    let there = shared.text("There", &[&join]);
    shared.accept(&there).await;
    let mut tips = shared.extremities();
    tips.sort_unstable();
    assert_eq!(tips, ids(&[&here, &there]));
    let both = shared.say_here("Both").await;
    assert_eq!(prev(&both), ids(&[&here, &there]));
    assert_eq!(both.depth(), here.depth().max(there.depth()) + 1);
    assert_eq!(shared.extremities(), [both.event_id()]);
    let order = shared.shown();
    assert!(order.ends_with(&[&here, &there, &both].map(|pdu| pdu.event_id().to_owned())));
}

#[tokio::test]
async fn states_of_branches_are_resolved() {
    for version in [RoomVersion::V1, RoomVersion::V6, RoomVersion::V12] {
        let mut shared = Shared::new(version).await;
        let levels = shared.state[&("m.room.power_levels".to_owned(), String::new())].clone();
        let mut content = Value::Object(levels.content().clone());
        content["users"][DORA] = 50.into();
        let levels = state(&shared.room, ALICE, "m.room.power_levels", "", content);
        let levels = shared
            .server
            .rooms
            .send_state(levels)
            .await
            .expect("allowed");
        let levels = shared
            .stored(levels.as_str())
            .expect("just sent")
            .pdu
            .clone();
        shared.note(&levels);

        let name = state(
            &shared.room,
            ALICE,
            "m.room.name",
            "",
            json!({"name": "Here"}),
        );
        shared.server.rooms.send_state(name).await.expect("allowed");
        shared.server.join(&shared.room, BOB).await;
        let topic = json!({"topic": "There"});
        let topic = shared.state_event(DORA, "m.room.topic", "", topic, &[&levels]);
        shared.accept(&topic).await;
        let server = &shared.server;
        assert_eq!(
            server.content(&shared.room, "m.room.name", "")["name"],
            "Here"
        );
        assert_eq!(
            server.content(&shared.room, "m.room.topic", "")["topic"],
            "There"
        );
        assert_eq!(server.membership(&shared.room, BOB), "join");
        assert_eq!(server.head(&shared.room).joined, 3);

        // Both set the same entry now, in branches of which neither knows the other.
        let before = shared.extremities();
        let before: Vec<Pdu> = before
            .iter()
            .map(|id| shared.stored(id).expect("an extremity").pdu.clone())
            .collect();
        let name = state(
            &shared.room,
            ALICE,
            "m.room.name",
            "",
            json!({"name": "Mine"}),
        );
        shared.server.rooms.send_state(name).await.expect("allowed");
        let before: Vec<&Pdu> = before.iter().collect();
        let name = shared.state_event(DORA, "m.room.name", "", json!({"name": "Yours"}), &before);
        shared.accept(&name).await;
        let content = shared.server.content(&shared.room, "m.room.name", "");
        let resolved = content["name"].as_str().expect("a name");
        assert!(["Mine", "Yours"].contains(&resolved));
        let last = shared.say_here("After").await;
        assert_eq!(prev(&last).len(), 2);
        let last = shared.stored(last.event_id()).expect("just sent");
        assert_eq!(last.header.after(), shared.server.head(&shared.room).root());

        let (room, content) = (shared.room.clone(), content.clone());
        let server = shared.server.restart().await;
        assert_eq!(server.content(&room, "m.room.name", ""), content);
        server.say(&room, ALICE, "after the restart").await;
    }
}

#[tokio::test]
async fn a_ban_wins_over_what_the_banned_did_beside_it() {
    let mut shared = Shared::new(RoomVersion::V11).await;
    let join = shared.join.clone();
    let ban = moderate(&shared.room, ALICE, DORA);
    shared.server.rooms.ban(ban).await.expect("allowed");
    let shown = shared.shown();
    let tips = shared.extremities();
    let text = shared.text("I was not banned yet", &[&join]);
    let outcome = shared.deliver(&text).await.expect("stored");
    assert_eq!(outcome, Outcome::SoftFailed);
    assert_eq!(shared.deliver(&text).await.expect("stored"), outcome);
    assert_eq!(shared.shown(), shown, "it is not shown");
    assert_eq!(shared.extremities(), tips, "nothing of ours refers to it");
    let stored = shared.stored(text.event_id()).expect("it is stored");
    assert_eq!(stored.header.status, EventStatus::SoftFailed);
    // A new profile is a join again, and does not undo the ban either.
    let again = json!({"membership": "join", "displayname": "Dora"});
    let again = shared.state_event(DORA, "m.room.member", DORA, again, &[&text]);
    assert_eq!(
        shared.deliver(&again).await.expect("stored"),
        Outcome::SoftFailed
    );
    assert_eq!(shared.server.membership(&shared.room, DORA), "ban");
    shared.server.check_chain(&shared.room);
}

#[tokio::test]
async fn missing_predecessors_are_fetched_and_stand_in_order() {
    let mut shared = Shared::new(RoomVersion::V11).await;
    let join = shared.join.clone();
    let chain = shared.chain(50, &join);
    *shared.elsewhere.missing.lock() = chain[..49].to_vec();
    let before = shared.shown().len();
    shared.accept(&chain[49]).await;
    let expected: Vec<String> = chain.iter().map(|pdu| pdu.event_id().to_owned()).collect();
    assert_eq!(shared.shown()[before..], expected);
    shared.server.check_chain(&shared.room);
    let asked = shared.elsewhere.asked.lock().clone();
    assert_eq!(asked, ["missing_events"; 3]);
}

#[tokio::test]
async fn what_cannot_be_fetched_leaves_a_gap() {
    let mut shared = Shared::new(RoomVersion::V11).await;
    let join = shared.join.clone();
    let here = shared.say_here("Here").await;
    let chain = shared.chain(12, &join);
    *shared.elsewhere.missing.lock() = chain[6..11].to_vec();

    let refused = shared.deliver(&chain[11]).await;
    assert!(matches!(refused, Ok(Outcome::Dropped(_))));
    assert!(shared.stored(chain[11].event_id()).is_none());

    let state = shared.state.values().cloned().collect();
    *shared.elsewhere.state.lock() = Some(state);
    let before = shared.shown();
    shared.accept(&chain[11]).await;
    let timeline = shared.server.timeline(&shared.room);
    let after_gap: Vec<String> = timeline
        .iter()
        .filter(|(place, ..)| place.segment == 2)
        .map(|(_, _, event)| event.header.event_id.clone())
        .collect();
    let expected: Vec<String> = chain[6..]
        .iter()
        .map(|pdu| pdu.event_id().to_owned())
        .collect();
    assert_eq!(after_gap, expected);
    assert_eq!(timeline.len(), before.len() + 6);
    let gaps = |shared: &Shared| {
        let view = shared.server.view();
        let num = shared.server.handle(&shared.room).num;
        view.scan::<Gaps>(Scan::prefix(&num))
            .map(|row| row.expect("gaps can be read").1.missing)
            .collect::<Vec<_>>()
    };
    assert_eq!(gaps(&shared), [vec![chain[5].event_id().to_owned()]]);
    let mut tips = shared.extremities();
    tips.sort_unstable();
    assert_eq!(tips, ids(&[&here, &chain[11]]));
    let root = shared.server.head(&shared.room).root();

    // What was missing arrives, and goes where it belongs.
    *shared.elsewhere.missing.lock() = vec![chain[4].clone()];
    shared.accept(&chain[5]).await;
    assert_eq!(gaps(&shared), [vec![chain[3].event_id().to_owned()]]);
    *shared.elsewhere.missing.lock() = chain[..3].to_vec();
    shared.accept(&chain[3]).await;
    assert!(gaps(&shared).is_empty());
    assert_eq!(shared.server.head(&shared.room).root(), root);
    let filled = shared.shown();
    let expected: Vec<String> = chain.iter().map(|pdu| pdu.event_id().to_owned()).collect();
    assert_eq!(filled[before.len()..], expected);
    // What was filled in notifies nobody: it is not in the totals, neither before nor after it.
    let mut notifying = 0;
    for (place, entry, _) in shared.server.timeline(&shared.room) {
        notifying += u64::from(entry.traits.notifies && !place.is_filled_in());
        assert_eq!(entry.notifying, notifying, "{place:?}");
    }
    let both = shared.say_here("Both").await;
    assert_eq!(prev(&both), ids(&[&here, &chain[11]]));
}

#[tokio::test]
async fn bad_signatures_are_dropped_and_bad_hashes_redacted() {
    let mut shared = Shared::new(RoomVersion::V11).await;
    let join = shared.join.clone();
    let text = shared.text("Hello", &[&join]);
    let change = |key: &str, value: Value| {
        let mut event = object(serde_json::from_str(text.json()).expect("JSON"));
        event.insert(key.to_owned(), value);
        serde_json::value::to_raw_value(&event).expect("JSON")
    };
    let forged = change("depth", json!(100));
    let received = shared.send(vec![forged]).await;
    assert!(matches!(received[0], Ok(Outcome::Dropped(_))));
    let nonsense = change("prev_events", json!("none"));
    let received = shared.send(vec![nonsense]).await;
    assert!(matches!(received[0], Err(NotTaken::Malformed(_))));
    let changed = change("content", json!({"msgtype": "m.text", "body": "Other"}));
    let received = shared.send(vec![changed]).await;
    assert_eq!(received[0], Ok(Outcome::Accepted));
    let stored = shared.stored(text.event_id()).expect("stored");
    assert!(stored.pdu.content().is_empty());
    shared.server.check_chain(&shared.room);
}

#[tokio::test]
async fn what_the_rules_refuse_is_rejected() {
    let mut shared = Shared::new(RoomVersion::V11).await;
    let join = shared.join.clone();
    let shown = shared.shown();
    let name = shared.state_event(DORA, "m.room.name", "", json!({"name": "Mine"}), &[&join]);
    for _ in 0..2 {
        let outcome = shared.deliver(&name).await.expect("stored");
        assert_eq!(outcome, Outcome::Rejected);
    }
    assert_eq!(shared.shown(), shown);
    assert_eq!(shared.extremities(), [join.event_id()]);
    let expected = Value::Null;
    assert_eq!(
        shared.server.content(&shared.room, "m.room.name", ""),
        expected
    );
    // What follows upon it stands, and takes the place of what came before it.
    let text = shared.text("Never mind", &[&name]);
    shared.accept(&text).await;
    assert_eq!(shared.extremities(), [text.event_id()]);
}

#[tokio::test]
async fn a_redaction_from_elsewhere_prunes() {
    let mut shared = Shared::new(RoomVersion::V11).await;
    let join = shared.join.clone();
    let text = shared.text("Oops", &[&join]);
    shared.accept(&text).await;
    let here = shared.say_here("Mine").await;
    for (target, pruned) in [(&text, true), (&here, false)] {
        let mut redaction = shared.build(DORA, "m.room.redaction", None, json!({}), &[&here]);
        redaction.redacts = Some(target.event_id().to_owned());
        let redaction = redaction
            .sign(shared.version, &shared.signer)
            .expect("small");
        shared.note(&redaction);
        shared.accept(&redaction).await;
        let stored = shared.stored(target.event_id()).expect("stored");
        assert_eq!(stored.pdu.content().is_empty(), pruned);
    }
}

#[tokio::test]
async fn a_redaction_waits_for_its_target() {
    let mut shared = Shared::new(RoomVersion::V11).await;
    let join = shared.join.clone();
    let text = shared.text("Oops", &[&join]);
    let here = shared.say_here("Fine").await;
    let mut redaction = shared.build(DORA, "m.room.redaction", None, json!({}), &[&join]);
    redaction.redacts = Some(text.event_id().to_owned());
    let redaction = redaction
        .sign(shared.version, &shared.signer)
        .expect("small");
    shared.accept(&redaction).await;
    shared.accept(&text).await;
    let stored = shared.stored(text.event_id()).expect("stored");
    assert!(stored.pdu.content().is_empty());
    let stored = shared.stored(here.event_id()).expect("stored");
    assert!(!stored.pdu.content().is_empty());
}

#[tokio::test]
async fn a_redaction_that_may_not_prune_hides_none_that_may() {
    // The redactions come before the target, or in the same transaction.
    for apart in [true, false] {
        let mut shared = Shared::new(RoomVersion::V11).await;
        let join = shared.join.clone();
        // Who is of another server than the sender, and has no power.
        let there = std::mem::replace(&mut shared.signer, Signer::new("away.org", signing_key()));
        let mallory = "@mallory:away.org";
        let joins = json!({"membership": "join"});
        let joined = shared.state_event(mallory, "m.room.member", mallory, joins, &[&join]);
        shared.accept(&joined).await;
        let away = std::mem::replace(&mut shared.signer, there);
        let text = shared.text("Oops", &[&joined]);
        let good = shared.redaction(DORA, text.event_id(), &[&joined]);
        shared.signer = away;
        let first = shared.redaction(mallory, text.event_id(), &[&joined]);
        let last = shared.redaction(mallory, text.event_id(), &[&good]);
        let order = [&first, &good, &last, &text];
        if apart {
            for pdu in order {
                shared.accept(pdu).await;
            }
        } else {
            for received in shared.send(order.map(raw).into()).await {
                let outcome = received.expect("stored");
                assert_eq!(outcome, Outcome::Accepted);
            }
        }
        let good = shared.stored(good.event_id()).expect("stored");
        let stored = shared.stored(text.event_id()).expect("stored");
        assert_eq!(stored.header.redacted_by, Some(good.num));
        assert!(stored.pdu.content().is_empty());
        let view = shared.server.view();
        assert_eq!(view.scan::<AwaitedTargets>(Scan::all()).count(), 0);
    }
}

#[tokio::test]
async fn a_redaction_of_what_is_no_event_spoils_nothing() {
    for version in [RoomVersion::V10, RoomVersion::V11] {
        let mut shared = Shared::new(version).await;
        let join = shared.join.clone();
        let text = shared.text("Hello", &[&join]);
        let mut pdus = vec![text.clone()];
        for target in [format!("${}", "a".repeat(7_000)), "nonsense".to_owned()] {
            let last = pdus[pdus.len() - 1].clone();
            pdus.push(shared.redaction(DORA, &target, &[&last]));
        }
        let received = shared.send(pdus.iter().map(raw).collect()).await;
        for received in received {
            let outcome = received.expect("the batch can be committed");
            assert_eq!(outcome, Outcome::Accepted, "{version}");
        }
        let shown = ids(&pdus.iter().collect::<Vec<_>>());
        assert!(shown.iter().all(|id| shared.shown().contains(id)));
        let stored = shared.stored(text.event_id()).expect("stored");
        assert!(!stored.pdu.content().is_empty());
        // The room goes on.
        shared.say_here("Well").await;
        shared.server.check_chain(&shared.room);
    }
}

#[tokio::test]
async fn an_outlier_that_is_judged_later_is_part_of_the_room() {
    let mut shared = Shared::new(RoomVersion::V11).await;
    let (profile, _) = shared.with_outlier().await;
    let outlier = shared.stored(profile.event_id()).expect("stored");
    assert_eq!(outlier.header.status, EventStatus::Outlier);
    assert!(!shared.shown().contains(&profile.event_id().to_owned()));

    shared.accept(&profile).await;
    let judged = shared.stored(profile.event_id()).expect("stored");
    assert_eq!(judged.num, outlier.num);
    assert_eq!(judged.header.status, EventStatus::Accepted);
    assert!(judged.header.place.is_some());
    assert_eq!(judged.pdu.content()["displayname"], "Dora");
    assert!(shared.shown().contains(&profile.event_id().to_owned()));
    // Writers, who see the same, may build upon it.
    let text = shared.text("After my new name", &[&profile]);
    shared.accept(&text).await;
    shared.say_here("Hello Dora").await;
}

#[tokio::test]
async fn a_redacted_outlier_stays_redacted() {
    // The outlier is redacted before it is judged, or in the same transaction.
    for apart in [true, false] {
        let mut shared = Shared::new(RoomVersion::V11).await;
        let (profile, text) = shared.with_outlier().await;
        let mut redaction = shared.build(DORA, "m.room.redaction", None, json!({}), &[&text]);
        redaction.redacts = Some(profile.event_id().to_owned());
        if !apart {
            // It is taken in first.
            let join = shared.join.clone();
            redaction.prev_events = vec![EventRef::from(&join)];
            redaction
                .auth_events
                .retain(|auth| auth.event_id != profile.event_id());
            redaction.auth_events.push(EventRef::from(&join));
            redaction.depth = join.depth();
        }
        let redaction = redaction
            .sign(shared.version, &shared.signer)
            .expect("a small event");
        if apart {
            shared.accept(&redaction).await;
            let outlier = shared.stored(profile.event_id()).expect("stored");
            assert_eq!(outlier.header.status, EventStatus::Outlier);
            assert!(outlier.pdu.content().get("displayname").is_none());
            shared.accept(&profile).await;
        } else {
            for received in shared.send(vec![raw(&redaction), raw(&profile)]).await {
                let outcome = received.expect("stored");
                assert_eq!(outcome, Outcome::Accepted);
            }
        }
        let redaction = shared.stored(redaction.event_id()).expect("stored");
        let judged = shared.stored(profile.event_id()).expect("stored");
        assert_eq!(judged.header.status, EventStatus::Accepted);
        assert_eq!(judged.header.redacted_by, Some(redaction.num));
        assert!(judged.pdu.content().get("displayname").is_none());
    }
}

#[tokio::test]
async fn other_servers_read_what_their_users_may_see() {
    let shared = Shared::new(RoomVersion::V11).await;
    let there = owned_server_name!("there.org");
    let join = shared.join.clone();
    let mut said = Vec::new();
    for index in 0..5 {
        said.push(shared.say_here(&format!("Text {index}")).await);
    }
    let rooms = shared.server.rooms.clone();
    let room = shared.room.clone();
    let texts = |pdus: &[Pdu]| -> Vec<String> {
        pdus.iter().map(|pdu| pdu.event_id().to_owned()).collect()
    };
    let request = MissingEvents {
        earliest: vec![id(&join)],
        latest: vec![id(&said[4])],
        limit: 10,
        min_depth: 0,
    };
    let missing = rooms.serve_missing_events(there.clone(), &room, request.clone());
    assert_eq!(
        texts(&missing.await.expect("a member asks")),
        texts(&said[..4])
    );
    let backfill = rooms.serve_backfill(there.clone(), &room, vec![id(&said[4])], 3);
    let mut backfill = texts(&backfill.await.expect("a member asks"));
    backfill.reverse();
    assert_eq!(backfill, texts(&said[2..]));

    let before = rooms.serve_state(there.clone(), &room, id(&join));
    let before = before.await.expect("a member asks");
    assert!(
        before
            .state
            .iter()
            .all(|event| event.pdu.event_id() != join.event_id())
    );
    let at = rooms.serve_state(there.clone(), &room, id(&said[0]));
    let at = at.await.expect("a member asks");
    assert_eq!(at.state.len(), before.state.len() + 1);
    assert!(!at.auth_chain.is_empty());
    let auth = rooms.serve_event_auth(there.clone(), &room, id(&join));
    let auth = auth.await.expect("a member asks");
    let auth: Vec<&str> = auth
        .iter()
        .map(|event| event.header.event_id.as_str())
        .collect();
    assert!(join.auth_events().all(|id| auth.contains(&id)));

    // Strangers are told nothing, and members nothing of a time when they were not there.
    let stranger = owned_server_name!("elsewhere.org");
    let refused = rooms.serve_missing_events(stranger, &room, request).await;
    assert!(matches!(refused, Err(ServeError::NotInRoom)));
    let joined = json!({"history_visibility": "joined"});
    let joined = state(&room, ALICE, "m.room.history_visibility", "", joined);
    rooms.send_state(joined).await.expect("allowed");
    rooms
        .kick(moderate(&room, ALICE, DORA))
        .await
        .expect("allowed");
    let secret = shared.say_here("Secret").await;
    let again = shared
        .server
        .join_from_there(&room, DORA, &shared.elsewhere);
    again.await.expect("the room is public");
    let backfill = rooms.serve_backfill(there, &room, vec![id(&secret)], 1);
    let backfill = backfill.await.expect("a member asks");
    assert!(backfill[0].content().is_empty());
    assert_eq!(backfill[0].event_id(), secret.event_id());
}

/// Whatever the order in which branches arrive, and however they are cut into transactions, the room ends up the same.
#[tokio::test]
async fn the_order_of_arrival_does_not_matter() {
    let mut outcomes = Vec::new();
    for seed in 0..6_u8 {
        let mut shared = Shared::new(RoomVersion::V11).await;
        let join = shared.join.clone();
        let levels = shared.state[&("m.room.power_levels".to_owned(), String::new())].clone();
        let mut content = Value::Object(levels.content().clone());
        content["users"][DORA] = 100.into();
        let levels = state(&shared.room, ALICE, "m.room.power_levels", "", content);
        let levels = shared
            .server
            .rooms
            .send_state(levels)
            .await
            .expect("allowed");
        let levels = shared
            .stored(levels.as_str())
            .expect("just sent")
            .pdu
            .clone();
        assert!(prev(&levels).contains(&join.event_id().to_owned()));
        shared.note(&levels);

        let eve = json!({"membership": "join"});
        let eve = shared.state_event(EVE, "m.room.member", EVE, eve, &[&levels]);
        let ban = json!({"membership": "ban"});
        let ban = shared.state_event(DORA, "m.room.member", EVE, ban, &[&eve]);
        let text = shared.text("Beside the ban", &[&eve]);
        let quiet = json!({"users": {ALICE: 100, DORA: 100}, "events_default": 10});
        let quiet = shared.state_event(DORA, "m.room.power_levels", "", quiet, &[&eve]);
        let name = shared.state_event(DORA, "m.room.name", "", json!({"name": "One"}), &[&ban]);
        let other = shared.state_event(DORA, "m.room.name", "", json!({"name": "Two"}), &[&quiet]);
        let meet = shared.text("Together", &[&name, &other, &text]);
        let mut events = vec![eve, ban, text, quiet, name, other, meet];
        // A shuffle that the seed decides; what comes too early is fetched or comes again.
        for index in (1..events.len()).rev() {
            events.swap(
                index,
                usize::from(seed).wrapping_mul(7).wrapping_add(index * 5) % (index + 1),
            );
        }
        *shared.elsewhere.missing.lock() = events.clone();
        for part in events.chunks(usize::from(seed % 3) + 1) {
            for received in shared.send(part.iter().map(raw).collect()).await {
                let outcome = received.expect("everything can be had");
                assert_ne!(outcome, Outcome::Rejected);
            }
        }
        let handle = shared.server.handle(&shared.room);
        let view = shared.server.view();
        let room = myelin_rooms::read::RoomView::open(&shared.server.rooms, &view, handle.num);
        let room = room.expect("the room is there");
        let entries = room.state_entries(shared.server.head(&shared.room).root());
        let mut found: Vec<(String, String, String)> = Vec::new();
        for (_, num) in entries.expect("the state can be read") {
            let event = room.event(num).expect("events can be read");
            let key = event.pdu.state_key().expect("a state event").to_owned();
            let content = event.pdu.content_json().to_owned();
            found.push((event.pdu.event_type().to_owned(), key, content));
        }
        found.sort_unstable();
        outcomes.push((found, shared.extremities().len()));
    }
    for outcome in &outcomes {
        assert_eq!(*outcome, outcomes[0]);
    }
    assert_eq!(outcomes[0].1, 1);
}

#[tokio::test]
async fn rooms_that_are_not_known_are_no_mans() {
    let shared = Shared::new(RoomVersion::V11).await;
    let other = Shared::new(RoomVersion::V11).await;
    let mut other = Shared {
        room: OwnedRoomId::try_from("!unknown:there.org").expect("a room id"),
        ..other
    };
    let join = other.join.clone();
    let text = other.text("Hello", &[&join]);
    let refused = shared.deliver(&text).await;
    assert!(matches!(refused, Err(NotTaken::RoomNotFound)));
    let received = shared
        .send(vec![RawValue::from_string("3".to_owned()).expect("JSON")])
        .await;
    assert!(matches!(received[0], Err(NotTaken::Malformed(_))));
    assert!(<&UserId>::try_from(DORA).is_ok());
}

#[tokio::test]
async fn what_was_acknowledged_is_judged_after_a_restart() {
    let mut shared = Shared::new(RoomVersion::V11).await;
    let join = shared.join.clone();
    let chain = shared.chain(3, &join);
    let origin = owned_server_name!("there.org");
    for pdu in &chain {
        // Several servers send the same.
        for _ in 0..2 {
            let delivered = shared.server.rooms.deliver(&origin, vec![raw(pdu)]).await;
            assert_eq!(delivered.expect("there is room")[0].result, Ok(()));
        }
    }
    assert_eq!(shared.waiting().await, 3);
    assert!(shared.stored(chain[0].event_id()).is_none());
    let mut shared = Shared {
        server: shared.server.restart().await,
        ..shared
    };
    assert_eq!(shared.waiting().await, 3);
    let outcomes = shared.work().await;
    assert!(
        outcomes
            .values()
            .all(|outcome| *outcome == Outcome::Accepted)
    );
    assert_eq!((outcomes.len(), shared.waiting().await), (3, 0));
    assert!(
        shared.shown().ends_with(
            &chain
                .iter()
                .map(|pdu| pdu.event_id().to_owned())
                .collect::<Vec<_>>()
        )
    );
    // New ones come after those.
    let text = shared.text("Again", &[&chain[2]]);
    shared.accept(&text).await;
    let view = shared.server.view();
    assert_eq!(view.scan::<Inbox>(Scan::all()).count(), 0);
}

#[tokio::test]
async fn what_cannot_be_had_now_is_tried_again() {
    let mut shared = Shared::new(RoomVersion::V11).await;
    let join = shared.join.clone();
    let chain = shared.chain(3, &join);
    *shared.elsewhere.missing.lock() = chain[..2].to_vec();
    shared.elsewhere.down.lock().push("there.org".to_owned());
    let outcome = shared.deliver(&chain[2]).await;
    assert!(matches!(outcome, Ok(Outcome::Postponed(_))), "{outcome:?}");
    assert_eq!(shared.waiting().await, 1);
    // Others of the room do not wait for it.
    let other = shared.text("Meanwhile", &[&join]);
    shared.accept(&other).await;
    let clock = Arc::clone(&shared.server.clock);
    clock.advance(Duration::from_mins(1));
    let again = shared.work().await;
    assert!(matches!(again[chain[2].event_id()], Outcome::Postponed(_)));
    shared.elsewhere.down.lock().clear();
    assert!(shared.work().await.is_empty(), "it is not due");
    clock.advance(Duration::from_mins(1));
    assert_eq!(shared.work().await[chain[2].event_id()], Outcome::Accepted);
    assert_eq!(shared.waiting().await, 0);

    // Not for ever.
    let chain = shared.chain(2, &other);
    shared.elsewhere.missing.lock().clear();
    shared.elsewhere.down.lock().push("there.org".to_owned());
    let mut outcome = shared.deliver(&chain[1]).await.expect("taken");
    let mut attempts = 1;
    while matches!(outcome, Outcome::Postponed(_)) {
        clock.advance(Duration::from_hours(2));
        outcome = shared
            .work()
            .await
            .remove(chain[1].event_id())
            .expect("due");
        attempts += 1;
    }
    assert!(matches!(outcome, Outcome::Dropped(_)));
    assert_eq!((attempts, shared.waiting().await), (8, 0));
}

#[tokio::test]
async fn an_event_that_comes_again_is_tried_at_once() {
    let mut shared = Shared::new(RoomVersion::V11).await;
    let join = shared.join.clone();
    let chain = shared.chain(2, &join);
    shared.elsewhere.down.lock().push("there.org".to_owned());
    let outcome = shared.deliver(&chain[1]).await;
    assert!(matches!(outcome, Ok(Outcome::Postponed(_))));
    shared.accept(&chain[0]).await;
    shared.accept(&chain[1]).await;
    assert_eq!(shared.waiting().await, 0);
}

#[tokio::test]
async fn what_the_origin_does_not_give_others_may() {
    let mut shared = Shared::new(RoomVersion::V11).await;
    let join = shared.join.clone();
    let there = std::mem::replace(&mut shared.signer, Signer::new("away.org", signing_key()));
    let joins = json!({"membership": "join"});
    let mallory = "@mallory:away.org";
    let joined = shared.state_event(mallory, "m.room.member", mallory, joins, &[&join]);
    shared.accept(&joined).await;
    shared.signer = there;
    let chain = shared.chain(3, &joined);
    *shared.elsewhere.missing.lock() = chain[..2].to_vec();
    shared.elsewhere.down.lock().push("there.org".to_owned());
    shared.accept(&chain[2]).await;
}

#[tokio::test]
async fn a_full_inbox_takes_nothing_and_loses_nothing() {
    let options = Options {
        inbox: InboxLimits {
            room: Load {
                events: 2,
                bytes: 1 << 20,
            },
            ..InboxLimits::default()
        },
        ..Options::default()
    };
    let mut shared = Shared::on(Server::with(options).await, RoomVersion::V11).await;
    let join = shared.join.clone();
    let chain = shared.chain(4, &join);
    let origin = owned_server_name!("there.org");
    let deliver = |pdus: &[Pdu]| {
        let rooms = shared.server.rooms.clone();
        let (origin, pdus) = (origin.clone(), pdus.iter().map(raw).collect());
        async move { rooms.deliver(&origin, pdus).await }
    };
    assert!(deliver(&chain[..2]).await.is_ok());
    for _ in 0..2 {
        let full = deliver(&chain[1..3]).await;
        assert!(matches!(full, Err(DeliverError::Full)));
    }
    assert!(deliver(&chain[..2]).await.is_ok(), "these wait already");
    assert_eq!(shared.work().await.len(), 2);
    assert!(deliver(&chain[2..]).await.is_ok());
    assert_eq!(shared.work().await.len(), 2);
    let all: Vec<String> = chain.iter().map(|pdu| pdu.event_id().to_owned()).collect();
    assert!(shared.shown().ends_with(&all));
}

#[tokio::test]
async fn what_strangers_send_is_not_stored_unless_others_build_on_it() {
    let mut shared = Shared::new(RoomVersion::V11).await;
    let join = shared.join.clone();
    let there = std::mem::replace(&mut shared.signer, Signer::new("away.org", signing_key()));
    let content = json!({"msgtype": "m.text", "body": "Let me in"});
    let stranger = shared.build(
        "@mallory:away.org",
        "m.room.message",
        None,
        content,
        &[&join],
    );
    let stranger = stranger
        .sign(shared.version, &shared.signer)
        .expect("a small event");
    shared.note(&stranger);
    shared.signer = there;
    let outcome = shared.deliver(&stranger).await;
    assert!(matches!(outcome, Ok(Outcome::Dropped(_))), "{outcome:?}");
    assert!(shared.stored(stranger.event_id()).is_none());
    let text = shared.text("I heard something", &[&stranger]);
    *shared.elsewhere.missing.lock() = vec![stranger.clone()];
    shared.accept(&text).await;
    let stored = shared.stored(stranger.event_id()).expect("stored");
    assert_eq!(stored.header.status, EventStatus::Rejected);
}

#[tokio::test]
async fn a_rejection_ends_with_its_reason() {
    let mut shared = Shared::new(RoomVersion::V11).await;
    let join = shared.join.clone();
    let chain = shared.chain(3, &join);
    // A state without Dora: what she says in it is rejected, and so is what follows.
    let dora = ("m.room.member".to_owned(), DORA.to_owned());
    let state = shared.state.iter().filter(|(key, _)| **key != dora);
    *shared.elsewhere.state.lock() = Some(state.map(|(_, pdu)| pdu.clone()).collect());
    *shared.elsewhere.missing.lock() = vec![chain[1].clone()];
    assert_eq!(shared.deliver(&chain[2]).await, Ok(Outcome::Rejected));
    assert_eq!(shared.stands(chain[1].event_id()), Some(Outcome::Rejected));
    let num = shared.stored(chain[1].event_id()).expect("stored").num;

    shared.accept(&chain[0]).await;
    assert_eq!(shared.stands(chain[1].event_id()), Some(Outcome::Rejected));
    for pdu in &chain[1..] {
        shared.accept(pdu).await;
        assert!(shared.shown().ends_with(&[pdu.event_id().to_owned()]));
    }
    assert_eq!(shared.stored(chain[1].event_id()).expect("stored").num, num);
    assert_eq!(shared.extremities(), [chain[2].event_id()]);
    shared.server.check_chain(&shared.room);
}

#[tokio::test]
async fn few_redactions_wait_for_an_event_and_outliers_are_pruned_too() {
    let mut shared = Shared::new(RoomVersion::V11).await;
    let join = shared.join.clone();
    let target = shared.text("Oops", &[&join]);
    let mut last = join.clone();
    for _ in 0..10 {
        last = shared.redaction(DORA, target.event_id(), &[&last]);
        shared.accept(&last).await;
    }
    let view = shared.server.view();
    let waiting = view.scan::<AwaitedTargets>(Scan::all()).count();
    assert_eq!(waiting, 4, "of one server");

    // A part of a state that was redacted before it came.
    let profile = json!({"membership": "join", "displayname": "Dora"});
    let profile = shared.state_event(DORA, "m.room.member", DORA, profile, &[&last]);
    let redaction = {
        let mut redaction = shared.build(DORA, "m.room.redaction", None, json!({}), &[&last]);
        redaction.redacts = Some(profile.event_id().to_owned());
        let own = |auth: &EventRef| auth.event_id != profile.event_id();
        redaction.auth_events.retain(own);
        redaction.auth_events.push(EventRef::from(&join));
        redaction
            .sign(shared.version, &shared.signer)
            .expect("a small event")
    };
    shared.accept(&redaction).await;
    let text = shared.text("See my name", &[&profile]);
    let after = shared.text("Well?", &[&text]);
    *shared.elsewhere.state.lock() = Some(shared.state.values().cloned().collect());
    *shared.elsewhere.missing.lock() = vec![text];
    shared.accept(&after).await;
    let stored = shared.stored(profile.event_id()).expect("stored");
    assert_eq!(stored.header.status, EventStatus::Outlier);
    assert!(stored.pdu.content().get("displayname").is_none());
}

/// A policy server that signs what does not speak of spam.
struct Moderator;

fn policy_key() -> SigningKey {
    SigningKey::from_seed("policy_server", [3; 32])
}

impl AskPolicy for Moderator {
    fn sign<'a>(
        &'a self,
        via: &'a ServerName,
        event: &'a Pdu,
    ) -> Fetching<'a, Result<String, NotSigned>> {
        Box::pin(async move {
            if event.content_json().contains("spam") {
                return Err(NotSigned::Refused(
                    "It looks like an advertisement".to_owned(),
                ));
            }
            let signed = event.countersigned(&Signer::new(via.as_str(), policy_key()));
            let signed: Value = serde_json::from_str(signed.json()).expect("JSON");
            let signature = &signed["signatures"][via.as_str()]["ed25519:policy_server"];
            Ok(signature.as_str().expect("just signed").to_owned())
        })
    }
}

#[tokio::test]
async fn a_policy_server_recommends_events() {
    let mut shared = Shared::new(RoomVersion::V11).await;
    let rooms = shared.server.rooms.clone();
    let policy = |via: &str| {
        let key = policy_key().public_key();
        let content = json!({"via": via, "public_keys": {"ed25519": key}});
        state(&shared.room, ALICE, "m.room.policy", "", content)
    };
    // Nobody of that server is in the room, so it is not asked; and nobody can be asked yet.
    let nowhere = policy("policy.org");
    rooms.send_state(nowhere).await.expect("allowed");
    shared.say_here("No policy").await;
    let there = policy("there.org");
    rooms.send_state(there).await.expect("allowed");
    let say = |text: &str| SendMessage {
        room_id: shared.room.clone(),
        sender: user(ALICE),
        event_type: "m.room.message".to_owned(),
        content: object(json!({"msgtype": "m.text", "body": text})),
        transaction: None,
    };
    let refused = rooms.send_message(say("Hello")).await;
    assert!(matches!(
        refused,
        Err(SendError::Append(AppendError::Forbidden(_)))
    ));

    rooms.ask_policies_through(Arc::new(Moderator));
    let sent = rooms.send_message(say("Hello")).await.expect("recommended");
    let sent = shared.stored(sent.as_str()).expect("just sent");
    let text: Value = serde_json::from_str(sent.pdu.json()).expect("JSON");
    assert!(text["signatures"]["there.org"]["ed25519:policy_server"].is_string());
    assert!(text["signatures"]["here.org"].is_object());
    let shown = shared.shown();
    let refused = rooms.send_message(say("spam")).await;
    let Err(SendError::Append(AppendError::Forbidden(text))) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(text, "It looks like an advertisement");
    assert_eq!(shared.shown(), shown);
    // What names the policy server needs no recommendation.
    let again = policy("there.org");
    rooms.send_state(again).await.expect("allowed");

    let last = sent.pdu.clone();
    shared.note(&last);
    let good = shared.text("From there", &[&last]);
    shared.accept(&good).await;
    let stored = shared.stored(good.event_id()).expect("stored");
    assert!(stored.pdu.json().contains("ed25519:policy_server"));
    let bad = shared.text("spam", &[&good]);
    assert_eq!(shared.deliver(&bad).await, Ok(Outcome::SoftFailed));
    assert_eq!(shared.extremities(), [good.event_id()]);
}

#[tokio::test]
async fn receipts_of_other_servers_users_are_kept() {
    let mut shared = Shared::new(RoomVersion::V11).await;
    let join = shared.join.clone();
    let chain = shared.chain(2, &join);
    shared.accept(&chain[0]).await;
    let receipt = |user_id: &str, event: &Pdu, thread: Thread| RemoteReceipt {
        room_id: shared.room.clone(),
        user_id: user(user_id),
        thread,
        event_id: id(event),
        at: Some(Millis(7)),
    };
    let main = receipt(DORA, &chain[0], Thread::Main);
    let early = receipt(DORA, &chain[1], Thread::Unthreaded);
    let others = [
        receipt(ALICE, &join, Thread::Unthreaded),
        receipt(EVE, &join, Thread::Unthreaded),
        receipt(DORA, &chain[0], Thread::Root(id(&join))),
    ];
    let read = |shared: &Shared| {
        let num = shared.server.handle(&shared.room).num;
        let view = shared.server.view();
        view.scan::<Receipts>(Scan::prefix(&num))
            .map(|row| {
                let ((.., thread), receipt) = row.expect("receipts can be read");
                (thread, receipt.event_id, receipt.at)
            })
            .collect::<Vec<_>>()
    };
    let there = owned_server_name!("there.org");
    let all = others.into_iter().chain([main, early]).collect();
    let rooms = shared.server.rooms.clone();
    rooms.receive_receipts(&there, all).await.expect("written");
    let in_main = ("main".to_owned(), chain[0].event_id().to_owned(), Millis(7));
    // She has read something, even if that is not here.
    let unthreaded = (String::new(), chain[1].event_id().to_owned(), Millis(7));
    assert_eq!(read(&shared), [unthreaded.clone(), in_main.clone()]);

    // The event comes after a restart; then its receipt counts.
    drop(rooms);
    let shared = Shared {
        server: shared.server.restart().await,
        ..shared
    };
    shared.accept(&chain[1]).await;
    assert_eq!(read(&shared), [unthreaded.clone(), in_main.clone()]);
    let view = shared.server.view();
    assert_eq!(view.scan::<AwaitedReceipts>(Scan::all()).count(), 0);

    // Not backwards, and not where its server is denied.
    let back = RemoteReceipt {
        room_id: shared.room.clone(),
        user_id: user(DORA),
        thread: Thread::Unthreaded,
        event_id: id(&chain[0]),
        at: None,
    };
    let rooms = &shared.server.rooms;
    let took = rooms.receive_receipts(&there, vec![back.clone()]).await;
    took.expect("nothing to write");
    let acl = json!({"allow": ["*"], "deny": ["there.*"]});
    let acl = state(&shared.room, ALICE, "m.room.server_acl", "", acl);
    let acl = rooms.send_state(acl).await.expect("allowed");
    let newest = RemoteReceipt {
        event_id: acl,
        ..back
    };
    let took = rooms.receive_receipts(&there, vec![newest]).await;
    took.expect("nothing to write");
    assert_eq!(read(&shared), [unthreaded, in_main]);
}

#[tokio::test]
async fn the_end_does_not_wait_for_other_servers() {
    let mut shared = Shared::new(RoomVersion::V11).await;
    let join = shared.join.clone();
    let chain = shared.chain(2, &join);
    *shared.elsewhere.missing.lock() = chain[..1].to_vec();
    shared.elsewhere.stuck.store(true, Ordering::SeqCst);
    let rooms = shared.server.rooms.clone();
    let origin = owned_server_name!("there.org");
    let delivered = rooms.deliver(&origin, vec![raw(&chain[1])]).await;
    delivered.expect("there is room");
    let stop = CancellationToken::new();
    let mut work = rooms.claim_inbox().await.expect("reads").expect("due");
    let (step, asked) = (work.step(&*shared.elsewhere, &stop), async {
        while shared.elsewhere.asked.lock().is_empty() {
            tokio::task::yield_now().await;
        }
        stop.cancel();
    });
    let (judged, ()) = tokio::join!(step, asked);
    assert_eq!(judged.expect("no faults"), []);
    drop(work);
    assert_eq!(shared.waiting().await, 1);
    shared.elsewhere.stuck.store(false, Ordering::SeqCst);
    assert_eq!(shared.work().await[chain[1].event_id()], Outcome::Accepted);
}
