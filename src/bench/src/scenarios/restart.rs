//! *restart*: the homeserver is stopped in good order and started again five times, with whatever data the scenarios before
//! have left; its database goes on.
//!
//! `first` is the time from the program's start to the first answered incremental `/sync` of somebody who had synced
//! before, the median; `answer_max` the longest. `initial` is the time from the program's start until, right after that, an
//! initial sync of the same user is answered, the median. The user is the one of *initial_sync*, or, where that has not
//! run, the first of all.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};

use super::{initial_sync::milliseconds, median};
use crate::{
    bench::{Bench, BenchError},
    client::{CallError, Filter, Synced, User},
};

const TIMES: usize = 5;

pub(crate) async fn run(bench: &mut Bench<'_>) -> Result<(), BenchError> {
    if !bench.server.is_ours() {
        let why = "a server that the driver did not start cannot be restarted";
        return Err(BenchError::NotApplicable(why));
    }
    let mut user = if let Some(syncer) = &bench.people.syncer {
        User::new(&bench.server.host, &Arc::clone(syncer))
    } else {
        let mut user = bench.users(1).await?.swap_remove(0);
        user.create_room().await?;
        user
    };
    let filter = Filter::lazy(20);
    let mut since = user.sync(None, &filter, Duration::ZERO).await?.next_batch;
    let (mut incremental, mut initial) = (Vec::new(), Vec::new());
    for _ in 0..TIMES {
        bench.server.stop().await?;
        let begun = Instant::now();
        bench.server.start().await?;
        since = until_answered(&mut user, Some(&since), &filter)
            .await?
            .next_batch;
        incremental.push(milliseconds(begun.elapsed()));
        until_answered(&mut user, None, &filter).await?;
        initial.push(milliseconds(begun.elapsed()));
    }
    let longest = incremental.iter().copied().fold(0.0, f64::max);
    bench.figure("first", median(incremental), "ms");
    bench.figure("answer_max", longest, "ms");
    bench.figure("initial", median(initial), "ms");
    Ok(())
}

/// A server may answer which versions it speaks before it is ready for more.
async fn until_answered(
    user: &mut User,
    since: Option<&str>,
    filter: &Filter,
) -> Result<Synced, CallError> {
    let end = Instant::now() + Duration::from_mins(1);
    loop {
        match user.sync(since, filter, Duration::ZERO).await {
            Err(CallError::Refused { status, .. })
                if status.is_server_error() && Instant::now() < end =>
            {
                sleep(Duration::from_millis(5)).await;
            }
            done => return done,
        }
    }
}
