//! From a host, as the `Host` header names it, to where to connect to. Spec: server-server API, "Resolving server names".
//!
//! The steps after a possible delegation are the same for a server's own name (1, 2, 4, 5, 6) and for one that it delegates
//! to (3.1 to 3.5), and depend on nothing but that name:
//!
//! 1. An address stands for itself, at its port or 8448.
//! 2. A name with a port is looked up, at that port.
//! 3. Otherwise the SRV records `_matrix-fed._tcp.<name>` say where to go, or, for older servers, `_matrix._tcp.<name>`.
//! 4. Otherwise it is port 8448 of the name.
//!
//! In all of them the certificate must be for the name (or address), never for an SRV record's target, and the `Host`
//! header is the name with its port, if it has one.

use std::{fmt, net::IpAddr, sync::Arc, time::Duration};

use myelin_types::{Clock, Millis, Random};
use quick_cache::sync::Cache;
use ruma::{OwnedServerName, ServerName};
use rustls::pki_types::ServerName as CertificateName;

use crate::{
    connect::ConnectError,
    dns::{Dns, DnsError, Service},
    flights::Flights,
};

/// Where servers answer that do not say otherwise.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ports {
    /// Matrix servers.
    pub(crate) matrix: u16,
    /// Web servers.
    pub(crate) web: u16,
}

impl Default for Ports {
    fn default() -> Self {
        Self {
            matrix: 8448,
            web: 443,
        }
    }
}

/// The names of the service, the registered one first.
pub(crate) const SERVICES: [&str; 2] = ["_matrix-fed._tcp", "_matrix._tcp"];
/// For how long a route is used without looking again. DNS answers have ages of their own, and are remembered by these.
const FRESH: Duration = Duration::from_secs(30);
/// For how long a route is used when name servers do not answer.
const STALE: Duration = Duration::from_hours(24);

/// Where to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) host: Host,
    pub(crate) port: u16,
}

/// A name to look up, or an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Host {
    Ip(IpAddr),
    Name(String),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Ip(ip) => std::net::SocketAddr::new(*ip, self.port).fmt(f),
            Host::Name(name) => write!(f, "{name}:{}", self.port),
        }
    }
}

/// Which rule a route follows from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// It is an address.
    Address,
    /// The name has a port.
    Port,
    /// There are records of this service.
    Service(&'static str),
    /// None of these.
    Default,
    /// The port of the web.
    Web,
}

/// How a host is reached.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    /// The name or address that the certificate must be for.
    pub(crate) certificate: CertificateName<'static>,
    /// Where to connect to: the first that answers.
    pub(crate) targets: Vec<Target>,
    pub(crate) rule: Rule,
}

impl Route {
    fn new(host: Host, port: u16, rule: Rule) -> Result<Self, ConnectError> {
        Ok(Self {
            certificate: certificate_name(&host)?,
            targets: vec![Target { host, port }],
            rule,
        })
    }

    /// The route that needs no look-up of a service, if this host has one.
    pub(crate) fn direct(host: &ServerName, ports: Ports) -> Result<Option<Self>, ConnectError> {
        let port = host.port();
        match host_of(host) {
            ip @ Host::Ip(_) => {
                Self::new(ip, port.unwrap_or(ports.matrix), Rule::Address).map(Some)
            }
            name @ Host::Name(_) => port
                .map(|port| Self::new(name, port, Rule::Port))
                .transpose(),
        }
    }

    /// Port 8448 of the host.
    pub(crate) fn default(host: &ServerName, ports: Ports) -> Result<Self, ConnectError> {
        Self::new(host_of(host), ports.matrix, Rule::Default)
    }

    /// The targets of these records.
    pub(crate) fn of_services(
        host: &ServerName,
        service: &'static str,
        services: Vec<Service>,
        random: &dyn Random,
    ) -> Result<Self, ConnectError> {
        // RFC 2782: a single record with the target "." says that there is no such service.
        if services.iter().all(|service| service.target.is_empty()) {
            return Err(ConnectError::NoService(host.to_string()));
        }
        let targets = order(services, random).into_iter();
        Ok(Self {
            certificate: certificate_name(&host_of(host))?,
            targets: targets
                .filter(|service| !service.target.is_empty())
                .map(|service| Target {
                    host: Host::Name(service.target),
                    port: service.port,
                })
                .collect(),
            rule: Rule::Service(service),
        })
    }

