//! The real router over a real store in a temporary directory, and another server whose keys are known already.

use std::sync::Arc;

use axum::{
    Router,
    body::{Body, to_bytes},
};
use http::{Method, Request, StatusCode, header};
use myelin_accounts::Accounts;
use myelin_config::{Config, Rate};
use myelin_data::{
    Interner,
    federation::{PublishedKeys, ServerKeys},
};
use myelin_e2ee::E2ee;
use myelin_federation::{Federation, Parts, auth::Signed};
use myelin_rooms::{CreateRoom, Preset, Profile, Rooms, SendState};
use myelin_rules::{EventBuilder, EventRef, Pdu, RoomVersion, Signer, SigningKey};
use myelin_store::{Batch, Scan, Store};
use myelin_types::{Clock, Millis, MockClock, Random, SeededRandom, UserNum};
use ruma::{OwnedRoomId, RoomId, owned_server_name, server_name, user_id};
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::ServiceExt as _;

use crate::{Route, router};

/// When the tests take place.
pub(crate) const NOW: Millis = Millis(1_700_000_000_000);
/// The server under test.
pub(crate) const OUR_NAME: &str = "here.example";
/// A user of the other server.
pub(crate) const CHARLIE: &str = "@charlie:there.example";

/// A server without a listener, and what another one needs to speak with it.
pub(crate) struct Here {
    router: Router,
    /// What it serves.
    pub(crate) table: Vec<Route>,
    pub(crate) rooms: Rooms,
    pub(crate) federation: Federation,
    accounts: Accounts,
    /// Its clock, which stands still until a test moves it.
    pub(crate) clock: Arc<MockClock>,
    pub(crate) there: Signer,
    _dir: TempDir,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Its status.
    pub(crate) status: StatusCode,
    body: Value,
}

impl Answer {
    /// The body of a success.
    #[track_caller]
    pub(crate) fn ok(self) -> Value {
        assert_eq!(self.status, StatusCode::OK, "{}", self.body);
        self.body
    }

    /// The error code, empty where there is none.
    pub(crate) fn errcode(&self) -> &str {
        self.body["errcode"].as_str().unwrap_or_default()
    }

    /// Checks that the request was refused so.
    #[track_caller]
    pub(crate) fn refused(self, status: u16, errcode: &str) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.body);
        assert_eq!(self.body["errcode"], errcode, "{}", self.body);
        self.body
    }
}

/// The path of an operation on a room and something in it.
pub(crate) fn there_path(operation: &str, room: impl AsRef<str>, what: &str) -> String {
    format!("/_matrix/federation/{operation}/{}/{what}", room.as_ref())
}

impl Here {
    pub(crate) async fn new() -> Here {
        Here::open(Config::for_server(owned_server_name!("here.example"))).await
    }

    /// One that takes only so many transactions of a server.
    pub(crate) async fn limited(transactions: Rate) -> Here {
        let mut config = Config::for_server(owned_server_name!("here.example"));
        config.federation.transactions = transactions;
        Here::open(config).await
    }

    async fn open(config: Config) -> Here {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let options = myelin_store::Options {
            memory_budget: 32 << 20,
            product: myelin_data::PRODUCT,
            schema: myelin_data::SCHEMA,
            tables: myelin_data::tables(),
        };
        let store = Store::open(dir.path(), options).expect("a new directory opens");
        let interner = Interner::open(store.clone()).await.expect("opens");
        let mock = Arc::new(MockClock::new(NOW));
        let clock: Arc<dyn Clock> = Arc::clone(&mock) as Arc<dyn Clock>;
        let signer = Arc::new(Signer::new(
            OUR_NAME,
            SigningKey::from_seed("here", [1; 32]),
        ));
        let there = Signer::new("there.example", SigningKey::from_seed("there", [2; 32]));
        let known = PublishedKeys {
            fetched: NOW,
            valid_until: Millis(NOW.0 + 1_000_000),
            current: vec![(there.key().id().to_owned(), there.key().public_key_bytes())],
            ..PublishedKeys::default()
        };
        let mut batch = Batch::new();
        batch.put::<ServerKeys>(&"there.example".to_owned(), &known);
        store.commit(batch).await.expect("the store works");
        let random: Arc<dyn Random> = Arc::new(SeededRandom::new(1));
        let rooms = Rooms::open(
            store.clone(),
            interner.clone(),
            Arc::clone(&signer),
            owned_server_name!("here.example"),
            Arc::clone(&clock),
            Arc::clone(&random),
            myelin_rooms::Options {
                default_room_version: RoomVersion::V11,
                ..myelin_rooms::Options::default()
            },
        );
        let accounts = Accounts::open(
            store.clone(),
            interner,
            Arc::clone(&clock),
            Arc::clone(&random),
            myelin_accounts::Settings::new(
                config.server.name.clone(),
                &config.registration,
                &config.accounts,
            ),
        )
        .expect("the accounts open");
        let parts = Parts {
            server_name: config.server.name.clone(),
            signer,
            memory: myelin_federation::MEMORY,
            store,
            rooms: rooms.clone(),
            accounts: accounts.clone(),
            e2ee: E2ee::new(rooms.clone(), Arc::clone(&clock), Arc::clone(&random)),
            clock,
            random,
        };
        let federation = Federation::new(&config.federation, parts).expect("the settings are good");
        let (router, table) = router(federation.clone());
        Here {
            router,
            table,
            rooms,
            accounts,
            federation,
            clock: mock,
            there,
            _dir: dir,
        }
    }

