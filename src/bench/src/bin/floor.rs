//! `myelin-bench-floor`: what any server must at least do that answers a message when it is on the disk.
//!
//! An axum program that parses the body, builds, hashes and signs an event, writes it to RocksDB with a synced group
//! commit, and answers. No accounts, no authorisation, no state, no reads: whoever asks is let in, and nothing can be
//! read again over HTTP. It uses the libraries underneath Myelin directly and none of Myelin's crates, so that the
//! distance between the two is what Myelin adds. Not a homeserver, and of no use as one.

use std::{
    error::Error,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    time::SystemTime,
};

use axum::{
    Json, Router, extract,
    http::{HeaderMap, StatusCode, header},
    routing::{get, post, put},
};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};
use clap::Parser;
use mimalloc::MiMalloc;
use parking_lot::Mutex;
use ring::{digest, signature::Ed25519KeyPair};
use rocksdb::{
    ColumnFamilyDescriptor, DB, DBCompressionType, IteratorMode, WriteBatch, WriteOptions,
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::oneshot};

/// As Myelin has it, so that the difference is not the allocator's.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// The server's name in ids and signatures.
const NAME: &str = "floor";
/// Events by number: eight bytes, the most significant first.
const EVENTS: &str = "events";
/// Numbers by event id.
const IDS: &str = "ids";
/// Events that one write takes at most.
const GROUP: usize = 1024;

/// The floor under every homeserver: parses, hashes, signs, stores and answers.
#[derive(Parser)]
struct Arguments {
    /// Where to listen.
    #[arg(long, default_value = "127.0.0.1:8009")]
    listen: SocketAddr,
    /// Where the events go.
    #[arg(long)]
    data: PathBuf,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let floor = Floor::open(&arguments.data)?;
    let listener = TcpListener::bind(arguments.listen).await?;
    axum::serve(listener, router(floor)).await?;
    Ok(())
}

/// An event on its way to the disk.
struct Row {
    id: String,
    json: String,
    durable: oneshot::Sender<Result<(), rocksdb::Error>>,
}

struct Floor {
    key: Ed25519KeyPair,
    /// Id and depth of the newest event, which the next one names as its parent.
    last: Mutex<Option<(String, u64)>>,
    rooms: AtomicU64,
    queue: mpsc::Sender<Row>,
}

type Shared = extract::State<Arc<Floor>>;
type Answer = Result<Json<Value>, (StatusCode, String)>;

impl Floor {
    /// Opens the database in `data`, or makes it, and starts the thread that writes.
    fn open(data: &Path) -> Result<Arc<Floor>, Box<dyn Error>> {
        let mut options = rocksdb::Options::default();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        let families = [EVENTS, IDS].map(|name| {
            let mut options = rocksdb::Options::default();
            options.set_compression_type(DBCompressionType::Lz4);
            ColumnFamilyDescriptor::new(name, options)
        });
        let db = DB::open_cf_descriptors(&options, data, families)?;
        let mut newest_first = db.iterator_cf(family(&db, EVENTS), IteratorMode::End);
        let next = match newest_first.next() {
            Some(row) => u64::from_be_bytes(row?.0.as_ref().try_into()?) + 1,
            None => 0,
        };
        drop(newest_first);
        let (queue, rows) = mpsc::channel();
        std::thread::Builder::new()
            .name("writer".to_owned())
            .spawn(move || write(&db, next, &rows))?;
        Ok(Arc::new(Floor {
            // A key that everybody knows: nobody verifies these signatures, they only have to be made.
            key: Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("a seed has 32 bytes"),
            last: Mutex::new(None),
            rooms: AtomicU64::new(0),
            queue,
        }))
    }

