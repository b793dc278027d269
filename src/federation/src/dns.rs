//! Looking up names.

use std::{net::IpAddr, sync::Arc, time::Duration};

use hickory_resolver::{
    TokioResolver, config::ResolverOpts, lookup::Lookup, net::NetError, proto::rr::RData,
};
use quick_cache::sync::Cache;

/// How long one question to one name server may take, and how often it is asked.
const TIMEOUT: Duration = Duration::from_secs(3);
const ATTEMPTS: usize = 2;
/// How long answers count, whatever they say: those that there is something, and those that there is nothing.
const GREATEST_AGE: Duration = Duration::from_hours(24);
const LEAST_AGE_OF_NOTHING: Duration = Duration::from_secs(5);
const GREATEST_AGE_OF_NOTHING: Duration = Duration::from_hours(1);
/// Questions under way with one name server; further ones fail.
const AT_ONCE: usize = 1024;
/// More addresses of a name than this are not tried.
const MOST_ADDRESSES: usize = 16;
/// More records of a service than this are not looked at.
const MOST_SERVICES: usize = 32;

/// Why a name was not found.
#[derive(Clone, Debug, thiserror::Error)]
pub enum DnsError {
    /// There is no such name, or nothing of the kind that was asked for.
    #[error("{name} has no {kind} records")]
    Nothing {
        /// The name.
        name: String,
        /// Of which kind.
        kind: &'static str,
    },
    /// No answer was to be had.
    #[error("look up {name}")]
    Failed {
        /// The name.
        name: String,
        /// Why.
        #[source]
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
}

/// A record of a service (SRV).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Service {
    pub(crate) priority: u16,
    pub(crate) weight: u16,
    pub(crate) port: u16,
    /// Without the last dot; empty where the record says that there is no such service.
    pub(crate) target: String,
}

/// Asks the name servers that the operating system is set to.
pub(crate) struct Dns {
    /// None where the operating system names none; its own resolver then finds addresses, and nothing finds services.
    resolver: Option<TokioResolver>,
    /// The addresses each name had, for as long as a name server cannot be reached.
    last: Cache<String, Arc<[IpAddr]>>,
}

impl Dns {
    /// By the operating system's settings. Of so many names it remembers the addresses; the longest unused are forgotten.
    pub(crate) fn system(remembered: usize) -> Self {
        let resolver = TokioResolver::builder_tokio().and_then(|mut builder| {
            set(builder.options_mut(), remembered);
            builder.build()
        });
        let resolver = resolver
            .inspect_err(|error| {
                tracing::warn!(%error, "no name server is known; SRV records are not looked up");
            })
            .ok();
        Self {
            resolver,
            last: Cache::new(remembered),
        }
    }

    /// By the name server at this address alone.
    #[cfg(test)]
    pub(crate) fn at(server: std::net::SocketAddr) -> Self {
        use hickory_resolver::{
            config::{ConnectionConfig, NameServerConfig, ResolverConfig},
            net::runtime::TokioRuntimeProvider,
        };
        let mut connection = ConnectionConfig::udp();
        connection.port = server.port();
        let server = NameServerConfig::new(server.ip(), true, vec![connection]);
        let config = ResolverConfig::from_name_servers(vec![server]);
        let mut builder =
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        set(builder.options_mut(), 100);
        builder.options_mut().timeout = Duration::from_millis(200);
        Self {
            resolver: Some(builder.build().expect("the settings are good")),
            last: Cache::new(100),
        }
    }

    /// The addresses of `name`, IPv6 and IPv4 in turn. Where no name server answers, those it had before.
    pub(crate) async fn addresses(&self, name: &str) -> Result<Arc<[IpAddr]>, DnsError> {
        match self.ask_addresses(name).await {
            Ok(found) => {
                let found: Arc<[IpAddr]> = in_turn(found).into();
                self.last.insert(name.to_owned(), Arc::clone(&found));
                Ok(found)
            }
            Err(error @ DnsError::Nothing { .. }) => {
                self.last.remove(name);
                Err(error)
            }
            Err(error) => self.last.get(name).ok_or(error),
        }
    }

