//! A room with many members on one server is entered by another, in a process of its own, which is killed while it fetches
//! them.
//!
//! `MYELIN_JOIN_MEMBERS` sets how many members the room has (300 if it is not set), `MYELIN_JOIN_KILLS` how often the server
//! is killed (2). What a join of a large room costs is seen with `MYELIN_JOIN_MEMBERS=20000 MYELIN_JOIN_KILLS=0` in a build
//! with optimisations, and `--nocapture`.

use std::{
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use myelin_rooms::{Enter, JsonObject, Profile};
use myelin_testkit::{Client, Federated, PASSWORD, ReservedPort, TestServer, encoded};
use ruma::{OwnedRoomId, OwnedUserId};
use serde_json::{Value, json};
use tokio::{task::JoinSet, time::timeout};

use crate::process::Place;

/// How long anything may take that is waited for.
const PATIENCE: Duration = Duration::from_mins(5);
/// How many members join at a time.
const AT_ONCE: usize = 64;

fn setting(name: &str, otherwise: usize) -> usize {
    let value = std::env::var(name).ok();
    value
        .and_then(|text| text.parse().ok())
        .unwrap_or(otherwise)
}

/// The server that enters.
struct Joiner {
    place: Place,
    child: Child,
    url: String,
    _ports: [ReservedPort; 2],
}

impl Joiner {
    async fn start(servers: &Federated) -> Joiner {
        let ports = [ReservedPort::take(), ReservedPort::take()];
        let [http, https] = [&ports[0], &ports[1]].map(|port| port.address().to_string());
        let authority = servers.authority();
        let (certificate, key) = authority.issue_files("joiner", &["localhost", "127.0.0.1"]);
        let place = Place::new();
        let settings = format!(
            r#"
            [server]
            name = "localhost:{}"
            data_dir = "data"
            [listen]
            addresses = ["{http}"]
            tls_addresses = ["{https}"]
            tls_certificate = '{}'
            tls_private_key = '{}'
            [registration]
            mode = "open"
            [rate_limits]
            enabled = false
            [federation]
            ca_certificates = ['{}']
            trusted_key_servers = []
            allow_private_addresses = ["127.0.0.0/8"]
            "#,
            ports[1].port(),
            certificate.display(),
            key.display(),
            authority.certificate().display(),
        );
        std::fs::write(place.join("myelin.toml"), settings).expect("a file can be written");
        let joiner = Joiner {
            child: run(&place),
            place,
            url: format!("http://{http}"),
            _ports: ports,
        };
        joiner.answers().await;
        joiner
    }

    /// Waits until it answers.
    async fn answers(&self) {
        let http = myelin_testkit::http_client();
        let url = format!("{}/_matrix/client/versions", self.url);
        let answers = async {
            while http.get(&url).send().await.is_err() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, answers).await.expect("it starts");
    }

    async fn register(&self, name: &str, server: &TestServer) -> Client {
        let anonymous = server.anonymous().at(self.url.clone());
        let request = json!({
            "username": name, "password": PASSWORD, "auth": { "type": "m.login.dummy" },
        });
        let path = "/_matrix/client/v3/register";
        let body = anonymous.post(path, &request).await.ok();
        let [user, device, token] = ["user_id", "device_id", "access_token"]
            .map(|key| body[key].as_str().expect("a string").to_owned());
        anonymous.with_session(user, device, token)
    }

    /// Kills it without a warning, and starts another on the same data.
    async fn crash(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it was killed");
        self.child = run(&self.place);
        self.answers().await;
    }
}

impl Drop for Joiner {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn run(place: &Place) -> Child {
    place
        .command(&["serve", "--config", "myelin.toml"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program starts")
}

/// Makes so many users of a server join a room.
async fn fill(server: &TestServer, room: &str, count: usize) {
    let rooms = &server.server().state().rooms;
    let room = OwnedRoomId::try_from(room).expect("a room id");
    let mut joins = JoinSet::new();
    for number in 0..count {
        if joins.len() >= AT_ONCE {
            joins.join_next().await;
        }
        let user = server.user_id(&format!("member{number}"));
        let enter = Enter {
            room_id: room.clone(),
            user: OwnedUserId::try_from(user).expect("a user id"),
            profile: Profile {
                displayname: Some(format!("Member {number}")),
                avatar_url: None,
            },
            reason: None,
            extra: JsonObject::new(),
        };
        let rooms = rooms.clone();
        joins.spawn(async move { rooms.join(enter).await.expect("anybody may join") });
    }
    joins.join_all().await;
}

async fn members(client: &Client, room: &str) -> Vec<String> {
    let path = format!("/_matrix/client/v3/rooms/{}/joined_members", encoded(room));
    let answer = client.get(&path).await.ok();
    let members = answer["joined"].as_object().expect("an object");
    let mut members: Vec<String> = members.keys().cloned().collect();
    members.sort_unstable();
    members
}

/// Waits until a client that loads members lazily is shown the room.
async fn shown(client: &Client, room: &str) {
    let filter = json!({ "room": { "state": { "lazy_load_members": true } } });
    let filter = format!("filter={}", encoded(&filter.to_string()));
    let awaiting = async {
        let mut since: Option<String> = None;
        loop {
            let query = format!("timeout=2000&{filter}");
            let body = client.sync_with(since.as_deref(), &query).await;
            if body["rooms"]["join"][room].is_object() {
                return;
            }
            since = body["next_batch"].as_str().map(str::to_owned);
        }
    };
    timeout(PATIENCE, awaiting).await.expect("it is shown");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_is_completed_by_a_server_that_is_killed_meanwhile() {
    let count = setting("MYELIN_JOIN_MEMBERS", 300);
    let kills = setting("MYELIN_JOIN_KILLS", 2);
    let servers = Federated::start(1).await;
    let alice = servers[0].register("alice").await;
    let room = alice.create_room(&json!({ "preset": "public_chat" })).await;
    fill(&servers[0], &room, count).await;
    let mut joiner = Joiner::start(&servers).await;
    let bob = joiner.register("bob", &servers[0]).await;

    let begun = Instant::now();
    let via = encoded(servers[0].name().as_str());
    let join = myelin_testkit::http_client()
        .post(format!(
            "{}/_matrix/client/v3/join/{}?via={via}",
            joiner.url,
            encoded(&room)
        ))
        .bearer_auth(bob.access_token().expect("he is logged in"))
        .json(&json!({}));
    let join = tokio::spawn(join.send());
    shown(&bob, &room).await;
    let entered = begun.elapsed();
    let mut said = Vec::new();
    for number in 0..kills {
        joiner.crash().await;
        said.push(bob.say(&room, &number.to_string()).await);
    }
    if kills == 0 {
        let answer = join.await.expect("no panic").expect("the server answers");
        assert!(answer.status().is_success());
        said.push(bob.say(&room, "Hello").await);
    }
    let usable = begun.elapsed();
    let expected = members(&alice, &room).await;
    assert_eq!(expected.len(), count + 2);
    assert_eq!(members(&bob, &room).await, expected);
    let complete = begun.elapsed();
    // Clients that load all members are shown the room, with each of them once.
    let sync = bob.sync(None).await;
    let room_shown = &sync["rooms"]["join"][&room];
    let events = ["state", "timeline"].map(|part| room_shown[part]["events"].as_array());
    let joins = events.into_iter().flatten().flatten();
    let joins = joins.filter(|event| event["content"]["membership"] == "join");
    assert_eq!(joins.count(), count + 2);
    for event in said {
        let path = |room: &str| {
            let event = encoded(&event);
            format!("/_matrix/client/v3/rooms/{}/event/{event}", encoded(room))
        };
        let there = async {
            while alice.get(&path(&room)).await.status != 200 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, there)
            .await
            .expect("it reaches the other server");
        let here: Value = bob.get(&path(&room)).await.ok();
        assert_eq!(here["sender"], bob.user_id());
    }
    #[expect(
        clippy::print_stderr,
        reason = "the figures are what the test is run by hand for"
    )]
    {
        eprintln!(
            "{count} members, {kills} kills: shown after {} ms, usable after {} ms, complete after {} ms",
            entered.as_millis(),
            usable.as_millis(),
            complete.as_millis(),
        );
    }
}
