//! Finding servers, with a name server and TLS servers of the test's own on loopback.

use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use axum_server::tls_rustls::RustlsConfig;
use hickory_resolver::proto::{
    op::{Message, MessageType, ResponseCode},
    rr::{
        Name, RData, Record,
        rdata::{A, SRV},
    },
};
use http::Method;
use myelin_rules::{Signer, SigningKey};
use myelin_types::{Clock, MockClock, Random, SeededRandom};
use parking_lot::Mutex;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use ruma::{OwnedServerName, owned_server_name};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::UdpSocket;

use super::route::Ports;
use crate::{
    client::{Call, Client, ClientParts, RequestError},
    dns::Dns,
    guard::Guard,
    testing::NOW,
    tls::client_config,
};

/// What a server answers to `/.well-known/matrix/server`.
#[derive(Clone)]
enum WellKnown {
    Document(&'static str, &'static str),
    Redirect(String),
    Status(u16),
}

#[derive(Clone)]
struct Answers {
    label: &'static str,
    well_known: Arc<Mutex<WellKnown>>,
    /// How often it was asked for its `.well-known`.
    asked: Arc<Mutex<usize>>,
}

/// The records of the name server.
#[derive(Default)]
struct Zone {
    records: HashMap<String, Vec<RData>>,
    silent: bool,
}

/// A small internet: a name server, an authority, and servers at loopback addresses of their own.
struct World {
    zone: Arc<Mutex<Zone>>,
    dns: SocketAddr,
    issuer: Issuer<'static, KeyPair>,
    authority: PathBuf,
    clock: Arc<MockClock>,
    ports: Ports,
    next: u8,
    _reserved: [TcpListener; 2],
    _dir: TempDir,
}

impl World {
    async fn new() -> World {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let zone: Arc<Mutex<Zone>> = Arc::default();
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a free port");
        let dns = socket.local_addr().expect("it is bound");
        tokio::spawn(serve_names(socket, Arc::clone(&zone)));

        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key can be made");
        let certificate = params.self_signed(&key).expect("a certificate");
        let authority = dir.path().join("authority.pem");
        std::fs::write(&authority, certificate.pem()).expect("a file can be written");
        // The two ports that stand for 8448 and 443, free at the addresses of the servers as well.
        let reserve = || TcpListener::bind("127.0.0.1:0").expect("a free port");
        let reserved = [reserve(), reserve()];
        let port = |listener: &TcpListener| listener.local_addr().expect("it is bound").port();
        World {
            zone,
            dns,
            issuer: Issuer::new(params, key),
            authority,
            clock: Arc::new(MockClock::new(NOW)),
            ports: Ports {
                matrix: port(&reserved[0]),
                web: port(&reserved[1]),
            },
            next: 2,
            _reserved: reserved,
            _dir: dir,
        }
    }

    fn record(&self, name: &str, data: RData) {
        let mut zone = self.zone.lock();
        zone.records.entry(name.to_owned()).or_default().push(data);
    }

    fn service(&self, name: &str, priority: u16, port: u16, target: &str) {
        let target = Name::from_ascii(format!("{target}.")).expect("a name");
        let srv = SRV::new(priority, 1, port, target);
        self.record(name, RData::SRV(srv));
    }

    /// A server with an address of its own, at the two ports and a third, which it returns with a handle on its answers. Its
    /// certificate is for `certified`, and `name` leads to it.
    async fn server(&mut self, name: &'static str, certified: &[&str]) -> (u16, Answers) {
        let ip = Ipv4Addr::new(127, 0, 0, self.next);
        self.next += 1;
        self.record(name, RData::A(A(ip)));
        let mut names: Vec<String> = certified.iter().map(ToString::to_string).collect();
        names.push(ip.to_string());
        let params = CertificateParams::new(names).expect("valid names");
        let key = KeyPair::generate().expect("a key can be made");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let tls = RustlsConfig::from_pem(
            certificate.pem().into_bytes(),
            key.serialize_pem().into_bytes(),
        )
        .await
        .expect("the certificate fits its key");
        let answers = Answers {
            label: name,
            well_known: Arc::new(Mutex::new(WellKnown::Status(404))),
            asked: Arc::default(),
        };
        let mut third = 0;
        for port in [self.ports.matrix, self.ports.web, 0] {
            let listener = TcpListener::bind((ip, port)).expect("a port of a test's own address");
            listener.set_nonblocking(true).expect("a socket option");
            third = listener.local_addr().expect("it is bound").port();
            let router = Router::new()
                .route("/.well-known/matrix/server", get(well_known))
                .route("/elsewhere", get(well_known))
                .route("/who", get(who))
                .with_state(answers.clone());
            let server = axum_server::from_tcp_rustls(listener, tls.clone());
            let server = server.expect("the socket is bound");
            tokio::spawn(server.serve(router.into_make_service()));
        }
        (third, answers)
    }

