//! Killing the server at random moments under load: what was answered is there, once.
//!
//! Senders repeat what was not answered with the same transaction id, as real clients do. Afterwards every event id that
//! was answered stands in the room exactly once, no message stands there twice, and a reader that synced across all
//! restarts saw each exactly once. `MYELIN_CRASH_KILLS` sets how often the server is killed (5 if it is not set).

use std::{
    collections::HashMap,
    net::TcpListener,
    process::{Child, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use reqwest::{Client, Method};
use serde_json::{Value, json};

use crate::process::Place;

const SENDERS: usize = 32;

/// The most time from the start of the program to its first answer.
const RESTART: Duration = Duration::from_secs(5);

pub(crate) fn kills() -> usize {
    std::env::var("MYELIN_CRASH_KILLS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(5)
}

/// A server that is killed and started again on the same data and port.
pub(crate) struct Victim {
    place: Place,
    port: u16,
    child: Child,
}

impl Victim {
    pub(crate) fn start() -> Victim {
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .expect("a port is free")
            .port();
        let place = Place::new();
        let child = run(&place, port);
        Victim { place, port, child }
    }

    pub(crate) fn base(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Kills the process, without a warning, and starts another.
    pub(crate) fn crash(&mut self) {
        self.child.kill().expect("the server runs");
        self.child.wait().expect("the server was killed");
        self.child = run(&self.place, self.port);
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn run(place: &Place, port: u16) -> Child {
    place
        .command(&[
            "serve",
            "--server-name",
            "localhost",
            "--listen",
            &format!("127.0.0.1:{port}"),
            "--set",
            "registration.mode=open",
            "--set",
            "rate_limits.enabled=false",
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program starts")
}

/// Waits until the server answers; how long that took.
pub(crate) async fn answers(client: &Client, base: &str) -> Duration {
    let begun = Instant::now();
    loop {
        let answer = client
            .get(format!("{base}/_matrix/client/versions"))
            .send()
            .await;
        if answer.is_ok_and(|answer| answer.status().is_success()) {
            return begun.elapsed();
        }
        assert!(begun.elapsed() < RESTART, "the server did not come back");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Makes a request until it is answered, whatever becomes of the server meanwhile.
pub(crate) async fn persist(
    client: &Client,
    method: Method,
    url: &str,
    token: &str,
    body: &Value,
) -> Value {
    loop {
        let mut request = client
            .request(method.clone(), url)
            .bearer_auth(token)
            .timeout(Duration::from_secs(40));
        if method != Method::GET {
            request = request.json(body);
        }
        if let Ok(answer) = request.send().await {
            let status = answer.status();
            if let Ok(body) = answer.json::<Value>().await {
                assert!(status.is_success(), "{status} {body}");
                return body;
            }
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) async fn register(client: &Client, base: &str, name: &str) -> String {
    let body = json!({
        "username": name,
        "password": "a long enough password",
        "auth": { "type": "m.login.dummy" },
    });
    let answer = client
        .post(format!("{base}/_matrix/client/v3/register"))
        .json(&body)
        .send()
        .await
        .expect("the server answers");
    let answer: Value = answer.json().await.expect("the answer is JSON");
    answer["access_token"]
        .as_str()
        .unwrap_or_else(|| panic!("no token: {answer}"))
        .to_owned()
}

pub(crate) fn text(value: &Value) -> String {
    value.as_str().expect("a string").to_owned()
}

/// The event ids that senders were answered.
type Answered = Arc<Mutex<Vec<String>>>;

async fn send_until(
    client: Client,
    base: String,
    room: String,
    token: String,
    sender: usize,
    stop: Arc<AtomicBool>,
    answered: Answered,
) {
    let mut number = 0;
    while !stop.load(Ordering::SeqCst) {
        let url = format!("{base}/_matrix/client/v3/rooms/{room}/send/m.room.message/{number}");
        let body = json!({ "msgtype": "m.text", "body": format!("{sender}/{number}") });
        let answer = persist(&client, Method::PUT, &url, &token, &body).await;
        answered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(text(&answer["event_id"]));
        number += 1;
    }
}

/// Syncs until it has seen `last`; how often each event of the room was seen.
async fn read_until(
    client: Client,
    base: String,
    room_id: String,
    token: String,
    since: String,
    last: Arc<Mutex<Option<String>>>,
) -> HashMap<String, usize> {
    let filter = json!({ "room": { "timeline": { "limit": 1000 } } });
    let room = encode(&room_id);
    let mut since = since;
    let mut seen: HashMap<String, usize> = HashMap::new();
    loop {
        let url = format!(
            "{base}/_matrix/client/v3/sync?timeout=2000&since={since}&filter={}",
            encode(&filter.to_string())
        );
        let answer = persist(&client, Method::GET, &url, &token, &Value::Null).await;
        let joined = &answer["rooms"]["join"][&room_id];
        let timeline = &joined["timeline"];
        let mut events: Vec<Value> = timeline["events"].as_array().cloned().unwrap_or_default();
        if timeline["limited"] == true {
            let from = text(&timeline["prev_batch"]);
            events.extend(gap(&client, &base, &room, &token, &from, &since).await);
        }
        for event in events {
            *seen.entry(text(&event["event_id"])).or_default() += 1;
        }
        since = text(&answer["next_batch"]);
        let last = last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if last.is_some_and(|last| seen.contains_key(&last)) {
            return seen;
        }
    }
}

/// The events between two tokens, as a client fills the gap of a limited timeline.
async fn gap(
    client: &Client,
    base: &str,
    room: &str,
    token: &str,
    from: &str,
    to: &str,
) -> Vec<Value> {
    let mut events = Vec::new();
    let mut from = from.to_owned();
    loop {
        let url = format!(
            "{base}/_matrix/client/v3/rooms/{room}/messages?dir=b&limit=1000&from={from}&to={to}"
        );
        let page = persist(client, Method::GET, &url, token, &Value::Null).await;
        let chunk = page["chunk"].as_array().cloned().unwrap_or_default();
        events.extend(chunk);
        match page["end"].as_str() {
            Some(end) => end.clone_into(&mut from),
            None => return events,
        }
    }
}

fn encode(text: &str) -> String {
    myelin_testkit::encoded(text)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_answered_survives_being_killed() {
    let client = myelin_testkit::http_client();
    let mut victim = Victim::start();
    let base = victim.base();
    answers(&client, &base).await;

    let reader = register(&client, &base, "reader").await;
    let create = json!({ "preset": "public_chat" });
    let url = format!("{base}/_matrix/client/v3/createRoom");
    let room_id = text(&persist(&client, Method::POST, &url, &reader, &create).await["room_id"]);
    let room = encode(&room_id);
    let mut senders = Vec::new();
    for sender in 0..SENDERS {
        let token = register(&client, &base, &format!("sender{sender}")).await;
        let url = format!("{base}/_matrix/client/v3/rooms/{room}/join");
        persist(&client, Method::POST, &url, &token, &json!({})).await;
        senders.push(token);
    }
    let url = format!("{base}/_matrix/client/v3/sync");
    let first = persist(&client, Method::GET, &url, &reader, &Value::Null).await;
    let since = text(&first["next_batch"]);

    let answered = Answered::default();
    let stop = Arc::new(AtomicBool::new(false));
    let last = Arc::new(Mutex::new(None));
    let reading = tokio::spawn(read_until(
        client.clone(),
        base.clone(),
        room_id.clone(),
        reader.clone(),
        since.clone(),
        Arc::clone(&last),
    ));
    let sending: Vec<_> = senders
        .into_iter()
        .enumerate()
        .map(|(sender, token)| {
            tokio::spawn(send_until(
                client.clone(),
                base.clone(),
                room.clone(),
                token,
                sender,
                Arc::clone(&stop),
                Arc::clone(&answered),
            ))
        })
        .collect();

    let mut slowest = Duration::ZERO;
    for kill in 0..kills() {
        // Moments between 60 and 360 ms after the last start, spread without a pattern that meets the server's own.
        let pause = 60 + (kill * 7919) % 301;
        tokio::time::sleep(Duration::from_millis(pause as u64)).await;
        victim.crash();
        slowest = slowest.max(answers(&client, &base).await);
    }
    stop.store(true, Ordering::SeqCst);
    for task in sending {
        task.await.expect("a sender ends well");
    }
    let url = format!("{base}/_matrix/client/v3/rooms/{room}/send/m.room.message/last");
    let end = json!({ "msgtype": "m.text", "body": "the end" });
    let end = text(&persist(&client, Method::PUT, &url, &reader, &end).await["event_id"]);
    *last.lock().unwrap_or_else(PoisonError::into_inner) = Some(end.clone());
    let seen = reading.await.expect("the reader ends well");

    let answered = answered
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    let from = text(
        &persist(
            &client,
            Method::GET,
            &format!("{base}/_matrix/client/v3/sync"),
            &reader,
            &Value::Null,
        )
        .await["next_batch"],
    );
    let history = gap(&client, &base, &room, &reader, &from, &since).await;
    let mut stored: HashMap<String, usize> = HashMap::new();
    let mut bodies: HashMap<String, usize> = HashMap::new();
    for event in &history {
        *stored.entry(text(&event["event_id"])).or_default() += 1;
        *bodies.entry(text(&event["content"]["body"])).or_default() += 1;
    }
    for event_id in &answered {
        assert_eq!(stored.get(event_id), Some(&1), "{event_id} in the room");
        assert_eq!(seen.get(event_id), Some(&1), "{event_id} at the reader");
    }
    assert!(
        bodies.values().all(|count| *count == 1),
        "a message is doubled"
    );
    assert_eq!(
        seen.len(),
        stored.len(),
        "the reader saw what is in the room"
    );
    assert!(
        seen.values().all(|count| *count == 1),
        "the reader saw an event twice"
    );
    assert!(answered.len() > kills(), "hardly anything was sent");
    #[expect(
        clippy::print_stderr,
        reason = "the figures are what the test is run by hand for"
    )]
    {
        eprintln!(
            "{} kills, {} messages answered and checked, slowest restart {} ms",
            kills(),
            answered.len(),
            slowest.as_millis(),
        );
    }
}
