//! Addresses, TCP and TLS.

use std::net::SocketAddr;

use rustls::{CertificateError, Error as TlsError};
use tokio::time::Instant;

use super::{Check, Finding, Outcome, certificate};
use crate::{
    ConnectError, DnsError,
    discovery::route::{Host, Route},
};

/// More addresses than this are not tried: each may take ten seconds.
const MOST_ADDRESSES: usize = 8;
/// A certificate that ends sooner than this is worth a word, in days.
const SOON: u64 = 7;

impl Check<'_> {
    /// Tries every address of every target. Whether one of them works.
    pub(super) async fn connections(&mut self, route: &Route) -> bool {
        let dialer = &self.federation.0.client.dialer;
        let mut tried = 0;
        let mut works = false;
        let first = self.steps.len();
        for target in &route.targets {
            let began = Instant::now();
            match dialer.addresses(target).await {
                Ok(addresses) => {
                    if let Host::Name(name) = &target.host {
                        let list: Vec<String> =
                            addresses.iter().map(|it| it.ip().to_string()).collect();
                        self.note(
                            format!("addresses of {name}"),
                            began,
                            Finding::good(list.join(", ")),
                        );
                    }
                    for address in addresses {
                        if tried < MOST_ADDRESSES {
                            tried += 1;
                            let began = Instant::now();
                            let ended = self.connection(address, route).await;
                            works |= ended.is_ok();
                            let finding = ended.unwrap_or_else(|finding| finding);
                            self.note(format!("TLS with {address}"), began, finding);
                        }
                    }
                }
                Err(error) => {
                    let advice = match &error {
                        ConnectError::NotPublic { .. } => {
                            "This server connects only to public addresses. If these are yours, name them in \
                             federation.allow_private_addresses."
                        }
                        ConnectError::Dns(DnsError::Nothing { .. }) => {
                            "There is no such host: add an A or AAAA record for it."
                        }
                        _ => "Ask again later; if it stays so, look at the domain's name servers.",
                    };
                    let finding = Finding::bad(crate::chain(&error), advice);
                    self.note(format!("addresses of {target}"), began, finding);
                }
            }
        }
        if works {
            // Others that do not are a nuisance: whoever tries them first waits.
            for step in &mut self.steps[first..] {
                if step.outcome == Outcome::Bad {
                    step.outcome = Outcome::Warning;
                }
            }
        }
        works
    }

    async fn connection(&self, address: SocketAddr, route: &Route) -> Result<Finding, Finding> {
        let dialer = &self.federation.0.client.dialer;
        let name = route.certificate.to_str().into_owned();
        match dialer.attempt(address, route.certificate.clone()).await {
            Ok(connection) => {
                let (_, session) = connection.get_ref();
                let version = session
                    .protocol_version()
                    .and_then(|version| version.as_str())
                    .unwrap_or("TLS");
                let end = session
                    .peer_certificates()
                    .and_then(|chain| certificate::end(chain.first()?));
                Ok(judge_end(
                    &name,
                    version,
                    end,
                    self.federation.clock().now().0,
                ))
            }
            Err(error) => {
                let advice = advice(&error, &name);
                Err(Finding::bad(crate::chain(&error), advice))
            }
        }
    }
}

/// What is said of a certificate that is believed.
fn judge_end(name: &str, version: &str, end: Option<u64>, now: u64) -> Finding {
    let Some(end) = end else {
        return Finding::good(format!("{version}, the certificate is for {name}"));
    };
    let days = (end * 1000).saturating_sub(now) / (24 * 60 * 60 * 1000);
    let found = format!("{version}, the certificate is for {name} and ends in {days} days");
    if days < SOON {
        Finding::warning(found, "See to it that the certificate is renewed.")
    } else {
        Finding::good(found)
    }
}

/// What to do where a connection fails.
fn advice(error: &ConnectError, name: &str) -> String {
    match error {
        ConnectError::Tcp { address, .. } => format!(
            "Nobody listens on port {}, or a firewall is in between. The server's listen.tls_addresses, or its reverse \
             proxy, must be reached there from outside.",
            address.port()
        ),
        ConnectError::Tls { source, .. } => {
            let tls = source
                .get_ref()
                .and_then(|error| error.downcast_ref::<TlsError>());
            match tls {
                Some(TlsError::InvalidCertificate(error)) => advice_on_certificate(error, name),
                Some(TlsError::InvalidMessage(_)) => {
                    "Something else than TLS is spoken there: use listen.tls_addresses for this port and not \
                     listen.addresses, or let the reverse proxy speak TLS on it."
                        .to_owned()
                }
                _ => "The server ended the conversation; its log may say why.".to_owned(),
            }
        }
        _ => "Nobody answered in time: a firewall may be in between.".to_owned(),
    }
}

fn advice_on_certificate(error: &CertificateError, name: &str) -> String {
    match error {
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            format!(
                "The certificate must be for {name}. With SRV records it is the server's name that counts, not the \
                 record's target."
            )
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "The certificate has expired: renew it.".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "The certificate is not valid yet: look at the clocks of both machines.".to_owned()
        }
        CertificateError::UnknownIssuer => {
            "Nobody here knows who issued the certificate. It must come from a public authority, together with the \
             intermediate certificates (the full chain); an authority of your own goes into \
             federation.ca_certificates."
                .to_owned()
        }
        _ => "The certificate cannot be believed; get a new one.".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_that_ends_soon_is_worth_a_word() {
        let day = 24 * 60 * 60;
        let judge = |days: u64| judge_end("a.example", "TLSv1_3", Some(days * day), 0);
        assert_eq!(judge(30).outcome, Outcome::Good);
        assert_eq!(judge(3).outcome, Outcome::Warning);
        assert!(judge(3).found.contains("ends in 3 days"));
    }
}