    /// A server under test that may connect to these networks.
    fn client(&self, allowed: &[&str]) -> Client {
        let allowed = allowed.iter().map(|text| text.parse().expect("a network"));
        let random: Arc<dyn Random> = Arc::new(SeededRandom::new(1));
        let origin = owned_server_name!("here.example");
        let key = SigningKey::from_seed("1", [1; 32]);
        Client::new(ClientParts {
            memory: crate::memory::Shares::of(crate::MEMORY),
            enabled: true,
            signer: Arc::new(Signer::new(origin.as_str(), key)),
            origin,
            clock: Arc::clone(&self.clock) as Arc<dyn Clock>,
            random,
            guard: Guard::new(allowed.collect()),
            dns: Dns::at(self.dns),
            tls: client_config(std::slice::from_ref(&self.authority)).expect("our authority"),
            ports: self.ports,
        })
    }
}

/// Answers with the records of the zone.
async fn serve_names(socket: UdpSocket, zone: Arc<Mutex<Zone>>) {
    let mut buffer = [0; 1500];
    while let Ok((length, peer)) = socket.recv_from(&mut buffer).await {
        let Ok(asked) = Message::from_vec(&buffer[..length]) else {
            continue;
        };
        let Some(query) = asked.queries.first().cloned() else {
            continue;
        };
        let answer = {
            let zone = zone.lock();
            if zone.silent {
                continue;
            }
            let name = query.name().to_ascii();
            let records = zone.records.get(name.trim_end_matches('.'));
            let mut answer = Message::response(asked.metadata.id, asked.metadata.op_code);
            answer.metadata.message_type = MessageType::Response;
            if records.is_none() {
                answer.metadata.response_code = ResponseCode::NXDomain;
            }
            for data in records.into_iter().flatten() {
                if data.record_type() == query.query_type() {
                    // No age, so that each question reaches this server.
                    let record = Record::from_rdata(query.name().clone(), 0, data.clone());
                    answer.answers.push(record);
                }
            }
            answer.queries.push(query);
            answer.to_vec().expect("records have a form")
        };
        socket.send_to(&answer, peer).await.ok();
    }
}

async fn well_known(State(answers): State<Answers>) -> Response {
    *answers.asked.lock() += 1;
    match answers.well_known.lock().clone() {
        WellKnown::Document(body, age) => ([(header::CACHE_CONTROL, age)], body).into_response(),
        WellKnown::Redirect(to) => (StatusCode::FOUND, [(header::LOCATION, to)]).into_response(),
        WellKnown::Status(status) => StatusCode::from_u16(status)
            .expect("a status")
            .into_response(),
    }
}

async fn who(State(answers): State<Answers>, headers: HeaderMap) -> Response {
    let host = headers["host"].to_str().expect("it is printable");
    axum::Json(json!({ "server": answers.label, "host": host })).into_response()
}

/// Who answers for a server name, and with which `Host` header it was asked.
async fn ask(client: &Client, name: &str) -> Result<(String, String), RequestError> {
    let name = OwnedServerName::try_from(name).expect("a server name");
    let call = Call {
        method: &Method::GET,
        path: &["who"],
        query: &[],
        content: None,
        signed: true,
        limit: 1000,
        timeout: Duration::from_secs(30),
    };
    let body = client.send(&name, call).await?;
    let body: Value = serde_json::from_slice(&body).expect("JSON");
    let text = |key: &str| body[key].as_str().expect("a string").to_owned();
    Ok((text("server"), text("host")))
}

#[track_caller]
fn check(found: Result<(String, String), RequestError>, server: &str, host: &str) {
    let found = found.expect("the server is found");
    assert_eq!((found.0.as_str(), found.1.as_str()), (server, host));
}

const ALL: &[&str] = &["127.0.0.0/8"];

