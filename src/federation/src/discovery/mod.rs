//! From a server's name to the name under which it answers, and from that ([`route`]) to where. Spec: server-server API,
//! "Resolving server names".
//!
//! 1. and 2. An address or a name with a port stands for itself.
//! 3. Otherwise `https://<name>/.well-known/matrix/server` may delegate to another name ([`well_known`]).
//! 4. to 6. Otherwise it is the name itself.

pub(crate) mod route;
#[cfg(test)]
mod tests;
pub(crate) mod well_known;

use std::{sync::Arc, time::Duration};

use myelin_types::{Clock, Millis};
use quick_cache::sync::Cache;
use ruma::{OwnedServerName, ServerName};

use crate::{connect::Dialer, flights::Flights};
use well_known::{WellKnown, WellKnownError};

/// How long failures count: the first, doubled with each further one up to the greatest.
const FIRST_FAILURE: Duration = Duration::from_mins(1);
const GREATEST_FAILURE: Duration = Duration::from_hours(1);
/// For how long after its end a delegation still counts while nobody can be asked.
const STALE: Duration = Duration::from_hours(48);

/// What a name's `.well-known` said.
#[derive(Clone, Debug)]
struct Remembered {
    delegated: Option<OwnedServerName>,
    /// Until when nobody is asked again.
    until: Millis,
    /// Until when the delegation counts although asking fails.
    stale: Millis,
    failures: u32,
}

/// Finds servers.
pub(crate) struct Discovery {
    pub(crate) well_known: WellKnown,
    clock: Arc<dyn Clock>,
    remembered: Cache<OwnedServerName, Remembered>,
    flights: Flights,
}

impl Discovery {
    /// It remembers the delegations of so many names; the longest unused are forgotten.
    pub(crate) fn new(dialer: Arc<Dialer>, clock: Arc<dyn Clock>, remembered: usize) -> Self {
        Self {
            well_known: WellKnown::new(dialer),
            clock,
            remembered: Cache::new(remembered),
            flights: Flights::default(),
        }
    }

    /// The name under which `server` answers: what the `Host` header says, and what [`route`] goes on with.
    pub(crate) async fn host(&self, server: &ServerName) -> OwnedServerName {
        if server.is_ip_literal() || server.port().is_some() {
            return server.to_owned();
        }
        self.delegated(server)
            .await
            .unwrap_or_else(|| server.to_owned())
    }

    /// The name that `server` delegates to, asked at most once at a time.
    async fn delegated(&self, server: &ServerName) -> Option<OwnedServerName> {
        let fresh = |known: &Remembered| self.clock.now() < known.until;
        if let Some(known) = self.remembered.get(server).filter(fresh) {
            count("remembered");
            return known.delegated;
        }
        let _flight = self.flights.board(server).await;
        let known = self.remembered.get(server);
        if let Some(known) = known.clone().filter(fresh) {
            count("remembered");
            return known.delegated;
        }
        let answer = self.well_known.ask(server, self.clock.now()).await;
        let remembered = match answer {
            Ok(delegation) => {
                count("delegated");
                let until = self.clock.now().after(delegation.age);
                Remembered {
                    delegated: Some(delegation.server),
                    until,
                    stale: until.after(STALE),
                    failures: 0,
                }
            }
            Err(error) => {
                tracing::debug!(%server, error = crate::chain(&error), "server is not delegated");
                self.failed(known, &error)
            }
        };
        let delegated = remembered.delegated.clone();
        self.remembered.insert(server.to_owned(), remembered);
        delegated
    }

    /// What is remembered after a failure.
    fn failed(&self, known: Option<Remembered>, error: &WellKnownError) -> Remembered {
        let now = self.clock.now();
        let failures = known.as_ref().map_or(0, |known| known.failures);
        let rest = FIRST_FAILURE.saturating_mul(1 << failures.min(10));
        let stale = known.filter(|known| error.is_passing() && now < known.stale);
        let delegated = stale.as_ref().and_then(|known| known.delegated.clone());
        count(match delegated {
            Some(_) => "stale",
            None => "not_delegated",
        });
        Remembered {
            delegated,
            until: now.after(rest.min(GREATEST_FAILURE)),
            stale: stale.map_or(now, |known| known.stale),
            failures: failures.saturating_add(1),
        }
    }
}

fn count(result: &'static str) {
    metrics::counter!("federation_discoveries_total", "result" => result).increment(1);
}