    /// Sends a request with this `Authorization`.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        authorization: Option<&str>,
        body: impl Into<Body>,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(authorization) = authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        let request = request.body(body.into()).expect("a request");
        let response = self
            .router
            .clone()
            .oneshot(request)
            .await
            .expect("the router answers everything");
        let status = response.status();
        let body = to_bytes(response.into_body(), usize::MAX)
            .await
            .expect("the body is in memory");
        Answer {
            status,
            body: serde_json::from_slice(&body).unwrap_or(Value::Null),
        }
    }

    /// Sends a request that the other server signs.
    pub(crate) async fn signed(&self, method: Method, path: &str, body: Option<Value>) -> Answer {
        let signed = Signed {
            method: method.as_str(),
            uri: path,
            content: body.as_ref(),
        };
        let header = signed
            .sign(
                server_name!("there.example"),
                self.there.key(),
                server_name!("here.example"),
            )
            .expect("it can be signed")
            .header();
        let body = body.map_or_else(String::new, |body| body.to_string());
        self.send(method, path, Some(&header), body).await
    }

    async fn room(&self, preset: Preset) -> OwnedRoomId {
        let mut request = CreateRoom::new(
            user_id!("@alice:here.example").to_owned(),
            Profile {
                displayname: None,
                avatar_url: None,
            },
        );
        request.preset = Some(preset);
        self.rooms
            .create_room(request)
            .await
            .expect("it is allowed")
    }

    /// A room of Alice's that anybody may join.
    pub(crate) async fn public_room(&self) -> OwnedRoomId {
        self.room(Preset::PublicChat).await
    }

    /// A room of Alice's that nobody may join.
    pub(crate) async fn private_room(&self) -> OwnedRoomId {
        self.room(Preset::PrivateChat).await
    }

    /// Gives a room of Alice's an alias.
    pub(crate) async fn name(&self, room: &RoomId, alias: &str) {
        let alias = ruma::OwnedRoomAliasId::try_from(alias).expect("an alias");
        let alice = user_id!("@alice:here.example");
        let made = self.rooms.create_alias(&alias, room, alice);
        made.await.expect("Alice may do that");
    }

    /// The users.
    pub(crate) fn accounts(&self) -> &Accounts {
        &self.accounts
    }

    /// Makes an account.
    pub(crate) async fn register(&self, localpart: &str) -> UserNum {
        let id = self.accounts.create_user(localpart, None, false);
        let id = id.await.expect("the name is free");
        let num = self.rooms.interner().user(&id).await;
        num.expect("the store works")
    }

    /// Sets a field of a user's profile.
    pub(crate) async fn set_profile(&self, localpart: &str, field: &str, value: Value) {
        let id = ruma::UserId::parse(format!("@{localpart}:{OUR_NAME}")).expect("a user id");
        let user = self.rooms.interner().user(&id).await;
        let user = user.expect("the store works");
        let set = self.accounts.set_profile_field(user, field, value).await;
        set.expect("the field can be set");
    }

    /// The room denies the other server from now on.
    pub(crate) async fn deny_there(&self, room: &RoomId) {
        let content = json!({ "allow": ["*"], "deny": ["there.*"] });
        let Value::Object(content) = content else {
            unreachable!("it is written as an object above");
        };
        self.rooms
            .send_state(SendState {
                room_id: room.to_owned(),
                sender: user_id!("@alice:here.example").to_owned(),
                event_type: "m.room.server_acl".to_owned(),
                state_key: String::new(),
                content,
            })
            .await
            .expect("Alice may do that");
    }

    /// Charlie's join, signed by his server.
    pub(crate) async fn join_of_charlie(&self, room: &RoomId) -> Pdu {
        self.filled_in("make_join", room, CHARLIE, "?ver=11").await
    }

    /// Charlie joins; his join, and the events that allow him to speak.
    pub(crate) async fn charlie_joins(&self, room: &RoomId) -> Pdu {
        let join = self.join_of_charlie(room).await;
        let path = there_path("v2/send_join", room, join.event_id());
        let body = serde_json::from_str(join.json()).expect("an event is JSON");
        self.signed(Method::PUT, &path, Some(body)).await.ok();
        join
    }

    /// What Charlie says after his join.
    pub(crate) fn message_of_charlie(&self, room: &RoomId, join: &Pdu, body: &str) -> Pdu {
        // A join to a public room is allowed by the events that allow to speak, and by the join rules.
        let view = self.rooms.store().view();
        let handle = self
            .rooms
            .find(&view, room)
            .expect("the store reads")
            .expect("the room is there");
        let is_join_rules = |id: &str| {
            let id = <&ruma::EventId>::try_from(id).expect("an id");
            let event = self
                .rooms
                .event_num(&view, handle.num, id)
                .expect("the store reads")
                .and_then(|num| self.rooms.event(&view, handle.num, num).expect("reads"));
            event.is_some_and(|event| event.pdu.event_type() == "m.room.join_rules")
        };
        let auth_events = join
            .auth_events()
            .filter(|id| !is_join_rules(id))
            .chain([join.event_id()])
            .map(EventRef::id)
            .collect();
        let content = json!({ "msgtype": "m.text", "body": body });
        let builder = EventBuilder {
            room_id: Some(room.to_string()),
            sender: CHARLIE.to_owned(),
            event_type: "m.room.message".to_owned(),
            state_key: None,
            content: content.as_object().expect("an object").clone(),
            redacts: None,
            prev_events: vec![EventRef::from(join)],
            auth_events,
            depth: join.depth() + 1,
            origin_server_ts: NOW,
        };
        builder
            .sign(RoomVersion::V11, &self.there)
            .expect("the event is sound")
    }

    /// Waits until nothing is in the inbox any more.
    pub(crate) async fn inbox_is_empty(&self) {
        for _ in 0..2_000 {
            let load = self.rooms.inbox_load().await.expect("the store reads");
            if load.events == 0 {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        panic!("events stay in the inbox");
    }

    /// Whose receipts stand at which events of the room.
    pub(crate) fn receipts(&self, room: &RoomId) -> Vec<(String, String)> {
        let view = self.rooms.store().view();
        let handle = self
            .rooms
            .find(&view, room)
            .expect("the store reads")
            .expect("the room is there");
        let rows = view.scan::<myelin_data::rooms::Receipts>(Scan::prefix(&handle.num));
        rows.map(|row| {
            let ((_, user, ..), receipt) = row.expect("the store reads");
            let users = self.rooms.interner().user_ids(&view, &[user]);
            let users = users.expect("the store reads");
            (users[0].to_string(), receipt.event_id)
        })
        .collect()
    }

    /// Whether the room's history has this event.
    pub(crate) async fn has(&self, room: &RoomId, event_id: &str) -> bool {
        let (rooms, room) = (self.rooms.clone(), room.to_owned());
        let event_id = ruma::OwnedEventId::try_from(event_id).expect("an id");
        let found = self.rooms.store().read(move |view| {
            let Some(handle) = rooms.find(view, &room)? else {
                return Ok::<_, myelin_store::StoreError>(None);
            };
            match rooms.event_num(view, handle.num, &event_id)? {
                Some(num) => rooms.event(view, handle.num, num),
                None => Ok(None),
            }
        });
        let event = found.await.expect("the store reads");
        event.is_some_and(|event| event.header.place.is_some())
    }

    /// Whether a user is joined to the room.
    pub(crate) async fn is_joined(&self, room: &RoomId, user: &str) -> bool {
        let viewer = {
            let alice = user_id!("@alice:here.example");
            let num = self.rooms.interner().user(alice).await.expect("interns");
            myelin_rooms::read::Viewer {
                user: num,
                user_id: alice.to_owned(),
                device_id: None,
            }
        };
        let members = self.rooms.joined_members(&viewer, room).await;
        let members = members.expect("Alice is in the room");
        let members = serde_json::to_value(members).expect("members are JSON");
        members["joined"].get(user).is_some()
    }

    /// Who types in the room.
    pub(crate) fn typing(&self, room: &RoomId) -> Vec<String> {
        let view = self.rooms.store().view();
        let handle = self
            .rooms
            .find(&view, room)
            .expect("the store reads")
            .expect("the room is there");
        let typing = self.rooms.typing().since(handle.num, 0);
        let users = typing.map_or_else(Vec::new, |typing| typing.users);
        let users = self.rooms.interner().user_ids(&view, &users);
        let users = users.expect("the store reads");
        users.iter().map(ToString::to_string).collect()
    }
}
