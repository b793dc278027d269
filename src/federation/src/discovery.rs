//! From a server's name to where it answers. Spec: server-server API, "Resolving server names".
//!
//! 1. and 2. An address or a name with a port stands for itself.
//! 3. Otherwise `https://<name>/.well-known/matrix/server` may delegate to another name, to which the same applies.
//! 6. Otherwise it is port 8448 of the name.
//!
//! SRV records (3.3, 3.4, 4 and 5) are not looked up: a server that is found by them alone is not found.

use std::{sync::Arc, time::Duration};

use http::header;
use myelin_types::{Clock, Millis};
use quick_cache::sync::Cache;
use ruma::{OwnedServerName, ServerName};
use serde::Deserialize;
use url::Url;

use crate::{client::read_body, flights::Flights, guard::Guard};

/// Where servers answer that do not say otherwise.
const DEFAULT_PORT: u16 = 8448;
/// How many names' delegations are remembered; the longest unused are forgotten.
const REMEMBERED: usize = 10_000;
/// The greatest document in bytes.
const LIMIT: usize = 50 << 10;
/// How long a `.well-known` may take, redirects included.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long delegations count: without a word about it, and at least and at most.
const DEFAULT_AGE: u64 = 24 * HOUR;
const LEAST_AGE: u64 = 5 * MINUTE;
const GREATEST_AGE: u64 = 48 * HOUR;
/// How long failures count: the first, doubled with each further one up to the greatest.
const FIRST_FAILURE: u64 = MINUTE;
const GREATEST_FAILURE: u64 = HOUR;
const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;

/// Where a server answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Host and port to connect to, as in a URL; the certificate must be for this host.
    pub(crate) authority: String,
    /// What the `Host` header says.
    pub(crate) host: String,
}

/// What a name's `.well-known` said.
#[derive(Clone, Debug)]
struct Remembered {
    delegated: Option<OwnedServerName>,
    until: Millis,
    failures: u32,
}

/// Finds servers.
pub(crate) struct Discovery {
    http: reqwest::Client,
    guard: Guard,
    clock: Arc<dyn Clock>,
    remembered: Cache<OwnedServerName, Remembered>,
    flights: Flights,
}

#[derive(Deserialize)]
struct WellKnown {
    #[serde(rename = "m.server")]
    server: OwnedServerName,
}

impl Discovery {
    /// `http` follows redirects.
    pub(crate) fn new(http: reqwest::Client, guard: Guard, clock: Arc<dyn Clock>) -> Self {
        Self {
            http,
            guard,
            clock,
            remembered: Cache::new(REMEMBERED),
            flights: Flights::default(),
        }
    }

    /// Where `server` answers.
    pub(crate) async fn find(&self, server: &ServerName) -> Place {
        if server.is_ip_literal() || server.port().is_some() {
            return place(server);
        }
        match self.delegated(server).await {
            Some(delegated) => place(&delegated),
            None => place(server),
        }
    }

    /// The name that `server` delegates to, asked at most once at a time.
    async fn delegated(&self, server: &ServerName) -> Option<OwnedServerName> {
        let fresh = |known: &Remembered| self.clock.now() < known.until;
        if let Some(known) = self.remembered.get(server).filter(fresh) {
            return known.delegated;
        }
        let _flight = self.flights.board(server).await;
        let known = self.remembered.get(server);
        if let Some(known) = known.clone().filter(fresh) {
            return known.delegated;
        }
        let answer = tokio::time::timeout(TIMEOUT, self.ask(server))
            .await
            .unwrap_or_default();
        let now = self.clock.now().0;
        let remembered = if let Some((delegated, age)) = answer {
            Remembered {
                delegated: Some(delegated),
                until: Millis(now + age),
                failures: 0,
            }
        } else {
            let failures = known.map_or(0, |known| known.failures);
            let age = FIRST_FAILURE << failures.min(10);
            Remembered {
                delegated: None,
                until: Millis(now + age.min(GREATEST_FAILURE)),
                failures: failures.saturating_add(1),
            }
        };
        let delegated = remembered.delegated.clone();
        self.remembered.insert(server.to_owned(), remembered);
        delegated
    }

    /// The delegation and for how many milliseconds it counts. An invalid one is none (step 3).
    async fn ask(&self, server: &ServerName) -> Option<(OwnedServerName, u64)> {
        let url = Url::parse(&format!("https://{server}/.well-known/matrix/server"))
            .ok()
            .filter(|url| self.guard.allows_host(url))?;
        let response = self.http.get(url).send().await.ok()?;
        if response.status() != http::StatusCode::OK {
            return None;
        }
        let age = response
            .headers()
            .get(header::CACHE_CONTROL)
            .and_then(|value| value.to_str().ok())
            .and_then(max_age)
            .unwrap_or(DEFAULT_AGE)
            .clamp(LEAST_AGE, GREATEST_AGE);
        let body = read_body(response, LIMIT).await.ok()?;
        let document: WellKnown = serde_json::from_slice(&body).ok()?;
        Some((document.server, age))
    }
}

/// The place of a server whose name is not delegated any further.
fn place(server: &ServerName) -> Place {
    let authority = match server.port() {
        Some(_) => server.to_string(),
        None => format!("{server}:{DEFAULT_PORT}"),
    };
    Place {
        authority,
        host: server.to_string(),
    }
}

/// For how many milliseconds a `Cache-Control` header lets an answer be kept.
fn max_age(header: &str) -> Option<u64> {
    let mut directives = header.split(',').map(str::trim);
    if directives
        .clone()
        .any(|directive| matches!(directive, "no-store" | "no-cache"))
    {
        return Some(0);
    }
    let seconds: u64 = directives
        .find_map(|directive| directive.strip_prefix("max-age="))?
        .parse()
        .ok()?;
    Some(seconds.saturating_mul(1000))
}

#[cfg(test)]
mod tests {
    use ruma::server_name;

    use super::*;

    #[test]
    fn places_follow_from_names() {
        let check = |server: &ServerName, authority: &str, host: &str| {
            let place = place(server);
            assert_eq!(
                (place.authority.as_str(), place.host.as_str()),
                (authority, host)
            );
        };
        check(server_name!("1.2.3.4"), "1.2.3.4:8448", "1.2.3.4");
        check(server_name!("1.2.3.4:80"), "1.2.3.4:80", "1.2.3.4:80");
        check(server_name!("[::1]"), "[::1]:8448", "[::1]");
        check(server_name!("[::1]:80"), "[::1]:80", "[::1]:80");
        check(
            server_name!("example.org"),
            "example.org:8448",
            "example.org",
        );
        check(
            server_name!("example.org:443"),
            "example.org:443",
            "example.org:443",
        );
    }

    #[test]
    fn ages_are_read() {
        assert_eq!(max_age("public, max-age=60"), Some(60_000));
        assert_eq!(max_age("no-store, max-age=60"), Some(0));
        assert_eq!(max_age("public"), None);
        assert_eq!(max_age("max-age=x"), None);
    }
}