    /// The route of an `https` URL with this authority.
    pub(crate) fn web(authority: &str, ports: Ports) -> Result<Self, ConnectError> {
        let host = server_name(authority)?;
        Self::new(host_of(&host), host.port().unwrap_or(ports.web), Rule::Web)
    }
}

fn server_name(authority: &str) -> Result<OwnedServerName, ConnectError> {
    OwnedServerName::try_from(authority).map_err(|_| ConnectError::Name(authority.to_owned()))
}

/// The host of a server's name.
fn host_of(server: &ServerName) -> Host {
    let name = server.host();
    let ip = name.trim_start_matches('[').trim_end_matches(']').parse();
    ip.map_or_else(|_| Host::Name(name.to_ascii_lowercase()), Host::Ip)
}

fn certificate_name(host: &Host) -> Result<CertificateName<'static>, ConnectError> {
    match host {
        Host::Ip(ip) => Ok((*ip).into()),
        Host::Name(name) => CertificateName::try_from(name.trim_end_matches('.').to_owned())
            .map_err(|_| ConnectError::Name(name.clone())),
    }
}

/// Puts records into the order in which to try them (RFC 2782): the lowest priority first, and within one priority by lot,
/// in proportion to the weights.
fn order(mut services: Vec<Service>, random: &dyn Random) -> Vec<Service> {
    // Those without weight first, so that they have a small chance of being drawn first as well.
    services.sort_by_key(|service| (service.priority, service.weight));
    let mut ordered = Vec::with_capacity(services.len());
    while let Some(first) = services.first() {
        let priority = first.priority;
        let group = services.partition_point(|service| service.priority == priority);
        let total: u64 = services[..group]
            .iter()
            .map(|service| u64::from(service.weight))
            .sum();
        let mut bytes = [0; 8];
        random.fill(&mut bytes);
        let mut lot = u64::from_be_bytes(bytes) % (total + 1);
        let drawn = services[..group].iter().position(|service| {
            let weight = u64::from(service.weight);
            let hit = lot <= weight;
            lot = lot.saturating_sub(weight);
            hit
        });
        ordered.push(services.remove(drawn.unwrap_or(0)));
    }
    ordered
}

#[derive(Clone)]
struct Known {
    route: Arc<Route>,
    found: Millis,
}

/// Finds routes and remembers them for a while.
pub(crate) struct Routes {
    dns: Arc<Dns>,
    pub(crate) ports: Ports,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    known: Cache<OwnedServerName, Known>,
    flights: Flights,
}

impl Routes {
    pub(crate) fn new(
        dns: Arc<Dns>,
        ports: Ports,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
        remembered: usize,
    ) -> Self {
        Self {
            dns,
            ports,
            clock,
            random,
            // The longest unused are found again.
            known: Cache::new(remembered),
            flights: Flights::default(),
        }
    }

    /// The route of a Matrix server that is not delegated any further.
    pub(crate) async fn matrix(&self, authority: &str) -> Result<Arc<Route>, ConnectError> {
        let host = server_name(authority)?;
        if let Some(route) = Route::direct(&host, self.ports)? {
            return Ok(Arc::new(route));
        }
        let within = |known: Option<Known>, age: Duration| {
            known.filter(|known| self.clock.now() < known.found.after(age))
        };
        if let Some(known) = within(self.known.get(&host), FRESH) {
            return Ok(known.route);
        }
        let _flight = self.flights.board(&host).await;
        let known = self.known.get(&host);
        if let Some(known) = within(known.clone(), FRESH) {
            return Ok(known.route);
        }
        for service in SERVICES {
            match self.dns.services(service, host.host()).await {
                Ok(services) => {
                    let route = Route::of_services(&host, service, services, &*self.random)?;
                    return Ok(self.remember(host, route));
                }
                Err(DnsError::Nothing { .. }) => {}
                Err(error) => {
                    if let Some(known) = within(known.clone(), STALE) {
                        return Ok(known.route);
                    }
                    // Some name servers do not know the type at all. Where the next step leads elsewhere, the
                    // certificate shows it.
                    tracing::debug!(host = %host, error = crate::chain(&error), "SRV records are not to be had");
                }
            }
        }
        let route = Route::default(&host, self.ports)?;
        Ok(self.remember(host, route))
    }

