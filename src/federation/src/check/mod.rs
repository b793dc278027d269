//! A look at how this server reaches another, step by step, for its operator: what is found, how long it took, and what is
//! wrong. Nothing that is remembered is used, but what name servers remember.

mod certificate;
mod connections;
mod requests;

use std::fmt;

use ruma::{OwnedServerName, ServerName};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::{
    ConnectError, DnsError, Federation,
    discovery::route::{Route, SERVICES},
};

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// As it should be.
    Good,
    /// It works, and something should be looked at.
    Warning,
    /// It does not work.
    Bad,
}

/// One step.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Step {
    /// What was tried, in a few words.
    pub what: String,
    /// How it ended.
    pub outcome: Outcome,
    /// What was found.
    pub found: String,
    /// What to do about it; empty where there is nothing to do.
    pub advice: String,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
}

/// All steps, in their order.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// The server that was looked at.
    pub server: OwnedServerName,
    /// The steps.
    pub steps: Vec<Step>,
}

impl Report {
    /// Whether the server was reached, proved to be itself and answered. A step that failed where another way led on does not
    /// count.
    pub fn is_good(&self) -> bool {
        self.steps.iter().all(|step| step.outcome != Outcome::Bad)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in &self.steps {
            let mark = match step.outcome {
                Outcome::Good => "ok  ",
                Outcome::Warning => "note",
                Outcome::Bad => "BAD ",
            };
            writeln!(
                f,
                "{mark} {:>6} ms  {}: {}",
                step.took_ms, step.what, step.found
            )?;
            if !step.advice.is_empty() {
                writeln!(f, "                => {}", step.advice)?;
            }
        }
        if self.is_good() {
            write!(f, "{} can be reached.", self.server)
        } else {
            write!(f, "{} cannot be reached as it should.", self.server)
        }
    }
}

/// What a step found, before it is known how long it took.
struct Finding {
    outcome: Outcome,
    found: String,
    advice: String,
}

impl Finding {
    fn good(found: impl Into<String>) -> Self {
        Self {
            outcome: Outcome::Good,
            found: found.into(),
            advice: String::new(),
        }
    }

    fn warning(found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            outcome: Outcome::Warning,
            found: found.into(),
            advice: advice.into(),
        }
    }

    fn bad(found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            outcome: Outcome::Bad,
            found: found.into(),
            advice: advice.into(),
        }
    }
}

/// A look under way.
struct Check<'a> {
    federation: &'a Federation,
    server: &'a ServerName,
    steps: Vec<Step>,
}

impl Federation {
    /// Looks at how `server` is reached. For this server itself everything but a signed request is tried, as another server
    /// on this machine would see it.
    pub async fn check(&self, server: &ServerName) -> Report {
        let mut check = Check {
            federation: self,
            server,
            steps: Vec::new(),
        };
        check.run().await;
        Report {
            server: server.to_owned(),
            steps: check.steps,
        }
    }
}

impl Check<'_> {
    fn note(&mut self, what: impl Into<String>, began: Instant, finding: Finding) {
        self.steps.push(Step {
            what: what.into(),
            outcome: finding.outcome,
            found: finding.found,
            advice: finding.advice,
            took_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
        });
    }

    async fn run(&mut self) {
        if !self.federation.is_enabled() {
            let advice = "Set federation.enabled to true in the settings of this server.";
            let finding = Finding::bad("federation is turned off", advice);
            return self.note("settings", Instant::now(), finding);
        }
        let host = self.delegation().await;
        let Some(route) = self.route(&host).await else {
            return;
        };
        if self.connections(&route).await {
            self.keys().await;
            self.signed_request().await;
        }
    }

    /// Steps 1 to 3: the name under which the server answers.
    async fn delegation(&mut self) -> OwnedServerName {
        let began = Instant::now();
        let server = self.server;
        if server.is_ip_literal() || server.port().is_some() {
            let kind = if server.is_ip_literal() {
                "the name is an address"
            } else {
                "the name has a port"
            };
            self.note(
                "well-known",
                began,
                Finding::good(format!("not asked for, since {kind}")),
            );
            return server.to_owned();
        }
        let discovery = &self.federation.0.client.discovery;
        let now = self.federation.clock().now();
        let what = format!("https://{server}/.well-known/matrix/server");
        match discovery.well_known.ask(server, now).await {
            Ok(delegation) => {
                let found = format!(
                    "delegates to {} (may be kept for {} minutes)",
                    delegation.server,
                    delegation.age.as_secs() / 60
                );
                self.note(what, began, Finding::good(found));
                delegation.server
            }
            Err(error) => {
                let found = format!("no delegation: {}", crate::chain(&error));
                let finding = if error.is_malformed() {
                    Finding::warning(
                        found,
                        "The document must be a JSON object with the name of a server, with or without a port, under \
                         m.server, and be answered with status 200.",
                    )
                } else {
                    // Most servers need none.
                    Finding::good(found)
                };
                self.note(what, began, finding);
                server.to_owned()
            }
        }
    }

    /// Steps 3.1 to 6: where to connect to.
    async fn route(&mut self, host: &ServerName) -> Option<Route> {
        let federation = self.federation;
        let dialer = &federation.0.client.dialer;
        let ports = dialer.routes.ports;
        let began = Instant::now();
        let named = |error: ConnectError| {
            let advice = "A server's name is a host's name or address, and perhaps a port.";
            Finding::bad(crate::chain(&error), advice)
        };
        match Route::direct(host, ports) {
            Ok(Some(route)) => return Some(route),
            Ok(None) => {}
            Err(error) => {
                self.note("name", began, named(error));
                return None;
            }
        }
        for service in SERVICES {
            let began = Instant::now();
            let what = format!("SRV {service}.{}", host.host());
            match dialer.dns.services(service, host.host()).await {
                Ok(services) => {
                    let random = &**federation.random();
                    match Route::of_services(host, service, services, random) {
                        Ok(route) => {
                            let targets: Vec<String> =
                                route.targets.iter().map(ToString::to_string).collect();
                            let found = targets.join(", ");
                            let finding = if service == SERVICES[0] {
                                Finding::good(found)
                            } else {
                                Finding::warning(
                                    found,
                                    format!(
                                        "This name of the service is deprecated: rename the record to {}.{}.",
                                        SERVICES[0],
                                        host.host()
                                    ),
                                )
                            };
                            self.note(what, began, finding);
                            return Some(route);
                        }
                        Err(error) => {
                            let advice = "Remove the record with the target \".\", if this server should federate.";
                            let finding = Finding::bad(crate::chain(&error), advice);
                            self.note(what, began, finding);
                            return None;
                        }
                    }
                }
                Err(DnsError::Nothing { .. }) => {
                    self.note(what, began, Finding::good("no records"));
                }
                Err(error) => {
                    let advice = "The name servers of this machine gave no answer; look at /etc/resolv.conf and at \
                                  the domain's own name servers.";
                    self.note(what, began, Finding::warning(crate::chain(&error), advice));
                }
            }
        }
        Route::default(host, ports).ok()
    }
}