    /// The id and the JSON of a new event: content hash, signature, reference hash.
    fn event(
        &self,
        (room, sender, kind): (&str, &str, &str),
        content: Value,
    ) -> serde_json::Result<(String, String)> {
        let last = self.last.lock().clone();
        let depth = last.as_ref().map_or(1, |(_, depth)| depth + 1);
        let mut event = json!({
            "room_id": room, "sender": sender, "type": kind, "content": content,
            "origin_server_ts": now(), "depth": depth, "auth_events": [],
            "prev_events": last.map(|(id, _)| id).as_slice(),
        });
        // serde_json's maps are sorted and its output has no spaces, which is all that this JSON needs to be canonical.
        let hash = STANDARD_NO_PAD.encode(sha256(&serde_json::to_vec(&event)?));
        event["hashes"] = json!({ "sha256": hash });
        // What is signed and what the id is a hash of is the redacted event: of a message no content remains.
        let content = std::mem::replace(&mut event["content"], json!({}));
        let redacted = serde_json::to_vec(&event)?;
        let id = format!("${}", URL_SAFE_NO_PAD.encode(sha256(&redacted)));
        let signature = STANDARD_NO_PAD.encode(self.key.sign(&redacted));
        event["content"] = content;
        event["signatures"] = json!({ NAME: { "ed25519:1": signature } });
        *self.last.lock() = Some((id.clone(), depth));
        Ok((id, serde_json::to_string(&event)?))
    }
}

fn sha256(text: &[u8]) -> digest::Digest {
    digest::digest(&digest::SHA256, text)
}

#[expect(
    clippy::disallowed_methods,
    reason = "the floor stands outside of Myelin's crates and has no clock of theirs"
)]
fn now() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.map_or(0, |now| now.as_millis() as u64)
}

fn family<'a>(db: &'a DB, name: &str) -> &'a rocksdb::ColumnFamily {
    db.cf_handle(name).expect("opened with this column family")
}

/// The writer's whole life: takes what is queued, writes it with one sync, and says so to everybody who waits.
fn write(db: &DB, mut next: u64, rows: &mpsc::Receiver<Row>) {
    let mut synced = WriteOptions::default();
    synced.set_sync(true);
    while let Ok(first) = rows.recv() {
        let group: Vec<Row> = std::iter::once(first)
            .chain(rows.try_iter().take(GROUP - 1))
            .collect();
        let mut batch = WriteBatch::default();
        for row in &group {
            batch.put_cf(family(db, EVENTS), next.to_be_bytes(), &row.json);
            batch.put_cf(family(db, IDS), &row.id, next.to_be_bytes());
            next += 1;
        }
        let written = db.write_opt(batch, &synced);
        for row in group {
            // Who has gone meanwhile needs no answer.
            row.durable.send(written.clone()).ok();
        }
    }
}

fn router(floor: Arc<Floor>) -> Router {
    let client = "/_matrix/client/v3";
    Router::new()
        .route(
            "/_matrix/client/versions",
            get(async || Json(json!({ "versions": ["v1.11"] }))),
        )
        .route(&format!("{client}/register"), post(register))
        .route(&format!("{client}/createRoom"), post(create_room))
        .route(&format!("{client}/join/{{room}}"), post(join))
        .route(&format!("{client}/rooms/{{room}}/join"), post(join))
        .route(
            &format!("{client}/rooms/{{room}}/send/{{type}}/{{txn}}"),
            put(send),
        )
        .with_state(floor)
}

/// The access token is the user id, so that there is nothing to remember.
async fn register(Json(body): Json<Value>) -> Json<Value> {
    let name = body["username"].as_str().unwrap_or("somebody");
    let user = format!("@{name}:{NAME}");
    Json(json!({ "user_id": user, "access_token": user, "device_id": "DEVICE" }))
}

async fn create_room(floor: Shared) -> Json<Value> {
    let number = floor.rooms.fetch_add(1, Ordering::Relaxed);
    Json(json!({ "room_id": format!("!{number}:{NAME}") }))
}

async fn join(extract::Path(room): extract::Path<String>) -> Json<Value> {
    Json(json!({ "room_id": room }))
}

