//! Another server, as far as the tests need one: its keys and a few answers, over TLS on loopback.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode, Uri},
    response::{IntoResponse, Response},
    routing::{get, post, put},
};
use myelin_accounts::Accounts;
use myelin_config::{Config, Federation as Settings};
use myelin_data::Interner;
use myelin_e2ee::E2ee;
use myelin_rooms::Rooms;
use myelin_rules::{Object, Signer, SigningKey};
use myelin_store::Store;
use myelin_types::{Clock, Millis, MockClock, Random, SeededRandom};
use parking_lot::Mutex;
use ruma::{OwnedServerName, owned_server_name};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    Federation, Parts,
    auth::{Authorization, Signed},
};

/// When the tests take place.
pub(crate) const NOW: Millis = Millis(1_700_000_000_000);

/// Another server.
pub(crate) struct Other {
    pub(crate) name: OwnedServerName,
    pub(crate) signer: Arc<Signer>,
    /// How often it was asked for its keys.
    pub(crate) asked: Arc<AtomicUsize>,
    /// Whether it refuses to show its keys.
    pub(crate) silent: Arc<AtomicBool>,
    /// What it shows in the place of its keys.
    pub(crate) keys: Arc<Mutex<Object>>,
    /// What it vouches for as a notary, and what it was asked.
    pub(crate) vouched: Arc<Mutex<Vec<Object>>>,
    pub(crate) questions: Arc<Mutex<Vec<Value>>>,
    /// Its certificate's authority, PEM.
    authority: PathBuf,
    _dir: TempDir,
    handle: axum_server::Handle<SocketAddr>,
}

#[derive(Clone)]
struct Answers {
    asked: Arc<AtomicUsize>,
    silent: Arc<AtomicBool>,
    keys: Arc<Mutex<Object>>,
    vouched: Arc<Mutex<Vec<Object>>>,
    questions: Arc<Mutex<Vec<Value>>>,
    ours: OwnedServerName,
    our_key: [u8; 32],
    name: OwnedServerName,
}

/// The name of the server under test.
pub(crate) fn our_name() -> OwnedServerName {
    owned_server_name!("here.example")
}

/// The signer of the server under test.
pub(crate) fn our_signer() -> Arc<Signer> {
    let key = SigningKey::from_seed("here", [1; 32]);
    Arc::new(Signer::new(our_name().as_str(), key))
}

/// A server's keys, signed by it.
pub(crate) fn key_document(signer: &Signer, valid_until: u64, old: Value) -> Object {
    let document = json!({
        "server_name": signer.server_name(),
        "verify_keys": { signer.key().id(): { "key": signer.key().public_key() } },
        "old_verify_keys": old,
        "valid_until_ts": valid_until,
    });
    let mut document = document.as_object().expect("an object").clone();
    signer.sign_json(&mut document).expect("it can be signed");
    document
}

impl Other {
    /// Starts one that is called `localhost` and a port.
    pub(crate) async fn start() -> Other {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("a socket option");
        let port = listener.local_addr().expect("it is bound").port();
        let name = OwnedServerName::try_from(format!("localhost:{port}")).expect("a server name");
        let key = SigningKey::from_seed("there", [2; 32]);
        let signer = Arc::new(Signer::new(name.as_str(), key));
        let document = key_document(&signer, NOW.0 + 1_000_000, json!({}));

        let answers = Answers {
            asked: Arc::default(),
            silent: Arc::default(),
            keys: Arc::new(Mutex::new(document)),
            vouched: Arc::default(),
            questions: Arc::default(),
            ours: our_name(),
            our_key: our_signer().key().public_key_bytes(),
            name: name.clone(),
        };
        let router = Router::new()
            .route("/_matrix/key/v2/server", get(keys))
            .route("/_matrix/key/v2/query", post(vouch))
            .route(
                "/_matrix/federation/v1/get_missing_events/{room}",
                post(missing_events),
            )
            .route("/_matrix/federation/v1/event/{event}", get(event))
            .route("/_matrix/federation/v1/send/{id}", put(send))
            .route("/_matrix/federation/v1/state_ids/{room}", get(state_ids))
            .with_state(answers.clone());

        let dir = tempfile::tempdir().expect("a temporary directory");
        let certified = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])
            .expect("a certificate can be made");
        let authority = dir.path().join("authority.pem");
        std::fs::write(&authority, certified.cert.pem()).expect("a file can be written");
        let tls = axum_server::tls_rustls::RustlsConfig::from_pem(
            certified.cert.pem().into_bytes(),
            certified.signing_key.serialize_pem().into_bytes(),
        )
        .await
        .expect("the certificate fits its key");
        let handle = axum_server::Handle::new();
        let server = axum_server::from_tcp_rustls(listener, tls)
            .expect("the socket is bound")
            .handle(handle.clone())
            .serve(router.into_make_service());
        tokio::spawn(server);
        Other {
            name,
            signer,
            asked: answers.asked,
            silent: answers.silent,
            keys: answers.keys,
            vouched: answers.vouched,
            questions: answers.questions,
            authority,
            _dir: dir,
            handle,
        }
    }

    /// How often it was asked for its keys.
    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    /// Settings with which it can be reached.
    pub(crate) fn settings(&self) -> Settings {
        Settings {
            enabled: true,
            ca_certificates: vec![self.authority.clone()],
            trusted_key_servers: Vec::new(),
            allow_private_addresses: ["127.0.0.0/8", "::1"]
                .map(|network| network.parse().expect("a network"))
                .to_vec(),
            ..Settings::default()
        }
    }

    /// The header with which it signs a request to the server under test.
    pub(crate) fn sign(&self, request: Signed<'_>) -> Authorization {
        request
            .sign(&self.name, self.signer.key(), &our_name())
            .expect("it can be signed")
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        self.handle.shutdown();
    }
}

