//! *big_room*: a public room with 10,000 members (200 at least), each joined through the API. Nobody syncs.
//!
//! - `fill_joins`: joins a second while it was filled, 16 at once.
//! - `answer_*` and `cpu`: messages of a kilobyte by two of the members, each on four connections; `cpu_small_room`: the
//!   same two with the same connections in a room where nobody else is. Both are taken twice in turn.
//! - `members`: all of `/members`, the median of three; `members_bytes` its size.
//! - `join`: the joins of five more users, the median. `first`: the first `/sync` of three of them, who are in no other
//!   room, with lazily loaded members; the median.
//! - `peak_rss` over all that.

use std::time::Duration;

use super::{
    initial_sync::milliseconds,
    load::{KILOBYTE, Sender, Texts, send},
    median,
};
use crate::{
    bench::{Bench, BenchError, FILLERS},
    client::{CallError, Filter, User},
    figures::Latencies,
};

/// Connections of each of the two senders.
const CONNECTIONS: usize = 4;
/// How long at least is sent in one go.
const SHORTEST: Duration = Duration::from_secs(3);

pub(crate) async fn run(bench: &mut Bench<'_>) -> Result<(), BenchError> {
    let count = bench.sized(10_000, 200);
    bench.figure("size_members", count as f64, "members");
    let accounts = bench.accounts(count).await?.to_vec();
    let mut pair: Vec<User> = bench.users(2).await?;
    let room = pair[0].create_room().await?;
    let small = pair[0].create_room().await?;
    pair[1].join(&small).await?;

    let meter = bench.meter();
    let mut lanes: Vec<User> = (0..FILLERS).map(|_| pair[0].beside()).collect();
    let took = bench
        .fill(&mut lanes, count - 1, async |lane, index| {
            lane.speak_as(&accounts[index + 1]);
            lane.join(&room).await?;
            Ok::<_, CallError>(())
        })
        .await?;
    bench.figure(
        "fill_joins",
        (count - 1) as f64 / took.as_secs_f64(),
        "joins/s",
    );

    bench.calm().await;
    messages(bench, &pair, &room, &small).await?;
    members(bench, &mut pair[0], &room, count).await?;
    newcomers(bench, &room).await?;
    meter.peak(bench);
    Ok(())
}

/// Sends into the big and into the small room in turn.
async fn messages(
    bench: &mut Bench<'_>,
    pair: &[User],
    big: &str,
    small: &str,
) -> Result<(), BenchError> {
    let texts = Texts::new(KILOBYTE);
    let senders = |room: &str| -> Vec<Sender> {
        let users = pair.iter().cycle().take(pair.len() * CONNECTIONS);
        let senders = users.map(|user| Sender {
            user: user.beside(),
            room: room.to_owned(),
            texts: texts.clone(),
        });
        senders.collect()
    };
    let length = (bench.length / 4).max(SHORTEST);
    let mut figures = Vec::new();
    for room in [big, small] {
        let (senders, _) = send(senders(room), Duration::from_secs(1), None).await?;
        figures.push((senders, Latencies::new(), Some(Duration::ZERO)));
    }
    for _ in 0..2 {
        for (senders, latencies, cpu) in &mut figures {
            let before = bench.server.cpu();
            let (back, took) = send(std::mem::take(senders), length, None).await?;
            let used = bench
                .server
                .cpu()
                .zip(before)
                .map(|(now, then)| now.saturating_sub(then));
            *cpu = cpu.zip(used).map(|(sum, used)| sum + used);
            *senders = back;
            latencies.add(&took);
        }
    }
    bench.answers(&figures[0].1);
    for (metric, (_, latencies, cpu)) in ["cpu", "cpu_small_room"].into_iter().zip(&figures) {
        if let Some(cpu) = cpu {
            let each = milliseconds(*cpu) / latencies.count().max(1) as f64;
            bench.figure(metric, each, "ms");
        }
    }
    Ok(())
}

async fn members(
    bench: &mut Bench<'_>,
    member: &mut User,
    room: &str,
    count: usize,
) -> Result<(), BenchError> {
    let (mut took, mut bytes) = (Vec::new(), 0);
    for _ in 0..3 {
        let (found, answer) = member.members(room).await?;
        if found != count {
            let wrong = format!("`/members` has {found}, not {count}");
            return Err(BenchError::Wrong(wrong));
        }
        took.push(milliseconds(answer.took));
        bytes = answer.body.len();
    }
    bench.figure("members", median(took), "ms");
    bench.figure("members_bytes", bytes as f64, "bytes");
    Ok(())
}

/// More members, and what they see first.
async fn newcomers(bench: &mut Bench<'_>, room: &str) -> Result<(), BenchError> {
    let filter = Filter::lazy(20);
    let (mut joins, mut firsts) = (Vec::new(), Vec::new());
    for (index, mut user) in bench.fresh(5).await?.into_iter().enumerate() {
        joins.push(milliseconds(user.join(room).await?.took));
        if index < 3 {
            let synced = user.sync(None, &filter, Duration::ZERO).await?;
            firsts.push(milliseconds(synced.answer.took));
        }
    }
    bench.figure("join", median(joins), "ms");
    bench.figure("first", median(firsts), "ms");
    Ok(())
}