async fn send(
    floor: Shared,
    extract::Path((room, kind, _)): extract::Path<(String, String, String)>,
    headers: HeaderMap,
    Json(content): Json<Value>,
) -> Answer {
    let token = headers.get(header::AUTHORIZATION);
    let token = token.and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    let from = (&*room, token.unwrap_or_default(), &*kind);
    let (id, json) = floor.event(from, content).map_err(failed)?;
    let answer = Json(json!({ "event_id": id }));
    let (durable, written) = oneshot::channel();
    let row = Row { id, json, durable };
    floor.queue.send(row).map_err(failed)?;
    written.await.map_err(failed)?.map_err(failed)?;
    Ok(answer)
}

fn failed(error: impl Error) -> (StatusCode, String) {
    (StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, time::Duration};

    use futures_util::future::join_all;
    use http_body_util::{BodyExt as _, Full};
    use hyper::{Request, client::conn::http1::handshake};
    use hyper_util::rt::TokioIo;
    use tokio::net::TcpStream;

    use super::*;

    /// Sends a message on a connection of its own, and answers its id.
    async fn say(address: SocketAddr, number: usize) -> String {
        let stream = TcpStream::connect(address).await.expect("it listens");
        let (mut requests, connection) = handshake(TokioIo::new(stream))
            .await
            .expect("it speaks HTTP");
        tokio::spawn(connection);
        let body = json!({ "msgtype": "m.text", "body": format!("message {number}") });
        let request = Request::put(format!(
            "/_matrix/client/v3/rooms/!0:floor/send/m.room.message/{number}"
        ))
        .header("host", NAME)
        .header("content-type", "application/json")
        .header("authorization", "Bearer @user:floor")
        .body(Full::new(bytes::Bytes::from(body.to_string())))
        .expect("the request is well formed");
        let response = requests.send_request(request).await.expect("it answers");
        assert_eq!(response.status(), StatusCode::OK);
        let body = response
            .into_body()
            .collect()
            .await
            .expect("the answer is whole")
            .to_bytes();
        let answer: Value = serde_json::from_slice(&body).expect("the answer is JSON");
        answer["event_id"]
            .as_str()
            .expect("it names the event")
            .to_owned()
    }

    /// Opens what a floor has left, which lets go of it when its writer has ended.
    async fn reopen(dir: &Path) -> DB {
        for _ in 0..1_000 {
            if let Ok(db) = DB::open_cf(&rocksdb::Options::default(), dir, [EVENTS, IDS]) {
                return db;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the database stays locked");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_was_answered_is_on_the_disk() {
        let dir = tempfile::tempdir().expect("temporary directories can be made");
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("there is a free port");
        let address = listener.local_addr().expect("it is bound");
        let floor = Floor::open(dir.path()).expect("the directory is empty");
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = axum::serve(listener, router(floor)).with_graceful_shutdown(async {
            stopped.await.ok();
        });
        let serving = tokio::spawn(async { serving.await });

        let ids: HashSet<String> = join_all((0..100).map(|number| say(address, number)))
            .await
            .into_iter()
            .collect();
        assert_eq!(ids.len(), 100);
        stop.send(()).expect("it is still serving");
        serving
            .await
            .expect("no panic")
            .expect("it ends in good order");

        let db = reopen(dir.path()).await;
        for id in &ids {
            let number = db
                .get_cf(family(&db, IDS), id)
                .expect("it can be read")
                .expect("it is there");
            let event = db
                .get_cf(family(&db, EVENTS), number)
                .expect("it can be read")
                .expect("it is there");
            let mut event: Value = serde_json::from_slice(&event).expect("events are JSON");
            assert_eq!(event["sender"], "@user:floor");
            event
                .as_object_mut()
                .expect("events are objects")
                .remove("signatures");
            event["content"] = json!({});
            let redacted = serde_json::to_vec(&event).expect("it was JSON");
            let hash = URL_SAFE_NO_PAD.encode(sha256(&redacted));
            assert_eq!(*id, format!("${hash}"));
        }
        drop(db);
        let floor = Floor::open(dir.path()).expect("it is the floor's own");
        drop(floor);
    }
}
