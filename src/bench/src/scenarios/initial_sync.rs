//! *initial_sync*: a user in 1,000 rooms (40 at least). Another one has created them, each as a public room; the user
//! joined, and then the creator sent 50 messages of a hundred bytes. The filter is a client's usual one: lazily loaded
//! members, 20 events a room, no presence.
//!
//! - `first`: the first `/sync` that the user ever makes, `first_bytes` its size, `cpu_first` the server's CPU for it.
//!   `first_other`: the same of a second user in the same rooms, right after; some servers keep for the second what they
//!   had to look up for the first.
//! - `first_cached`: the first user's very same request once more.
//! - `nothing_new` (the median) and `cpu_nothing_new`: incremental, `timeout=0`, without any news, one request after
//!   another for two seconds at least, twice. `nothing_new_tenth` and `cpu_nothing_new_tenth`: the same of a user in a
//!   tenth of the rooms, taken in turn with the other, to show whether they grow with the number of rooms;
//!   `cpu_resolution`: how exact the two are, since CPU time is counted in hundredths of a second.
//! - `one_event`: the median of 20 incremental requests that find one new message in one of the rooms, each time in
//!   another. `cpu_one_event`: the server's for such a request, from one of them repeated for two seconds at least, each
//!   time with another `timeout` so that no server takes it for a repetition.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;

use super::load::{LINE, Texts, next_tag, tags};
use crate::{
    bench::{Bench, BenchError, FILLERS},
    client::{Account, CallError, Filter, User, parsed},
    figures::Latencies,
};

/// Messages in each room.
const EVENTS: usize = 50;
/// Messages of each room in the first sync.
const TIMELINE: usize = 20;
/// How many times one new event is looked for.
const NEWS: usize = 20;
/// CPU time is counted in hundredths of a second: what is repeated for less has no meaning.
const REPETITION: Duration = Duration::from_secs(2);

pub(crate) async fn run(bench: &mut Bench<'_>) -> Result<(), BenchError> {
    let count = bench.sized(1_000, 40);
    bench.figure("size_rooms", count as f64, "rooms");
    let [mut creator, mut reader, mut other, mut tenth] = four(bench.fresh(4).await?)?;
    let rooms = {
        let readers = [reader.account(), other.account()];
        fill(bench, &creator, &readers, tenth.account(), count).await?
    };
    bench.people.syncer = Some(Arc::clone(reader.account()));

    // Some servers answer long before their readers can have what was sent.
    bench.calm().await;
    let filter = Filter::lazy(TIMELINE);
    let meter = bench.meter();
    let first = reader.sync(None, &filter, Duration::ZERO).await?;
    meter.cpu_of_each(bench, "cpu_first", 1);
    bench.figure("first", milliseconds(first.answer.took), "ms");
    bench.figure("first_bytes", first.answer.body.len() as f64, "bytes");
    check(&first.answer, count)?;
    let again = reader.sync(None, &filter, Duration::ZERO).await?;
    bench.figure("first_cached", milliseconds(again.answer.took), "ms");
    let others = other.sync(None, &filter, Duration::ZERO).await?;
    bench.figure("first_other", milliseconds(others.answer.took), "ms");
    drop(others);

    let length = (bench.length / 4).max(REPETITION);
    let mut all = Repeated::of(&mut reader, &filter, first.next_batch).await?;
    let since = tenth.sync(None, &filter, Duration::ZERO).await?.next_batch;
    let mut few = Repeated::of(&mut tenth, &filter, since).await?;
    for _ in 0..2 {
        all.nothing_new(bench, &mut reader, &filter, length).await?;
        few.nothing_new(bench, &mut tenth, &filter, length).await?;
    }
    bench.figure("nothing_new", all.latencies.quantile(0.5), "ms");
    bench.figure("nothing_new_tenth", few.latencies.quantile(0.5), "ms");
    all.write_cpu(bench, "cpu_nothing_new");
    few.write_cpu(bench, "cpu_nothing_new_tenth");
    // Of a tick of CPU time, as much as falls on one of the requests.
    let tick = 10.0 / few.latencies.count().min(all.latencies.count()).max(1) as f64;
    bench.figure("cpu_resolution", tick, "ms");

    one_event(bench, &mut creator, &mut reader, &rooms, all.since).await?;
    meter.peak(bench);
    Ok(())
}

fn four(users: Vec<User>) -> Result<[User; 4], BenchError> {
    let wrong = |_| BenchError::Wrong("there are not as many users as were asked for".to_owned());
    users.try_into().map_err(wrong)
}