#[tokio::test]
async fn names_with_a_port_and_addresses_are_not_delegated() {
    let mut world = World::new().await;
    let (port, answers) = world.server("a.example", &["a.example"]).await;
    let client = world.client(ALL);
    let named = format!("a.example:{port}");
    check(ask(&client, &named).await, "a.example", &named);
    check(ask(&client, "127.0.0.2").await, "a.example", "127.0.0.2");
    let literal = format!("127.0.0.2:{port}");
    check(ask(&client, &literal).await, "a.example", &literal);
    assert_eq!(*answers.asked.lock(), 0);
}

#[tokio::test]
async fn a_name_without_records_is_at_the_default_port() {
    let mut world = World::new().await;
    world.server("a.example", &["a.example"]).await;
    let client = world.client(ALL);
    check(ask(&client, "a.example").await, "a.example", "a.example");
    let missing = ask(&client, "nobody.example").await;
    assert!(matches!(missing, Err(RequestError::NoPublicAddress)));
}

#[tokio::test]
async fn a_document_delegates_in_every_form() {
    let mut world = World::new().await;
    let (_, answers) = world.server("a.example", &["a.example"]).await;
    let (port, _) = world.server("b.example", &["b.example"]).await;
    let (third, _) = world.server("c.example", &["b.example"]).await;
    let client = world.client(ALL);
    let delegate = |body: String| {
        // No document is kept for longer than five minutes here.
        world.clock.advance(Duration::from_mins(6));
        let body = String::leak(format!("{{\"m.server\": \"{body}\"}}"));
        *answers.well_known.lock() = WellKnown::Document(body, "no-store");
    };
    delegate(format!("b.example:{port}"));
    let host = format!("b.example:{port}");
    check(ask(&client, "a.example").await, "b.example", &host);
    delegate("127.0.0.3".to_owned());
    check(ask(&client, "a.example").await, "b.example", "127.0.0.3");
    delegate("b.example".to_owned());
    check(ask(&client, "a.example").await, "b.example", "b.example");
    world.clock.advance(Duration::from_mins(6));
    world.service("_matrix-fed._tcp.b.example", 1, third, "c.example");
    let client = world.client(ALL);
    check(ask(&client, "a.example").await, "c.example", "b.example");
}

#[tokio::test]
async fn records_lead_to_other_hosts_that_prove_to_be_the_name() {
    let mut world = World::new().await;
    world.record("a.example", RData::A(A(Ipv4Addr::new(127, 0, 0, 200))));
    let (old, _) = world.server("old.example", &["a.example"]).await;
    let (new, _) = world.server("new.example", &["a.example"]).await;
    let (false_, _) = world.server("false.example", &["false.example"]).await;

    world.service("_matrix._tcp.a.example", 1, old, "old.example");
    check(
        ask(&world.client(ALL), "a.example").await,
        "old.example",
        "a.example",
    );
    // The registered name goes first. Its most wanted target is not there, and the next does not prove to be `a.example`.
    let fed = "_matrix-fed._tcp.a.example";
    world.service(fed, 30, new, "new.example");
    world.service(fed, 10, new, "nobody.example");
    world.service(fed, 20, false_, "false.example");
    check(
        ask(&world.client(ALL), "a.example").await,
        "new.example",
        "a.example",
    );
}

#[tokio::test]
async fn a_server_may_say_that_it_does_not_federate() {
    let mut world = World::new().await;
    world.server("a.example", &["a.example"]).await;
    world.record(
        "_matrix-fed._tcp.a.example",
        RData::SRV(SRV::new(0, 0, 0, Name::root())),
    );
    let refused = ask(&world.client(ALL), "a.example").await;
    assert!(matches!(refused, Err(RequestError::NoPublicAddress)));
}

#[tokio::test]
async fn a_certificate_of_another_is_none() {
    let mut world = World::new().await;
    world.server("a.example", &["b.example"]).await;
    let refused = ask(&world.client(ALL), "a.example").await;
    let Err(RequestError::Unreachable(error)) = refused else {
        panic!("it should not be believed: {refused:?}");
    };
    let error = crate::chain(&error);
    assert!(error.contains("certificate"), "{error}");
}

