//! How much one server may ask of this one: so many requests a second, and so many at once.

use std::{collections::HashMap, num::NonZeroU32, sync::Arc, time::Duration};

use governor::{
    Quota, RateLimiter,
    clock::{Clock as _, DefaultClock},
    state::keyed::DefaultKeyedStateStore,
};
use myelin_config::{Federation as Settings, Rate};
use parking_lot::Mutex;
use ruma::{OwnedServerName, ServerName};

/// How many transactions of one server may be at hand: one is dealt with, the others wait for their turn. Servers send
/// one after the other, so more than one is a server that has given up waiting and tries again.
const TRANSACTIONS_AT_ONCE: usize = 3;

/// What a request counts towards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `PUT /_matrix/federation/v1/send/{txnId}`
    Transaction,
    /// Anything else.
    Request,
}

/// A server asks too much.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many requests of this server")]
pub struct TooMuch {
    /// When it may try again.
    pub retry_after: Duration,
}

/// How long a server is told to wait that has too many requests at once.
const WAIT: Duration = Duration::from_secs(2);

type Keyed = RateLimiter<OwnedServerName, DefaultKeyedStateStore<OwnedServerName>, DefaultClock>;

/// The limits in force.
#[derive(Debug)]
pub(crate) struct Limits {
    clock: DefaultClock,
    rates: Option<(Keyed, Keyed)>,
    at_once: usize,
    /// The requests at hand; servers that have none are not in it.
    running: Arc<Mutex<HashMap<(OwnedServerName, Kind), usize>>>,
}

/// The right to have a request dealt with, until it is dropped.
#[derive(Debug)]
pub struct Permit {
    running: Arc<Mutex<HashMap<(OwnedServerName, Kind), usize>>>,
    key: (OwnedServerName, Kind),
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut running = self.running.lock();
        if let Some(count) = running.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                running.remove(&self.key);
            }
        }
    }
}

impl Limits {
    pub(crate) fn new(settings: &Settings) -> Self {
        let rates = settings
            .rate_limits
            .then(|| (keyed(settings.transactions), keyed(settings.requests)));
        Self {
            clock: DefaultClock::default(),
            rates,
            at_once: settings.concurrent_requests as usize,
            running: Arc::default(),
        }
    }

    /// Counts a request of a server, and refuses it if that is too much.
    pub(crate) fn admit(&self, origin: &ServerName, kind: Kind) -> Result<Permit, TooMuch> {
        let key = (origin.to_owned(), kind);
        if let Some((transactions, requests)) = &self.rates {
            let rate = match kind {
                Kind::Transaction => transactions,
                Kind::Request => requests,
            };
            rate.check_key(&key.0).map_err(|refused| TooMuch {
                retry_after: refused.wait_time_from(self.clock.now()),
            })?;
        }
        let most = match kind {
            Kind::Transaction => TRANSACTIONS_AT_ONCE,
            Kind::Request => self.at_once,
        };
        let mut running = self.running.lock();
        let count = running.entry(key.clone()).or_default();
        // Whoever has one running has a row, so that a refusal leaves none behind.
        if *count >= most {
            return Err(TooMuch { retry_after: WAIT });
        }
        *count += 1;
        drop(running);
        Ok(Permit {
            running: Arc::clone(&self.running),
            key,
        })
    }

    /// Forgets servers whose allowance is full again, so that memory is bounded by who was here lately.
    pub(crate) fn forget_quiet(&self) {
        if let Some((transactions, requests)) = &self.rates {
            for rate in [transactions, requests] {
                rate.retain_recent();
                rate.shrink_to_fit();
            }
        }
    }
}

fn keyed(rate: Rate) -> Keyed {
    let burst = NonZeroU32::new(rate.burst).unwrap_or(NonZeroU32::MIN);
    let period = Duration::from_secs_f64(1.0 / rate.per_second);
    let quota = Quota::with_period(period).unwrap_or(Quota::per_second(NonZeroU32::MIN));
    RateLimiter::keyed(quota.allow_burst(burst))
}

#[cfg(test)]
mod tests {
    use ruma::server_name;

    use super::*;

    fn limits(enabled: bool, burst: u32) -> Limits {
        let rate = Rate {
            per_second: 0.001,
            burst,
        };
        Limits::new(&Settings {
            rate_limits: enabled,
            transactions: rate,
            requests: rate,
            concurrent_requests: 2,
            ..Settings::default()
        })
    }

    #[test]
    fn each_server_has_its_own_allowance() {
        let limits = limits(true, 2);
        let (a, b) = (server_name!("a.example"), server_name!("b.example"));
        for _ in 0..2 {
            limits.admit(a, Kind::Transaction).expect("allowed");
        }
        let refused = limits.admit(a, Kind::Transaction).expect_err("used up");
        assert!(refused.retry_after > Duration::from_mins(1));
        limits.admit(a, Kind::Request).expect("another allowance");
        limits.admit(b, Kind::Transaction).expect("another server");
    }

    #[test]
    fn few_requests_of_a_server_run_at_once() {
        let limits = limits(false, 1);
        let a = server_name!("a.example");
        let first = limits.admit(a, Kind::Request).expect("allowed");
        let second = limits.admit(a, Kind::Request).expect("allowed");
        assert!(limits.admit(a, Kind::Request).is_err());
        drop(first);
        let third = limits.admit(a, Kind::Request).expect("allowed");
        drop((third, second));
        assert!(limits.running.lock().is_empty());
    }
}