    async fn ask_addresses(&self, name: &str) -> Result<Vec<IpAddr>, DnsError> {
        let nothing = || DnsError::Nothing {
            name: name.to_owned(),
            kind: "A or AAAA",
        };
        let found: Vec<IpAddr> = if let Some(resolver) = &self.resolver {
            let name = absolute(name);
            // Not as one question: that one kind of address is known not to be there would hide that the other could
            // not be asked for.
            let (six, four) = tokio::join!(
                resolver.ipv6_lookup(name.as_str()),
                resolver.ipv4_lookup(name.as_str())
            );
            let mut found = Vec::new();
            let mut failed = None;
            for answer in [six, four] {
                match answer {
                    Ok(answer) => found.extend(addresses_in(&answer)),
                    Err(error) if error.is_no_records_found() => {}
                    Err(error) => failed = Some(error),
                }
            }
            if let Some(error) = failed.filter(|_| found.is_empty()) {
                return Err(refine(error, nothing, &name));
            }
            found
        } else {
            let found = tokio::net::lookup_host((name, 0)).await;
            let found = found.map_err(|error| DnsError::Failed {
                name: name.to_owned(),
                source: Arc::new(error),
            })?;
            found.map(|it| it.ip()).take(MOST_ADDRESSES).collect()
        };
        if found.is_empty() {
            return Err(nothing());
        }
        Ok(found)
    }

    /// The records of the service `service` (such as `_matrix-fed._tcp`) of `name`, in no order.
    pub(crate) async fn services(
        &self,
        service: &str,
        name: &str,
    ) -> Result<Vec<Service>, DnsError> {
        let name = format!("{service}.{}.", name.trim_end_matches('.'));
        let nothing = || DnsError::Nothing {
            name: name.trim_end_matches('.').to_owned(),
            kind: "SRV",
        };
        let Some(resolver) = &self.resolver else {
            return Err(nothing());
        };
        let found = resolver.srv_lookup(name.as_str()).await;
        let found = found.map_err(|error| refine(error, nothing, &name))?;
        let services = found
            .answers()
            .iter()
            .filter_map(|record| match &record.data {
                RData::SRV(srv) => Some(Service {
                    priority: srv.priority,
                    weight: srv.weight,
                    port: srv.port,
                    target: srv.target.to_utf8().trim_end_matches('.').to_owned(),
                }),
                _ => None,
            });
        let services: Vec<Service> = services.take(MOST_SERVICES).collect();
        if services.is_empty() {
            return Err(nothing());
        }
        Ok(services)
    }
}

fn set(options: &mut ResolverOpts, remembered: usize) {
    options.timeout = TIMEOUT;
    options.attempts = ATTEMPTS;
    options.cache_size = remembered as u64;
    options.positive_max_ttl = Some(GREATEST_AGE);
    options.negative_min_ttl = Some(LEAST_AGE_OF_NOTHING);
    options.negative_max_ttl = Some(GREATEST_AGE_OF_NOTHING);
    options.max_active_requests = AT_ONCE;
    options.try_tcp_on_error = true;
}

/// A name with a dot is a whole one: what the operating system would add to names is nobody else's business. One without
/// is perhaps that of a neighbour in the same network of containers.
fn absolute(name: &str) -> String {
    let name = name.trim_end_matches('.');
    if name.contains('.') {
        format!("{name}.")
    } else {
        name.to_owned()
    }
}

fn addresses_in(answer: &Lookup) -> impl Iterator<Item = IpAddr> {
    let addresses = answer
        .answers()
        .iter()
        .filter_map(|record| match &record.data {
            RData::A(address) => Some(IpAddr::V4(address.0)),
            RData::AAAA(address) => Some(IpAddr::V6(address.0)),
            _ => None,
        });
    addresses.take(MOST_ADDRESSES)
}

fn refine(error: NetError, nothing: impl Fn() -> DnsError, name: &str) -> DnsError {
    if error.is_no_records_found() {
        nothing()
    } else {
        DnsError::Failed {
            name: name.trim_end_matches('.').to_owned(),
            source: Arc::new(error),
        }
    }
}

/// Alternates between the two families, so that a network without one of them costs one attempt and not all.
fn in_turn(found: Vec<IpAddr>) -> Vec<IpAddr> {
    let (six, four): (Vec<IpAddr>, Vec<IpAddr>) = found.into_iter().partition(IpAddr::is_ipv6);
    let longest = six.len().max(four.len());
    (0..longest)
        .flat_map(|at| [six.get(at), four.get(at)])
        .flatten()
        .copied()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns() {
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        let found = vec![ip("::1"), ip("::2"), ip("::3"), ip("1.1.1.1")];
        let expected = vec![ip("::1"), ip("1.1.1.1"), ip("::2"), ip("::3")];
        assert_eq!(in_turn(found), expected);
    }

    #[test]
    fn only_names_without_a_dot_may_be_completed() {
        assert_eq!(absolute("example.org"), "example.org.");
        assert_eq!(absolute("example.org."), "example.org.");
        assert_eq!(absolute("hs1"), "hs1");
    }
}
