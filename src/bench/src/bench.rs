//! What a scenario works with: the server, people at it, the sizes, and where the figures go.

use std::{
    fmt,
    io::Write as _,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt as _, TryStreamExt as _, future::try_join_all, stream};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep, timeout};

use crate::{
    client::{Account, CallError, User},
    figures::{Figure, Figures, Latencies},
    http::Connection,
    server::{self, Server, ServerError},
};

/// Why a scenario has no figures.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BenchError {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error(transparent)]
    Server(#[from] ServerError),
    #[error("a task of the driver broke off")]
    Task(#[from] tokio::task::JoinError),
    #[error("it was not filled within {0:?}")]
    TooSlow(Duration),
    #[error("{0}")]
    Wrong(String),
    /// Nothing went wrong: this cannot be asked of this server.
    #[error("not applicable: {0}")]
    NotApplicable(&'static str),
}

/// How many requests at once fill a server before something is measured.
pub(crate) const FILLERS: usize = 16;

/// What a calm server uses of a second of a core at most.
const CALM: Duration = Duration::from_millis(150);
/// How long a server is waited for that does not become calm.
const CALM_PATIENCE: Duration = Duration::from_mins(2);
/// How long files must not have changed to count as finished.
const STILL: Duration = Duration::from_secs(2);
/// How long files are waited for that go on changing.
const STILL_PATIENCE: Duration = Duration::from_secs(20);

/// One scenario at one server.
pub(crate) struct Bench<'a> {
    pub(crate) scenario: &'static str,
    pub(crate) server: &'a mut Server,
    pub(crate) people: &'a mut People,
    /// The factor on all sizes; 1 is the full size.
    pub(crate) scale: f64,
    /// How long a measurement that could go on for ever goes on.
    pub(crate) length: Duration,
    /// How long filling may take before the scenario is given up.
    pub(crate) patience: Duration,
    pub(crate) figures: &'a mut Figures,
}

/// Who has an account at a server by now.
#[derive(Default)]
pub(crate) struct People {
    /// Those whom several scenarios use.
    accounts: Vec<Arc<Account>>,
    /// How many accounts were made besides for one scenario each.
    fresh: usize,
    /// The user of *initial_sync* in all its rooms, for *restart*.
    pub(crate) syncer: Option<Arc<Account>>,
}

impl Bench<'_> {
    /// `full` times the scale, but not less than `least`.
    pub(crate) fn sized(&self, full: usize, least: usize) -> usize {
        ((full as f64 * self.scale).round() as usize).max(least)
    }

    /// Keeps a figure and shows it.
    pub(crate) fn figure(&mut self, metric: &str, value: f64, unit: &str) {
        let figure = Figure {
            scenario: self.scenario.to_owned(),
            server: self.server.name.clone(),
            metric: metric.to_owned(),
            // More digits than a run can be trusted with only make the file harder to compare.
            value: rounded(value),
            unit: unit.to_owned(),
            scale: self.scale,
        };
        say(format_args!(
            "{:>16} {:>10} {:<22} {:>12} {}",
            figure.scenario, figure.server, figure.metric, figure.value, figure.unit
        ));
        self.figures.0.push(figure);
    }

    /// The quantiles of the answers.
    pub(crate) fn answers(&mut self, latencies: &Latencies) {
        self.figure("answer_p50", latencies.quantile(0.5), "ms");
        self.figure("answer_p95", latencies.quantile(0.95), "ms");
        self.figure("answer_p99", latencies.quantile(0.99), "ms");
        self.figure("answer_max", latencies.max(), "ms");
    }

    /// `count` accounts, registered as far as they are not there yet. Earlier scenarios may have used them.
    pub(crate) async fn accounts(&mut self, count: usize) -> Result<&[Arc<Account>], BenchError> {
        let known = self.people.accounts.len();
        if known < count {
            let new = self.register("", known..count).await?;
            self.people.accounts.extend(new);
        }
        Ok(&self.people.accounts[..count])
    }

    /// The same as users, each with a connection of its own.
    pub(crate) async fn users(&mut self, count: usize) -> Result<Vec<User>, BenchError> {
        self.accounts(count).await?;
        let accounts = self.people.accounts[..count].iter();
        Ok(accounts
            .map(|account| User::new(&self.server.host, account))
            .collect())
    }

    /// `count` users who have not done anything yet and whom no other scenario gets.
    pub(crate) async fn fresh(&mut self, count: usize) -> Result<Vec<User>, BenchError> {
        let known = self.people.fresh;
        self.people.fresh += count;
        let accounts = self.register("fresh", known..known + count).await?;
        let users = accounts
            .iter()
            .map(|account| User::new(&self.server.host, account));
        Ok(users.collect())
    }

    async fn register(
        &self,
        kind: &str,
        numbers: std::ops::Range<usize>,
    ) -> Result<Vec<Arc<Account>>, BenchError> {
        let server = &*self.server;
        let mut lanes: Vec<Connection> =
            std::iter::repeat_with(|| Connection::new(server.host.clone()))
                .take(FILLERS)
                .collect();
        let new = Mutex::new(Vec::with_capacity(numbers.len()));
        let took = self
            .fill(&mut lanes, numbers.len(), async |connection, index| {
                let number = numbers.start + index;
                let name = format!("{}{kind}{number}", server.prefix);
                let account = Account::register(connection, &name, &server.registration).await?;
                new.lock().push((number, account));
                Ok(())
            })
            .await?;
        if numbers.len() > FILLERS {
            let seconds = took.as_secs_f64();
            self.say(&format!(
                "registered {} users in {seconds:.1} s",
                numbers.len()
            ));
        }
        let mut new = new.into_inner();
        new.sort_unstable_by_key(|&(number, _)| number);
        Ok(new.into_iter().map(|(_, account)| account).collect())
    }

    /// Does the pieces 0 to `count` of some work: every lane one after another, all lanes beside each other, no longer
    /// than the patience lasts. Answers how long it took.
    pub(crate) async fn fill<L>(
        &self,
        lanes: &mut [L],
        count: usize,
        work: impl AsyncFn(&mut L, usize) -> Result<(), CallError>,
    ) -> Result<Duration, BenchError> {
        let (next, work, begun) = (&AtomicUsize::new(0), &work, Instant::now());
        let lanes = lanes.iter_mut().map(|lane| async move {
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= count {
                    return Ok::<_, CallError>(());
                }
                work(lane, index).await?;
            }
        });
        let done = timeout(self.patience, try_join_all(lanes)).await;
        done.map_err(|_| BenchError::TooSlow(self.patience))??;
        Ok(begun.elapsed())
    }

    /// Does something with each item, several at once, no longer than the patience lasts. The results are in the order
    /// of the items.
    pub(crate) async fn each<T, R>(
        &self,
        items: impl IntoIterator<Item = T>,
        work: impl AsyncFn(T) -> Result<R, CallError>,
    ) -> Result<Vec<R>, BenchError> {
        let done = stream::iter(items)
            .map(|item| work(item))
            .buffered(FILLERS)
            .try_collect();
        let done = timeout(self.patience, done).await;
        Ok(done.map_err(|_| BenchError::TooSlow(self.patience))??)
    }

    /// Stops and starts the homeserver, if it is ours: what it holds in memory is in its files then. Waits until it is calm
    /// and its files do not change any more, since they may be in the middle of being rewritten.
    pub(crate) async fn restart(&mut self) -> Result<(), BenchError> {
        if !self.server.is_ours() {
            return Ok(());
        }
        self.server.stop().await?;
        self.server.start().await?;
        self.calm().await;
        let (begun, mut changed) = (Instant::now(), Instant::now());
        let mut before = self.server.disk();
        while changed.elapsed() < STILL && begun.elapsed() < STILL_PATIENCE {
            sleep(Duration::from_millis(500)).await;
            let now = self.server.disk();
            if now != before {
                (before, changed) = (now, Instant::now());
            }
        }
        Ok(())
    }

    /// Waits until the server has done what it does after it has answered: it then uses less than a seventh of a core. Some
    /// go on for long, and some never stop; they are not waited for longer than two minutes.
    pub(crate) async fn calm(&self) {
        let begun = Instant::now();
        while begun.elapsed() < CALM_PATIENCE {
            let before = self.server.cpu();
            sleep(Duration::from_secs(1)).await;
            let used = self.server.cpu().zip(before);
            let used = used.map(|(now, then)| now.saturating_sub(then));
            // What cannot be seen is given a moment.
            if used.is_none_or(|used| used < CALM) && begun.elapsed() > Duration::from_secs(2) {
                break;
            }
        }
        if begun.elapsed() > Duration::from_secs(10) {
            let seconds = begun.elapsed().as_secs_f64();
            self.say(&format!("waited {seconds:.0} s for it to become calm"));
        }
    }

    /// Writes as `metric` what the server's data grew by for each of `operations` since they took `before`.
    pub(crate) fn disk_of_each(&mut self, metric: &str, before: Option<u64>, operations: u64) {
        let Some((after, before)) = self.server.disk().zip(before) else {
            return;
        };
        match after.checked_sub(before) {
            None | Some(0) => self.say("the disk holds less than before: old data were tidied up"),
            Some(grown) => self.figure(metric, grown as f64 / operations.max(1) as f64, "bytes"),
        }
    }

    /// Tells whoever watches how far it is.
    pub(crate) fn say(&self, what: &str) {
        say(format_args!(
            "{:>16} {:>10} ({what})",
            self.scenario, self.server.name
        ));
    }

    /// Begins to measure what the server uses.
    pub(crate) fn meter(&mut self) -> Meter {
        self.server.watch_memory();
        Meter {
            begun: Instant::now(),
            cpu: self.server.cpu(),
            driver: server::own_cpu(),
        }
    }
}

