//! *login*: 200 logins with a password (20 at least), 8 at once, each by another user on a new connection and a new device.
//!
//! `answer_*` is the time of a login with the opening of its connection, `throughput` the logins a second, `cpu` the
//! server's for each. A server is slow here on purpose: its password hash is the larger part, and how hard that is made is
//! a setting that differs between servers.

use crate::{
    bench::{Bench, BenchError},
    figures::Latencies,
};

const AT_ONCE: usize = 8;

pub(crate) async fn run(bench: &mut Bench<'_>) -> Result<(), BenchError> {
    let count = bench.sized(200, 20);
    bench.figure("size_logins", count as f64, "logins");
    let users = bench.users(count).await?;
    let mut lanes: Vec<Latencies> = (0..AT_ONCE).map(|_| Latencies::new()).collect();
    let meter = bench.meter();
    let took = bench
        .fill(&mut lanes, count, async |latencies, index| {
            latencies.record(users[index].login().await?);
            Ok(())
        })
        .await?;
    let mut all = Latencies::new();
    for lane in &lanes {
        all.add(lane);
    }
    bench.figure("throughput", count as f64 / took.as_secs_f64(), "logins/s");
    bench.answers(&all);
    meter.close(bench, all.count());
    Ok(())
}
