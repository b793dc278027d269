//! *fan_out*: one room with 500 local members (50 at least), every one of them waiting in an incremental `/sync`
//! (`timeout` 30 s) on a connection of its own. One more member sends 20 messages of a kilobyte; the next only when all
//! have the one before, and after a pause in which they ask again.
//!
//! `to_sync_*` is the time from the beginning of the request to the arrival of the message's answer at the *last* member,
//! over the messages; `answer_*` the time of the sending request itself; `cpu` the server's for each message, with the
//! asking again of all members. The driver takes 500 answers off the same cores meanwhile, so that its own work is a part of
//! `to_sync_*`: `driver_cpu` says how much for each message. Fewer messages are sent where they take longer than four times
//! the length of a measurement, but five at least.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use super::load::{KILOBYTE, Texts, next_tag, tags};
use crate::{
    bench::{Bench, BenchError},
    client::{CallError, Filter, User},
    figures::Latencies,
};

const MESSAGES: u64 = 20;
/// Fewer than these say nothing.
const FEWEST: u64 = 5;
/// How long a member's request waits for news.
const WAIT: Duration = Duration::from_secs(30);
/// How long a message may be on its way to the last member.
const PATIENCE: Duration = Duration::from_mins(2);

pub(crate) async fn run(bench: &mut Bench<'_>) -> Result<(), BenchError> {
    let count = bench.sized(500, 50);
    bench.figure("size_members", count as f64, "members");
    let mut members = bench.users(count + 1).await?;
    let Some(mut sender) = members.pop() else {
        return Ok(());
    };
    let room = sender.create_room().await?;
    let (all, filter) = (Filter::lazy(1), Filter::lazy(20));
    let members = bench
        .each(members, async |mut member: User| {
            member.join(&room).await?;
            let synced = member.sync(None, &all, Duration::ZERO).await?;
            Ok((member, synced.next_batch))
        })
        .await?;

    let (round, mut arrivals) = Round::new(count);
    let mut listening = JoinSet::new();
    for (member, since) in members {
        listening.spawn(listen(member, since, filter.clone(), Arc::clone(&round)));
    }
    // The joins of the others are news that everybody gets first.
    bench.calm().await;

    let texts = Texts::new(KILOBYTE);
    let (mut answers, mut last) = (Latencies::new(), Latencies::new());
    let meter = bench.meter();
    while last.count() < FEWEST || (last.count() < MESSAGES && meter.wall() < bench.length * 4) {
        let tag = next_tag();
        let text = texts.of(tag);
        round.begin(tag, count);
        let begun = Instant::now();
        answers.record(sender.send(&room, &text).await?.took);
        let arrived = tokio::select! {
            arrived = arrivals.recv_last() => arrived?,
            broken = listening.join_next() => return Err(why(broken)),
        };
        let took = arrived - begun;
        last.record(took);
        sleep(took.clamp(Duration::from_millis(300), Duration::from_secs(5))).await;
    }
    bench.figure("to_sync_p50", last.quantile(0.5), "ms");
    bench.figure("to_sync_p99", last.quantile(0.99), "ms");
    bench.figure("to_sync_max", last.max(), "ms");
    bench.answers(&answers);
    meter.driver(bench, last.count());
    meter.close(bench, last.count());
    Ok(())
}

/// One message on its way to everybody.
struct Round {
    tag: AtomicU64,
    missing: AtomicUsize,
    /// Told when the last one has it.
    done: UnboundedSender<Instant>,
}

/// The other end of [`Round::done`].
struct Arrived(UnboundedReceiver<Instant>);

impl Round {
    fn new(members: usize) -> (Arc<Self>, Arrived) {
        let (done, arrived) = unbounded_channel();
        let round = Self {
            tag: AtomicU64::new(0),
            missing: AtomicUsize::new(members),
            done,
        };
        (Arc::new(round), Arrived(arrived))
    }

    fn begin(&self, tag: u64, members: usize) {
        self.missing.store(members, Ordering::Relaxed);
        // Whoever sees the tag sees the number, too.
        self.tag.store(tag, Ordering::Release);
    }
}

impl Arrived {
    async fn recv_last(&mut self) -> Result<Instant, BenchError> {
        let arrived = timeout(PATIENCE, self.0.recv()).await.ok().flatten();
        arrived.ok_or_else(|| {
            BenchError::Wrong(format!(
                "a member did not get the message within {PATIENCE:?}"
            ))
        })
    }
}

/// Syncs for ever.
async fn listen(
    mut member: User,
    mut since: String,
    filter: Filter,
    round: Arc<Round>,
) -> Result<(), CallError> {
    let mut had = 0;
    loop {
        let synced = member.sync(Some(&since), &filter, WAIT).await?;
        let arrived = Instant::now();
        let tag = round.tag.load(Ordering::Acquire);
        if tag != had && tags(&synced.answer.body).any(|seen| seen == tag) {
            had = tag;
            if round.missing.fetch_sub(1, Ordering::AcqRel) == 1 {
                // Nobody listens any more only when all is over.
                round.done.send(arrived).ok();
            }
        }
        since = synced.next_batch;
    }
}

/// Why a member stopped listening, which none does by itself.
pub(super) fn why(
    ended: Option<Result<Result<(), CallError>, tokio::task::JoinError>>,
) -> BenchError {
    match ended {
        Some(Ok(Err(cause))) => cause.into(),
        Some(Err(cause)) => cause.into(),
        Some(Ok(Ok(()))) | None => BenchError::Wrong("a client stopped listening".to_owned()),
    }
}