#[tokio::test]
async fn redirects_are_followed_as_far_as_the_guard_lets_them() {
    let mut world = World::new().await;
    let (_, front) = world.server("a.example", &["a.example"]).await;
    let (_, web) = world.server("www.example", &["www.example"]).await;
    let (port, _) = world.server("b.example", &["b.example"]).await;
    *front.well_known.lock() =
        WellKnown::Redirect("https://www.example/.well-known/matrix/server".to_owned());
    let body = String::leak(format!("{{\"m.server\": \"b.example:{port}\"}}"));
    *web.well_known.lock() = WellKnown::Document(body, "max-age=600");
    let host = format!("b.example:{port}");
    check(
        ask(&world.client(ALL), "a.example").await,
        "b.example",
        &host,
    );
    assert_eq!(*web.asked.lock(), 1);

    let guarded = world.client(&["127.0.0.2", "127.0.0.4"]);
    check(ask(&guarded, "a.example").await, "a.example", "a.example");
    assert_eq!(*web.asked.lock(), 1, "a neighbour is not called upon");
    let outside = ask(&world.client(&[]), "a.example").await;
    assert!(matches!(outside, Err(RequestError::NoPublicAddress)));

    *front.well_known.lock() = WellKnown::Redirect("/elsewhere".to_owned());
    *front.asked.lock() = 0;
    check(
        ask(&world.client(ALL), "a.example").await,
        "a.example",
        "a.example",
    );
    assert_eq!(*front.asked.lock(), 6, "a loop has an end");
}

#[tokio::test]
async fn documents_are_remembered_and_outlive_a_failure() {
    let mut world = World::new().await;
    let (_, answers) = world.server("a.example", &["a.example"]).await;
    let (port, _) = world.server("b.example", &["b.example"]).await;
    let client = world.client(ALL);
    let body = String::leak(format!("{{\"m.server\": \"b.example:{port}\"}}"));
    *answers.well_known.lock() = WellKnown::Document(body, "max-age=3600");
    let host = format!("b.example:{port}");
    let together = futures_util::future::join_all((0..10).map(|_| ask(&client, "a.example")));
    for found in together.await {
        check(found, "b.example", &host);
    }
    assert_eq!(*answers.asked.lock(), 1, "one look-up for all who wait");

    world.clock.advance(Duration::from_mins(61));
    *answers.well_known.lock() = WellKnown::Status(502);
    for _ in 0..3 {
        check(ask(&client, "a.example").await, "b.example", &host);
    }
    assert_eq!(*answers.asked.lock(), 2, "a failure is remembered too");
    // Not asked for longer and longer, up to an hour.
    let asked = |from: usize| *answers.asked.lock() - from;
    world.clock.advance(Duration::from_secs(61));
    check(ask(&client, "a.example").await, "b.example", &host);
    world.clock.advance(Duration::from_secs(61));
    check(ask(&client, "a.example").await, "b.example", &host);
    assert_eq!(asked(2), 1, "the second rest is longer");
    world.clock.advance(Duration::from_hours(49));
    check(ask(&client, "a.example").await, "a.example", "a.example");

    // Who says that there is no document any more is believed at once.
    *answers.well_known.lock() = WellKnown::Document(body, "max-age=3600");
    world.clock.advance(Duration::from_hours(2));
    check(ask(&client, "a.example").await, "b.example", &host);
    *answers.well_known.lock() = WellKnown::Status(404);
    world.clock.advance(Duration::from_hours(2));
    check(ask(&client, "a.example").await, "a.example", "a.example");
}

#[tokio::test]
async fn what_was_found_lasts_while_name_servers_are_silent() {
    let mut world = World::new().await;
    let (port, _) = world.server("b.example", &["a.example"]).await;
    world.record("a.example", RData::A(A(Ipv4Addr::new(127, 0, 0, 200))));
    world.service("_matrix-fed._tcp.a.example", 1, port, "b.example");
    let client = world.client(ALL);
    check(ask(&client, "a.example").await, "b.example", "a.example");
    world.zone.lock().silent = true;
    world.clock.advance(Duration::from_mins(5));
    let route = client.dialer.routes.matrix("a.example").await;
    let route = route.expect("it is remembered");
    let connection = client.dialer.connect(&route).await;
    assert!(connection.is_ok(), "{:?}", connection.err());

    world.clock.advance(Duration::from_hours(25));
    let route = client.dialer.routes.matrix("a.example").await;
    let route = route.expect("the default is always there");
    assert_eq!(route.targets[0].port, world.ports.matrix);
    let unknown = client.dialer.dns.addresses("unknown.example").await;
    assert!(matches!(unknown, Err(crate::DnsError::Failed { .. })));
}
