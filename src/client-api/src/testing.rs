//! The real router over a real store in a temporary directory, for the tests of the endpoints.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::ConnectInfo,
};
use http::{Method, Request, StatusCode, header};
use myelin_accounts::{Accounts, HashCost, Settings};
use myelin_config::{Config, RateLimits, RegistrationMode};
use myelin_data::Interner;
use myelin_e2ee::E2ee;
use myelin_federation::{Federation, Parts};
use myelin_rooms::{PresenceOptions, Rooms};
use myelin_rules::{RoomVersion, Signer, SigningKey};
use myelin_store::{Store, StoreError};
use myelin_sync::Sync;
use myelin_types::{Clock, Millis, MockClock, Random, SeededRandom};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tower::ServiceExt as _;

use crate::{About, AppState, Limiter, Route, router};

/// The password of every user that tests register.
pub(crate) const PASSWORD: &str = "correct horse battery staple";

/// A server without a listener.
pub(crate) struct Server {
    router: Router,
    /// What it serves.
    pub(crate) table: Vec<Route>,
    /// Its clock, which stands still until a test moves it.
    pub(crate) clock: Arc<MockClock>,
    /// Its database.
    pub(crate) store: Store,
    /// Its rooms.
    pub(crate) rooms: Rooms,
    config: Config,
    dir: TempDir,
    calling: JoinHandle<Result<(), StoreError>>,
}

/// Somebody who is logged in.
#[derive(Clone, Debug)]
pub(crate) struct User {
    /// His id.
    pub(crate) id: String,
    /// His device.
    pub(crate) device: String,
    /// His access token.
    pub(crate) token: String,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Its status.
    pub(crate) status: StatusCode,
    /// Its headers.
    pub(crate) headers: http::HeaderMap,
    /// Its body, null if there was none.
    pub(crate) body: Value,
}

impl Answer {
    /// The body of a success.
    #[track_caller]
    pub(crate) fn ok(self) -> Value {
        assert_eq!(self.status, StatusCode::OK, "{}", self.body);
        self.body
    }

    /// Checks that the request was refused so.
    #[track_caller]
    pub(crate) fn refused(self, status: u16, errcode: &str) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.body);
        assert_eq!(self.body["errcode"], errcode, "{}", self.body);
        self.body
    }
}

impl Server {
    /// A server called `hs1` where anybody may register, without rate limits.
    pub(crate) async fn new() -> Server {
        Server::with(|_| {}).await
    }

    /// The same with other settings.
    pub(crate) async fn with(change: impl FnOnce(&mut Config)) -> Server {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let name = ruma::server_name!("hs1").to_owned();
        let mut config = Config::for_server(name.clone());
        config.registration.mode = RegistrationMode::Open;
        // No test of an endpoint asks a server that there may be outside.
        config.federation.enabled = false;
        config.rate_limits = RateLimits {
            enabled: false,
            ..config.rate_limits
        };
        change(&mut config);
        let store = Store::open(dir.path(), options()).expect("a new directory opens");
        let clock = Arc::new(MockClock::new(Millis(1_700_000_000_000)));
        let random = Arc::new(SeededRandom::new(1));
        Server::over(dir, config, store, clock, random).await
    }