/// Creates the rooms, lets the readers in (the last one into every tenth) and says something.
async fn fill(
    bench: &Bench<'_>,
    creator: &User,
    readers: &[&Arc<Account>],
    tenth: &Arc<Account>,
    count: usize,
) -> Result<Vec<String>, BenchError> {
    let (texts, rooms) = (Texts::new(LINE), Mutex::new(Vec::with_capacity(count)));
    let mut lanes: Vec<User> = (0..FILLERS).map(|_| creator.beside()).collect();
    let took = bench
        .fill(&mut lanes, count, async |lane, index| {
            let room = lane.create_room().await?;
            for reader in readers {
                lane.speak_as(reader);
                lane.join(&room).await?;
            }
            if index % 10 == 0 {
                lane.speak_as(tenth);
                lane.join(&room).await?;
            }
            lane.speak_as(creator.account());
            for _ in 0..EVENTS {
                lane.send(&room, &texts.of(next_tag())).await?;
            }
            rooms.lock().push(room);
            Ok::<_, CallError>(())
        })
        .await?;
    bench.say(&format!(
        "filled {count} rooms in {:.1} s",
        took.as_secs_f64()
    ));
    Ok(rooms.into_inner())
}

/// That the first sync says what it should, as far as all servers agree on it.
fn check(answer: &crate::http::Answer, rooms: usize) -> Result<(), BenchError> {
    let found = parsed(answer)["rooms"]["join"]
        .as_object()
        .map_or(0, serde_json::Map::len);
    if found != rooms {
        let wrong = format!("the first sync has {found} rooms, not {rooms}");
        return Err(BenchError::Wrong(wrong));
    }
    let (events, wanted) = (tags(&answer.body).count(), rooms * TIMELINE);
    if events != wanted {
        let wrong = format!("the first sync has {events} messages, not {wanted}");
        return Err(BenchError::Wrong(wrong));
    }
    Ok(())
}

/// The same request again and again.
struct Repeated {
    since: String,
    latencies: Latencies,
    cpu: Option<Duration>,
}

impl Repeated {
    /// Syncs until there is nothing new.
    async fn of(user: &mut User, filter: &Filter, since: String) -> Result<Self, BenchError> {
        let mut since = since;
        for _ in 0..20 {
            let synced = user.sync(Some(&since), filter, Duration::ZERO).await?;
            if synced.next_batch == since {
                break;
            }
            since = synced.next_batch;
        }
        Ok(Self {
            since,
            latencies: Latencies::new(),
            cpu: Some(Duration::ZERO),
        })
    }

    async fn nothing_new(
        &mut self,
        bench: &mut Bench<'_>,
        user: &mut User,
        filter: &Filter,
        length: Duration,
    ) -> Result<(), BenchError> {
        let cpu = bench.server.cpu();
        let begun = tokio::time::Instant::now();
        while begun.elapsed() < length {
            let synced = user.sync(Some(&self.since), filter, Duration::ZERO).await?;
            self.latencies.record(synced.answer.took);
            self.since = synced.next_batch;
        }
        let used = bench
            .server
            .cpu()
            .zip(cpu)
            .map(|(now, then)| now.saturating_sub(then));
        self.cpu = self.cpu.zip(used).map(|(before, used)| before + used);
        Ok(())
    }

    fn write_cpu(&self, bench: &mut Bench<'_>, metric: &str) {
        if let Some(cpu) = self.cpu {
            let each = milliseconds(cpu) / self.latencies.count().max(1) as f64;
            bench.figure(metric, each, "ms");
        }
    }
}

/// One new message in one room at a time.
async fn one_event(
    bench: &mut Bench<'_>,
    creator: &mut User,
    reader: &mut User,
    rooms: &[String],
    mut since: String,
) -> Result<(), BenchError> {
    let (texts, filter) = (Texts::new(LINE), Filter::lazy(TIMELINE));
    let mut found = Latencies::new();
    let mut before = since.clone();
    for room in rooms.iter().cycle().take(NEWS) {
        let tag = next_tag();
        creator.send(room, &texts.of(tag)).await?;
        before.clone_from(&since);
        let mut took = Duration::ZERO;
        loop {
            // Waits where a server answers a sender before its readers can have it.
            let synced = reader
                .sync(Some(&since), &filter, Duration::from_secs(5))
                .await?;
            took += synced.answer.took;
            since = synced.next_batch;
            if tags(&synced.answer.body).any(|seen| seen == tag) {
                break;
            }
            if took > Duration::from_mins(1) {
                let wrong = "a new message did not arrive within a minute";
                return Err(BenchError::Wrong(wrong.to_owned()));
            }
        }
        found.record(took);
    }
    bench.figure("one_event", found.quantile(0.5), "ms");

    let length = (bench.length / 4).max(REPETITION);
    let meter = bench.meter();
    let mut count = 0;
    while meter.wall() < length {
        count += 1;
        let wait = Duration::from_millis(count);
        let synced = reader.sync(Some(&before), &filter, wait).await?;
        if tags(&synced.answer.body).count() != 1 {
            let wrong = "the same sync had one event at first, and not when it was repeated";
            return Err(BenchError::Wrong(wrong.to_owned()));
        }
    }
    meter.cpu_of_each(bench, "cpu_one_event", count);
    Ok(())
}

pub(super) fn milliseconds(took: Duration) -> f64 {
    took.as_secs_f64() * 1e3
}
