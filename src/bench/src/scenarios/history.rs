//! *history*: a room of 100,000 messages (2,000 at least) of a hundred bytes by 32 senders, paged back with
//! `/messages?dir=b&limit=100` from the end to the beginning, one page after another.
//!
//! `answer_*` is the time of a page, `throughput` the events a second, `cpu` the server's for a page. The whole way is gone
//! again until five seconds are over, so that there is enough to be measured; where the first time takes longer than four
//! times the length of a measurement it is given up there, and the figures are those of the pages so far. Every message
//! that was sent must come exactly once. `fill` is how fast the messages were sent (events a second), with nobody syncing.

use std::{collections::HashSet, time::Duration};

use tokio::time::Instant;

use super::load::{LINE, Texts, next_tag, tags};
use crate::{
    bench::{Bench, BenchError},
    client::User,
    figures::Latencies,
};

const SENDERS: usize = 32;
const PAGE: usize = 100;
const SHORTEST: Duration = Duration::from_secs(5);

pub(crate) async fn run(bench: &mut Bench<'_>) -> Result<(), BenchError> {
    let count = bench.sized(100_000, 2_000);
    bench.figure("size_events", count as f64, "messages");
    let mut senders = bench.users(SENDERS).await?;
    let room = senders[0].create_room().await?;
    for sender in &mut senders[1..] {
        sender.join(&room).await?;
    }
    let texts = Texts::new(LINE);
    let took = bench
        .fill(&mut senders, count, async |sender, _| {
            sender.send(&room, &texts.of(next_tag())).await?;
            Ok(())
        })
        .await?;
    bench.figure("fill", count as f64 / took.as_secs_f64(), "events/s");

    bench.calm().await;
    let mut reader = senders.swap_remove(0);
    let end = Instant::now() + bench.length * 4;
    let mut pages = Latencies::new();
    let (meter, mut events) = (bench.meter(), 0);
    loop {
        let walked = walk(&mut reader, &room, end, &mut pages).await?;
        events += walked.seen.len();
        if walked.repeated > 0 {
            let wrong = format!("{} of the messages came more than once", walked.repeated);
            return Err(BenchError::Wrong(wrong));
        }
        if !walked.whole {
            bench.say(&format!("given up after {events} of {count} events"));
            break;
        }
        if walked.seen.len() != count {
            let wrong = format!("{} of {count} messages came", walked.seen.len());
            return Err(BenchError::Wrong(wrong));
        }
        if meter.wall() > SHORTEST {
            break;
        }
    }
    let seconds = meter.wall().as_secs_f64();
    bench.figure("throughput", events as f64 / seconds, "events/s");
    bench.answers(&pages);
    meter.close(bench, pages.count());
    Ok(())
}

/// What came on the way from the end to the beginning.
struct Walked {
    seen: HashSet<u64>,
    repeated: usize,
    whole: bool,
}

async fn walk(
    reader: &mut User,
    room: &str,
    end: Instant,
    pages: &mut Latencies,
) -> Result<Walked, BenchError> {
    let mut walked = Walked {
        seen: HashSet::new(),
        repeated: 0,
        whole: true,
    };
    let mut from: Option<String> = None;
    loop {
        let page = reader.messages(room, from.as_deref(), PAGE).await?;
        pages.record(page.answer.took);
        for tag in tags(&page.answer.body) {
            walked.repeated += usize::from(!walked.seen.insert(tag));
        }
        // Some servers end with a page that leads to itself.
        if page.end.is_none() || page.end == from {
            return Ok(walked);
        }
        if Instant::now() > end {
            walked.whole = false;
            return Ok(walked);
        }
        from = page.end;
    }
}