/// What the server used from the moment it was made.
pub(crate) struct Meter {
    begun: Instant,
    cpu: Option<Duration>,
    driver: Option<Duration>,
}

impl Meter {
    pub(crate) fn wall(&self) -> Duration {
        self.begun.elapsed()
    }

    /// CPU time of the server since, if it is ours.
    pub(crate) fn cpu(&self, bench: &Bench<'_>) -> Option<Duration> {
        Some(bench.server.cpu()?.saturating_sub(self.cpu?))
    }

    /// Writes as `metric` what the server's CPU did since, in milliseconds for each of `operations`.
    pub(crate) fn cpu_of_each(&self, bench: &mut Bench<'_>, metric: &str, operations: u64) {
        if let Some(cpu) = self.cpu(bench) {
            bench.figure(metric, milliseconds_each(cpu, operations), "ms");
        }
    }

    /// Writes `cpu` in milliseconds for each of `operations`, and `peak_rss`.
    pub(crate) fn close(self, bench: &mut Bench<'_>, operations: u64) {
        self.cpu_of_each(bench, "cpu", operations);
        self.peak(bench);
    }

    /// Writes `driver_cpu`: what the driver itself used, in milliseconds for each of `operations`. Where it and `cpu` add
    /// up to the time that the cores had, the driver is part of the limit.
    pub(crate) fn driver(&self, bench: &mut Bench<'_>, operations: u64) {
        if let (Some(now), Some(then)) = (server::own_cpu(), self.driver) {
            let each = milliseconds_each(now.saturating_sub(then), operations);
            bench.figure("driver_cpu", each, "ms");
        }
    }

    /// Writes `peak_rss`.
    #[expect(
        clippy::unused_self,
        reason = "the peak is the one since the meter was made, which this makes sure there was"
    )]
    pub(crate) fn peak(self, bench: &mut Bench<'_>) {
        if let Some(peak) = bench.server.peak_memory() {
            bench.figure("peak_rss", peak as f64 / f64::from(1 << 20), "MiB");
        }
    }
}

fn milliseconds_each(all: Duration, operations: u64) -> f64 {
    all.as_secs_f64() * 1e3 / operations.max(1) as f64
}

/// Four significant digits.
fn rounded(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return value;
    }
    let magnitude = 10_f64.powf(3.0 - value.abs().log10().floor());
    (value * magnitude).round() / magnitude
}

/// A line for whoever watches. That nobody does is no reason to stop.
pub(crate) fn say(line: fmt::Arguments<'_>) {
    writeln!(std::io::stdout(), "{line}").ok();
}
