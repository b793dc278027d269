//! *send* and *send_many_rooms*: messages of a kilobyte, each sender waiting for its answer before it sends the next.
//!
//! Two measurements. In the first nobody syncs: `throughput`, `answer_*` and `cpu` are the write path alone. In the second
//! somebody long-polls `/sync` meanwhile, and `to_sync_*` is the time from the beginning of a request to the arrival of its
//! event there. Then the server is stopped and started, so that its log is in its files, and `disk_per_event` is the growth
//! of its data over both, a message each.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::future::try_join_all;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::{
    bench::{Bench, BenchError},
    client::{CallError, User, parsed},
    figures::Latencies,
};

/// The size of a message's text in bytes: about a kilobyte of event.
const TEXT: usize = 1_000;
/// Events in the reader's answers; what one answer does not hold is a gap and is not counted.
const TIMELINE: usize = 5_000;
/// How long is sent before anything is measured.
const WARM_UP: Duration = Duration::from_secs(3);

/// `senders` users in `rooms` rooms, evenly spread. The floor has no `/sync` and no rooms to speak of; its second
/// measurement is left out.
pub(crate) async fn run(
    bench: &mut Bench<'_>,
    rooms: usize,
    senders: usize,
) -> Result<(), BenchError> {
    let mut users = bench.users(senders + 1).await?;
    let Some(mut reader) = users.pop() else {
        return Ok(());
    };
    let has_sync = bench.server.name != "floor";
    let rooms = fill(&mut users, &mut reader, rooms, has_sync).await?;
    let senders: Vec<(User, String)> = users.into_iter().zip(rooms.iter().cycle().cloned()).collect();

    let (senders, _) = send(senders, WARM_UP, None).await?;
    restart(bench).await?;
    let disk = bench.server.disk();

    let meter = bench.meter();
    let (senders, latencies) = send(senders, bench.length, None).await?;
    let seconds = meter.wall().as_secs_f64();
    let mut sent = latencies.count();
    bench.figure("throughput", sent as f64 / seconds, "events/s");
    bench.answers(&latencies);
    meter.close(bench, sent);

    if has_sync {
        let arrivals = Arrivals::default();
        let reading = arrivals.read(reader).await?;
        let (_, latencies) = send(senders, bench.length / 2, Some(&arrivals)).await?;
        sent += latencies.count();
        let seen = reading.finish(&arrivals).await?;
        bench.figure("to_sync_p50", seen.quantile(0.5), "ms");
        bench.figure("to_sync_p99", seen.quantile(0.99), "ms");
        bench.figure("to_sync_seen", seen.count() as f64 / latencies.count() as f64, "share");
    }

    restart(bench).await?;
    if let (Some(before), Some(after)) = (disk, bench.server.disk()) {
        let grown = after.saturating_sub(before) as f64;
        bench.figure("disk_per_event", grown / sent as f64, "bytes");
    }
    Ok(())
}

/// Creates the rooms and lets everybody in.
async fn fill(
    users: &mut [User],
    reader: &mut User,
    count: usize,
    has_sync: bool,
) -> Result<Vec<String>, CallError> {
    let mut rooms = Vec::with_capacity(count);
    for creator in users.iter_mut().take(count) {
        rooms.push(creator.create_room().await?);
    }
    for (index, user) in users.iter_mut().enumerate().skip(count) {
        user.join(&rooms[index % count]).await?;
    }
    if has_sync {
        for room in &rooms {
            reader.join(room).await?;
        }
    }
    Ok(rooms)
}

/// Lets every sender send into its room until `length` is over, and gives the senders back.
async fn send(
    senders: Vec<(User, String)>,
    length: Duration,
    arrivals: Option<&Arrivals>,
) -> Result<(Vec<(User, String)>, Latencies), BenchError> {
    let end = Instant::now() + length;
    let tasks = senders.into_iter().map(|(mut user, room)| {
        let arrivals = arrivals.cloned();
        tokio::spawn(async move {
            let mut latencies = Latencies::new();
            while Instant::now() < end {
                let (tag, begun) = (next_tag(), Instant::now());
                let text = format!("{tag:020}{}", "x".repeat(TEXT - 20));
                if let Some(arrivals) = &arrivals {
                    arrivals.sent.lock().insert(tag, begun);
                }
                latencies.record(user.send(&room, &text).await?.took);
            }
            Ok::<_, CallError>((user, room, latencies))
        })
    });
    let mut all = Latencies::new();
    let mut senders = Vec::new();
    for done in try_join_all(tasks).await? {
        let (user, room, latencies) = done?;
        all.add(&latencies);
        senders.push((user, room));
    }
    Ok((senders, all))
}

/// A number for each message, by which its arrival is recognised.
fn next_tag() -> u64 {
    static TAGS: AtomicU64 = AtomicU64::new(1);
    TAGS.fetch_add(1, Ordering::Relaxed)
}

/// What is on its way from senders to the reader.
#[derive(Clone, Default)]
struct Arrivals {
    sent: Arc<Mutex<HashMap<u64, Instant>>>,
    over: Arc<AtomicBool>,
}

impl Arrivals {
    /// Catches up, then goes on reading beside.
    async fn read(&self, mut reader: User) -> Result<Reading, BenchError> {
        let filter = format!(
            r#"{{"room":{{"timeline":{{"limit":{TIMELINE}}},"state":{{"lazy_load_members":true}}}},"presence":{{"not_types":["*"]}}}}"#
        );
        let all = r#"{"room":{"timeline":{"limit":1}}}"#;
        let mut since = reader.sync(None, all, Duration::ZERO).await?.next_batch;
        let arrivals = self.clone();
        let task = tokio::spawn(async move {
            let mut seen = Latencies::new();
            while !arrivals.over.load(Ordering::Relaxed) {
                let wait = Duration::from_secs(1);
                let synced = reader.sync(Some(&since), &filter, wait).await?;
                let arrived = Instant::now();
                let tags = tags(&parsed(&synced.answer));
                let mut sent = arrivals.sent.lock();
                for tag in tags {
                    if let Some(begun) = sent.remove(&tag) {
                        seen.record(arrived - begun);
                    }
                }
                since = synced.next_batch;
            }
            Ok(seen)
        });
        Ok(Reading(task))
    }
}

/// A reader at work.
struct Reading(tokio::task::JoinHandle<Result<Latencies, CallError>>);

impl Reading {
    /// Waits until everything has arrived, ten seconds at most.
    async fn finish(self, arrivals: &Arrivals) -> Result<Latencies, BenchError> {
        let end = Instant::now() + Duration::from_secs(10);
        while Instant::now() < end && !arrivals.sent.lock().is_empty() {
            sleep(Duration::from_millis(20)).await;
        }
        arrivals.over.store(true, Ordering::Relaxed);
        Ok(self.0.await??)
    }
}

/// The tags of the messages in a sync's answer.
fn tags(answer: &Value) -> Vec<u64> {
    let rooms = answer["rooms"]["join"].as_object();
    let events = rooms
        .into_iter()
        .flat_map(|rooms| rooms.values())
        .filter_map(|room| room["timeline"]["events"].as_array())
        .flatten();
    events
        .filter_map(|event| event["content"]["body"].as_str()?.get(..20)?.parse().ok())
        .collect()
}

/// Puts what the server holds in memory into its files.
async fn restart(bench: &mut Bench<'_>) -> Result<(), BenchError> {
    if bench.server.is_ours() {
        bench.server.stop().await?;
        bench.server.start().await?;
    }
    Ok(())
}