    fn remember(&self, host: OwnedServerName, route: Route) -> Arc<Route> {
        tracing::debug!(%host, rule = ?route.rule, targets = route.targets.len(), "route found");
        let route = Arc::new(route);
        let found = self.clock.now();
        let known = Known {
            route: Arc::clone(&route),
            found,
        };
        self.known.insert(host, known);
        route
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use myelin_types::SeededRandom;
    use ruma::server_name;

    use super::*;

    fn service(priority: u16, weight: u16, target: &str) -> Service {
        Service {
            priority,
            weight,
            port: 443,
            target: target.to_owned(),
        }
    }

    #[test]
    fn addresses_and_ports_stand_for_themselves() {
        let check = |server: &ServerName, expected: Option<(&str, u16, &str)>| {
            let route = Route::direct(server, Ports::default()).expect("a host");
            let found = route.map(|route| {
                let host = match &route.targets[0].host {
                    Host::Ip(ip) => ip.to_string(),
                    Host::Name(name) => name.clone(),
                };
                let certificate = route.certificate.to_str().into_owned();
                (host, route.targets[0].port, certificate)
            });
            let expected =
                expected.map(|(host, port, name)| (host.to_owned(), port, name.to_owned()));
            assert_eq!(found, expected, "{server}");
        };
        check(server_name!("1.2.3.4"), Some(("1.2.3.4", 8448, "1.2.3.4")));
        check(server_name!("1.2.3.4:80"), Some(("1.2.3.4", 80, "1.2.3.4")));
        check(server_name!("[::1]"), Some(("::1", 8448, "::1")));
        check(server_name!("[::1]:80"), Some(("::1", 80, "::1")));
        check(
            server_name!("Example.org:443"),
            Some(("example.org", 443, "example.org")),
        );
        check(server_name!("example.org"), None);
    }

    #[test]
    fn the_web_is_at_its_own_port() {
        let web = |authority: &str| Route::web(authority, Ports::default());
        let port = |authority: &str| web(authority).map(|route| route.targets[0].port);
        assert_eq!(port("example.org").ok(), Some(443));
        assert_eq!(port("example.org:8443").ok(), Some(8443));
        assert!(port("").is_err());
        assert!(port("user@example.org").is_err());
    }

    #[test]
    fn records_are_tried_by_priority_and_weight() {
        let random = SeededRandom::new(7);
        let mut first = BTreeMap::new();
        for _ in 0..1000 {
            let services = vec![
                service(20, 0, "last"),
                service(10, 10, "small"),
                service(10, 90, "great"),
            ];
            let ordered = order(services, &random);
            assert_eq!(ordered[2].target, "last");
            *first.entry(ordered[0].target.clone()).or_insert(0) += 1;
        }
        assert!(first["great"] > 800 && first["small"] > 50, "{first:?}");
    }

    #[test]
    fn a_record_without_a_target_says_that_there_is_no_service() {
        let random = SeededRandom::new(7);
        let none = vec![service(0, 0, "")];
        let host = server_name!("example.org");
        let route = Route::of_services(host, SERVICES[0], none, &random);
        assert!(matches!(route, Err(ConnectError::NoService(_))));
        let some = vec![service(0, 0, ""), service(1, 0, "a.example")];
        let route = Route::of_services(host, SERVICES[0], some, &random).expect("a target");
        assert_eq!(route.targets.len(), 1);
        assert_eq!(route.certificate.to_str(), "example.org");
    }
}
