//! *state_churn*: 20,000 state events (500 at least) of a type of our own in one room, by four users on a connection each.
//! Half of them have a state key that is new; every other one overwrites the value of an earlier key.
//!
//! `answer_*`, `throughput` and `cpu` (the server's for each) are those of setting them. The server is stopped and started
//! before and after, so that its log is in its files; `disk_per_state_event` is what its data grew by, divided by their
//! number. `event_json` is the average size of such an event in the client's format as the server gives it back: what the
//! event itself needs, about (hashes, signatures and references to other events are not in it, but what it replaced is).

use serde_json::json;

use super::load::{Chance, LINE, Texts, event_json, next_tag};
use crate::{
    bench::{Bench, BenchError},
    client::User,
    figures::Latencies,
};

const SENDERS: usize = 4;
const TYPE: &str = "org.example.bench.entry";

/// Somebody who sets state.
struct Lane {
    user: User,
    latencies: Latencies,
}

pub(crate) async fn run(bench: &mut Bench<'_>) -> Result<(), BenchError> {
    let count = bench.sized(20_000, 500);
    bench.figure("size_events", count as f64, "state events");
    let mut users = bench.users(SENDERS).await?;
    let anybody = json!({ "power_level_content_override": { "events": { TYPE: 0 } } });
    let room = users[0].create_room_as(anybody).await?;
    for user in &mut users[1..] {
        user.join(&room).await?;
    }
    bench.restart().await?;
    let disk = bench.server.disk();

    let texts = Texts::new(LINE);
    let mut lanes: Vec<Lane> = users.into_iter().map(Lane::new).collect();
    let meter = bench.meter();
    let took = bench
        .fill(&mut lanes, count, async |lane, index| {
            let key = format!("entry-{}", key(index));
            let content = json!({ "value": texts.of(next_tag()) });
            let answer = lane.user.set_state(&room, TYPE, &key, &content).await?;
            lane.latencies.record(answer.took);
            Ok(())
        })
        .await?;
    let mut latencies = Latencies::new();
    for lane in &lanes {
        latencies.add(&lane.latencies);
    }
    bench.figure("throughput", count as f64 / took.as_secs_f64(), "events/s");
    bench.answers(&latencies);
    meter.close(bench, count as u64);

    bench.restart().await?;
    bench.disk_of_each("disk_per_state_event", disk, count as u64);
    let size = event_json(&mut lanes[0].user, &room).await?;
    bench.figure("event_json", size, "bytes");
    Ok(())
}

impl Lane {
    fn new(user: User) -> Self {
        Self {
            user,
            latencies: Latencies::new(),
        }
    }
}

/// The number of the key that the event `index` sets: a new one, or one of those before.
fn key(index: usize) -> usize {
    if index.is_multiple_of(2) {
        index
    } else {
        Chance(index as u64).below(index / 2 + 1) * 2
    }
}
