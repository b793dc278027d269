//! *idle*: 200 clients (50 at least), each waiting in an incremental `/sync` (`timeout` 30 s) on a connection of its own,
//! and nothing happens for the length of a measurement.
//!
//! `peak_rss` is the most memory the server had meanwhile and `cpu` what it used, in milliseconds a second. The homeserver
//! is started anew before (its database goes on), so that neither depends on what ran before; then every client makes a
//! first sync, as clients do.

use std::time::Duration;

use tokio::{task::JoinSet, time::sleep};

use super::{fan_out::why, initial_sync::milliseconds};
use crate::{
    bench::{Bench, BenchError},
    client::{CallError, Filter, User},
};

/// How long a client's request waits for news.
const WAIT: Duration = Duration::from_secs(30);

pub(crate) async fn run(bench: &mut Bench<'_>) -> Result<(), BenchError> {
    if !bench.server.is_ours() {
        let why = "what a server uses can only be seen where the driver started it";
        return Err(BenchError::NotApplicable(why));
    }
    let count = bench.sized(200, 50);
    bench.figure("size_clients", count as f64, "clients");
    let users = bench.users(count).await?;
    bench.restart().await?;
    let filter = Filter::lazy(1);
    let users = bench
        .each(users, async |mut user: User| {
            let synced = user.sync(None, &filter, Duration::ZERO).await?;
            Ok((user, synced.next_batch))
        })
        .await?;
    let mut clients = JoinSet::new();
    for (user, since) in users {
        clients.spawn(wait(user, since, filter.clone()));
    }
    bench.calm().await;

    let meter = bench.meter();
    tokio::select! {
        () = sleep(bench.length) => {}
        ended = clients.join_next() => return Err(why(ended)),
    }
    if let Some(cpu) = meter.cpu(bench) {
        let seconds = meter.wall().as_secs_f64();
        bench.figure("cpu", milliseconds(cpu) / seconds, "ms/s");
    }
    meter.peak(bench);
    Ok(())
}

/// Syncs for ever.
async fn wait(mut user: User, mut since: String, filter: Filter) -> Result<(), CallError> {
    loop {
        since = user.sync(Some(&since), &filter, WAIT).await?.next_batch;
    }
}