/// The server under test.
pub(crate) struct Here {
    pub(crate) store: Store,
    pub(crate) clock: Arc<MockClock>,
    pub(crate) rooms: Rooms,
    accounts: Accounts,
    pub(crate) random: Arc<dyn Random>,
    _dir: TempDir,
}

impl Here {
    pub(crate) async fn new() -> Here {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let options = myelin_store::Options {
            memory_budget: 32 << 20,
            product: myelin_data::PRODUCT,
            schema: myelin_data::SCHEMA,
            tables: myelin_data::tables(),
        };
        let store = Store::open(dir.path(), options).expect("a new directory opens");
        let interner = Interner::open(store.clone()).await.expect("opens");
        let clock = Arc::new(MockClock::new(NOW));
        let random: Arc<dyn Random> = Arc::new(SeededRandom::new(1));
        let rooms = Rooms::open(
            store.clone(),
            interner.clone(),
            our_signer(),
            our_name(),
            Arc::clone(&clock) as Arc<dyn Clock>,
            Arc::clone(&random),
            myelin_rooms::Options::default(),
        );
        let config = Config::for_server(our_name());
        let accounts = Accounts::open(
            store.clone(),
            interner,
            Arc::clone(&clock) as Arc<dyn Clock>,
            Arc::clone(&random),
            myelin_accounts::Settings::new(our_name(), &config.registration, &config.accounts),
        )
        .expect("the accounts open");
        Here {
            store,
            clock,
            rooms,
            accounts,
            random,
            _dir: dir,
        }
    }

    /// Its federation, as it is after a start with these settings.
    pub(crate) fn federation(&self, settings: &Settings) -> Federation {
        let parts = Parts {
            server_name: our_name(),
            signer: our_signer(),
            memory: crate::MEMORY,
            store: self.store.clone(),
            rooms: self.rooms.clone(),
            accounts: self.accounts.clone(),
            e2ee: E2ee::new(
                self.rooms.clone(),
                Arc::clone(&self.clock) as Arc<dyn Clock>,
                Arc::clone(&self.random),
            ),
            clock: Arc::clone(&self.clock) as Arc<dyn Clock>,
            random: Arc::clone(&self.random),
        };
        Federation::new(settings, parts).expect("the settings are good")
    }
}

async fn keys(State(answers): State<Answers>) -> Response {
    answers.asked.fetch_add(1, Ordering::SeqCst);
    if answers.silent.load(Ordering::SeqCst) {
        return StatusCode::BAD_GATEWAY.into_response();
    }
    axum::Json(answers.keys.lock().clone()).into_response()
}

async fn vouch(
    State(answers): State<Answers>,
    axum::Json(question): axum::Json<Value>,
) -> Response {
    answers.questions.lock().push(question);
    axum::Json(json!({ "server_keys": *answers.vouched.lock() })).into_response()
}

impl Answers {
    /// Whether a request is signed by the server under test and for this one.
    fn believes(
        &self,
        method: &str,
        uri: &Uri,
        headers: &HeaderMap,
        content: Option<&Value>,
    ) -> bool {
        let header = headers["authorization"].to_str().expect("it is printable");
        let authorization = Authorization::parse(header).expect("it is well formed");
        let signed = Signed {
            method,
            uri: uri.path_and_query().expect("a path").as_str(),
            content,
        };
        headers["host"] == self.name.as_str()
            && authorization.origin == self.ours
            && authorization.destination.as_deref() == Some(&*self.name)
            && signed.verify(&authorization, &self.name, &self.our_key)
    }
}

async fn missing_events(
    State(answers): State<Answers>,
    uri: Uri,
    headers: HeaderMap,
    axum::Json(body): axum::Json<Value>,
) -> Response {
    if !answers.believes("POST", &uri, &headers, Some(&body)) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    axum::Json(json!({ "events": [{ "asked": body }] })).into_response()
}

async fn send(
    State(answers): State<Answers>,
    uri: Uri,
    headers: HeaderMap,
    axum::Json(body): axum::Json<Value>,
) -> Response {
    if !answers.believes("PUT", &uri, &headers, Some(&body)) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    axum::Json(json!({ "pdus": {} })).into_response()
}

async fn event(State(answers): State<Answers>, uri: Uri, headers: HeaderMap) -> Response {
    if !answers.believes("GET", &uri, &headers, None) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let refusal = json!({ "errcode": "M_NOT_FOUND", "error": "No such event." });
    (StatusCode::NOT_FOUND, axum::Json(refusal)).into_response()
}

async fn state_ids(State(answers): State<Answers>, uri: Uri, headers: HeaderMap) -> Response {
    if !answers.believes("GET", &uri, &headers, None) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    axum::Json(json!({ "pdu_ids": ["$a"], "auth_chain_ids": 1 })).into_response()
}
