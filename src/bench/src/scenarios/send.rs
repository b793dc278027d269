//! *send* and *send_many_rooms*: messages of a kilobyte, each sender waiting for its answer before it sends the next. In
//! *send* 32 senders are in one room; in *send_many_rooms* each is alone in one of 100 rooms (32 at least, however small
//! the scale).
//!
//! Two measurements after a warm-up.
//!
//! In the first nobody syncs, so that it is the write path alone: `throughput` (answered events a second), `answer_*` (from
//! the request's first byte to the answer's last), `cpu` (of the server, for each event), `driver_cpu` (of the driver,
//! which shares the cores with the server) and `peak_rss`.
//!
//! In the second somebody who is in all the rooms long-polls `/sync` meanwhile. `to_sync_*` is the time from the beginning
//! of a request to the arrival of its event there, `to_sync_seen` the share of the events that arrived at all within ten
//! seconds of the end, and `to_sync_skipped` the share that stood in no answer since the room had more news than the server
//! puts into one; those count as arrived with the answer that left them out.
//!
//! Then the server is stopped and started, so that its log is in its files, as it was before the warm-up. `disk_per_event`
//! is what its data grew by over all that, divided by the number of messages. `event_json` is the average size of such a
//! message as a client gets it.

use std::time::Duration;

use super::{
    arrivals::Arrivals,
    load::{KILOBYTE, Sender, Texts, event_json, send},
};
use crate::{
    bench::{Bench, BenchError},
    client::{CallError, User},
};

/// How long is sent before anything is measured.
const WARM_UP: Duration = Duration::from_secs(3);

/// `senders` users in `rooms` rooms, evenly spread. The floor has no `/sync` and no rooms to speak of; its second
/// measurement is left out.
pub(crate) async fn run(
    bench: &mut Bench<'_>,
    rooms: usize,
    senders: usize,
) -> Result<(), BenchError> {
    bench.figure("size_senders", senders as f64, "senders");
    bench.figure("size_rooms", rooms as f64, "rooms");
    let mut users = bench.users(senders + 1).await?;
    let Some(mut reader) = users.pop() else {
        return Ok(());
    };
    let has_sync = bench.server.name != "floor";
    let rooms = fill(&mut users, &mut reader, rooms, has_sync).await?;
    let texts = Texts::new(KILOBYTE);
    let senders = users.into_iter().zip(rooms.iter().cycle());
    let senders = senders.map(|(user, room)| Sender {
        user,
        room: room.clone(),
        texts: texts.clone(),
    });
    let senders = senders.collect();

    bench.restart().await?;
    let disk = bench.server.disk();
    // After the restart, since caches are cold and connections closed.
    let (senders, warm) = send(senders, WARM_UP, None).await?;

    let meter = bench.meter();
    let (senders, latencies) = send(senders, bench.length, None).await?;
    let (seconds, count) = (meter.wall().as_secs_f64(), latencies.count());
    meter.driver(bench, count);
    bench.figure("throughput", count as f64 / seconds, "events/s");
    bench.answers(&latencies);
    meter.close(bench, count);
    let mut sent = warm.count() + count;

    if has_sync {
        let arrivals = Arrivals::default();
        let reading = arrivals.read(reader).await?;
        let (mut senders, latencies) = send(senders, bench.length / 2, Some(&arrivals)).await?;
        let seen = reading.finish(&arrivals).await?;
        let count = latencies.count();
        sent += count;
        let share = |number: u64| number as f64 / count.max(1) as f64;
        bench.figure("to_sync_p50", seen.latencies.quantile(0.5), "ms");
        bench.figure("to_sync_p99", seen.latencies.quantile(0.99), "ms");
        bench.figure("to_sync_seen", share(seen.latencies.count()), "share");
        bench.figure("to_sync_skipped", share(seen.skipped), "share");
        if let Some(Sender { user, room, .. }) = senders.first_mut() {
            let size = event_json(user, room).await?;
            bench.figure("event_json", size, "bytes");
        }
    }

    bench.restart().await?;
    bench.disk_of_each("disk_per_event", disk, sent);
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