    /// Opens the database again, as after a restart: nothing is remembered but what is stored.
    pub(crate) async fn restart(self) -> Server {
        let Server {
            router,
            clock,
            store,
            rooms,
            config,
            dir,
            calling,
            ..
        } = self;
        calling.abort();
        store.close();
        drop((router, store, rooms));
        // Another seed, or it would hand out the same ids once more.
        let random = Arc::new(SeededRandom::new(2));
        // What was begun for a request that has its answer may hold the database a little longer.
        for _ in 0..1_000 {
            if let Ok(store) = Store::open(dir.path(), options()) {
                return Server::over(dir, config, store, clock, random).await;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("somebody holds the database");
    }

    async fn over(
        dir: TempDir,
        config: Config,
        store: Store,
        clock: Arc<MockClock>,
        random: Arc<dyn Random>,
    ) -> Server {
        let name = config.server.name.clone();
        let default_room_version: RoomVersion = config
            .rooms
            .default_version
            .as_str()
            .parse()
            .expect("a room version");
        let interner = Interner::open(store.clone()).await.expect("opens");
        let key = SigningKey::generate(&SeededRandom::new(0));
        let signer = Arc::new(Signer::new(name.as_str(), key));
        let rooms = Rooms::open(
            store.clone(),
            interner.clone(),
            Arc::clone(&signer),
            name.clone(),
            Arc::clone(&clock) as Arc<dyn Clock>,
            Arc::clone(&random),
            myelin_rooms::Options {
                default_room_version,
                presence: PresenceOptions {
                    enabled: config.presence.enabled,
                    max_room_members: config.presence.max_room_members,
                    ..PresenceOptions::default()
                },
                ..myelin_rooms::Options::default()
            },
        );
        let mut settings = Settings::new(name.clone(), &config.registration, &config.accounts);
        // Tests register many users, and none of their passwords is worth guarding.
        settings.hash_cost = HashCost {
            memory_kib: 64,
            passes: 1,
        };
        let accounts = Accounts::open(
            store.clone(),
            interner,
            Arc::clone(&clock) as Arc<dyn Clock>,
            Arc::clone(&random),
            settings,
        )
        .expect("opens");
        let e2ee = E2ee::new(
            rooms.clone(),
            Arc::clone(&clock) as Arc<dyn Clock>,
            Arc::clone(&random),
        );
        let parts = Parts {
            server_name: name,
            signer,
            memory: myelin_federation::MEMORY,
            store: store.clone(),
            rooms: rooms.clone(),
            accounts: accounts.clone(),
            e2ee: e2ee.clone(),
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            random,
        };
        let federation = Federation::new(&config.federation, parts).expect("opens");
        let state = AppState {
            sync: Sync::new(rooms.clone(), accounts.clone(), e2ee.clone()),
            accounts,
            e2ee,
            rooms: rooms.clone(),
            federation,
            about: Arc::new(About {
                client_base_url: config.well_known.client.clone(),
                federation: config.well_known.server.clone(),
                support_page: config.well_known.support_page.clone(),
                support_contacts: config.well_known.support_contacts.clone(),
                default_room_version,
            }),
            limiter: Arc::new(Limiter::new(&config.rate_limits)),
            max_body: config.limits.max_request_body.as_usize(),
            trusted_proxies: Arc::new(config.listen.trusted_proxies.clone()),
        };
        let sync = state.sync.clone();
        let calling = tokio::spawn(async move { sync.call_for_device_lists().await });
        let (router, table) = router(state);
        Server {
            router,
            table,
            clock,
            store,
            rooms,
            config,
            dir,
            calling,
        }
    }

    /// Makes a request as it stands.
    pub(crate) async fn request(&self, request: Request<Body>) -> Answer {
        let response = self
            .router
            .clone()
            .oneshot(request)
            .await
            .expect("the router always answers");
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, usize::MAX).await.expect("a whole body");
        Answer {
            status: parts.status,
            headers: parts.headers,
            body: serde_json::from_slice(&body).unwrap_or(Value::Null),
        }
    }

    /// Makes a request with these bytes as its body.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        body: Vec<u8>,
    ) -> Answer {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::CONTENT_TYPE, "application/json")
            .extension(ConnectInfo(SocketAddr::from((Ipv4Addr::LOCALHOST, 1))));
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.body(Body::from(body)).expect("a valid request");
        self.request(request).await
    }

    /// Makes a request under `/_matrix/client/v3`, with JSON as its body.
    pub(crate) async fn call(
        &self,
        method: Method,
        path: &str,
        user: &User,
        body: &Value,
    ) -> Answer {
        self.send(
            method,
            &format!("/_matrix/client/v3{path}"),
            Some(&user.token),
            body.to_string().into_bytes(),
        )
        .await
    }

    /// `GET` under `/_matrix/client/v3`.
    pub(crate) async fn get(&self, path: &str, user: &User) -> Answer {
        self.send(
            Method::GET,
            &format!("/_matrix/client/v3{path}"),
            Some(&user.token),
            Vec::new(),
        )
        .await
    }

    /// `PUT` under `/_matrix/client/v3`.
    pub(crate) async fn put(&self, path: &str, user: &User, body: &Value) -> Answer {
        self.call(Method::PUT, path, user, body).await
    }

    /// `POST` under `/_matrix/client/v3`.
    pub(crate) async fn post(&self, path: &str, user: &User, body: &Value) -> Answer {
        self.call(Method::POST, path, user, body).await
    }

    /// Makes a request without a token under `/_matrix/client/v3`.
    pub(crate) async fn stranger(&self, method: Method, path: &str, body: &Value) -> Answer {
        let body = if *body == Value::Null {
            Vec::new()
        } else {
            body.to_string().into_bytes()
        };
        self.send(method, &format!("/_matrix/client/v3{path}"), None, body)
            .await
    }

    /// `DELETE` under `/_matrix/client/v3`.
    pub(crate) async fn delete(&self, path: &str, user: &User, body: &Value) -> Answer {
        self.call(Method::DELETE, path, user, body).await
    }

    /// A server with two users.
    pub(crate) async fn with_two_users() -> (Server, User, User) {
        let server = Server::new().await;
        let alice = server.register("alice").await;
        let bob = server.register("bob").await;
        (server, alice, bob)
    }

    /// Syncs without waiting; `query` is the rest of the query.
    pub(crate) async fn sync(&self, user: &User, query: &str) -> Value {
        self.get(&format!("/sync?timeout=0&{query}"), user)
            .await
            .ok()
    }

    /// Registers `name` with [`PASSWORD`].
    pub(crate) async fn register(&self, name: &str) -> User {
        let body = json!({
            "username": name,
            "password": PASSWORD,
            "auth": { "type": "m.login.dummy" },
        });
        user(&self.stranger(Method::POST, "/register", &body).await.ok())
    }

    /// Logs `name` in once more, on another device.
    pub(crate) async fn login(&self, name: &str) -> User {
        let body = json!({
            "type": "m.login.password",
            "identifier": { "type": "m.id.user", "user": name },
            "password": PASSWORD,
        });
        user(&self.stranger(Method::POST, "/login", &body).await.ok())
    }

    /// Makes a room; its id.
    pub(crate) async fn room(&self, creator: &User, request: &Value) -> String {
        let body = self.post("/createRoom", creator, request).await.ok();
        text(&body["room_id"])
    }

    /// Joins a user to a room.
    pub(crate) async fn join(&self, room: &str, user: &User) {
        self.post(&in_room(room, "/join"), user, &json!({}))
            .await
            .ok();
    }

    /// Acts on somebody's membership of a room: `act` is `invite`, `kick`, `ban` or `unban`.
    pub(crate) async fn act(&self, act: &str, room: &str, user: &User, target: &User) -> Answer {
        let body = json!({ "user_id": target.id });
        self.post(&in_room(room, &format!("/{act}")), user, &body)
            .await
    }

    /// Leaves a room.
    pub(crate) async fn leave(&self, room: &str, user: &User) {
        self.post(&in_room(room, "/leave"), user, &json!({}))
            .await
            .ok();
    }

    /// Sends a state event; `entry` is its type, perhaps with its key.
    pub(crate) async fn set_state(
        &self,
        room: &str,
        user: &User,
        entry: &str,
        content: &Value,
    ) -> Answer {
        self.put(&in_room(room, &format!("/state/{entry}")), user, content)
            .await
    }

    /// The content of a state event; `entry` is its type, perhaps with its key.
    pub(crate) async fn state(&self, room: &str, user: &User, entry: &str) -> Answer {
        self.get(&in_room(room, &format!("/state/{entry}")), user)
            .await
    }

    /// Sends a text; the event's id.
    pub(crate) async fn say(&self, room: &str, user: &User, body: &str) -> String {
        // The clock moves with every message, so that its time is a transaction id of its own.
        self.clock.advance(Duration::from_millis(1));
        let path = in_room(room, &format!("/send/m.room.message/{}", self.clock.now()));
        let content = json!({ "msgtype": "m.text", "body": body });
        text(&self.put(&path, user, &content).await.ok()["event_id"])
    }
}

fn options() -> myelin_store::Options {
    myelin_store::Options {
        memory_budget: 64 << 20,
        product: myelin_data::PRODUCT,
        schema: myelin_data::SCHEMA,
        tables: myelin_data::tables(),
    }
}

fn user(body: &Value) -> User {
    User {
        id: text(&body["user_id"]),
        device: text(&body["device_id"]),
        token: text(&body["access_token"]),
    }
}

/// A string of a body.
#[track_caller]
pub(crate) fn text(value: &Value) -> String {
    value
        .as_str()
        .unwrap_or_else(|| panic!("{value} is no string"))
        .to_owned()
}

/// A path of a room.
pub(crate) fn in_room(room: &str, rest: &str) -> String {
    format!("/rooms/{}{rest}", encode(room))
}

/// The proof that somebody knows a user's password, for interactive authentication.
pub(crate) fn proof(user: &User, password: &str) -> Value {
    json!({
        "type": "m.login.password",
        "identifier": { "type": "m.id.user", "user": user.id },
        "password": password,
    })
}

/// A segment of a path, percent-encoded.
pub(crate) fn encode(segment: &str) -> String {
    segment
        .bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            byte => format!("%{byte:02X}"),
        })
        .collect()
}
