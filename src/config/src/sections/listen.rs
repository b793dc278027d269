//! `[listen]`: the addresses on which the server answers.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
};

use crate::{
    macros::{Invalid, Section, SectionDoc, section},
    values::TrustedProxies,
};

section! {
    /// The addresses on which the server answers.
    pub struct Listen in "listen" {
        /// Where to answer plain HTTP. Put a proxy that speaks TLS before it, or use `tls_addresses`. Port 0
        /// takes any free port.
        #[serde(default = "default_addresses")]
        pub addresses: Vec<SocketAddr>,
        /// Where to answer HTTPS. Other servers come to port 8448 unless `well_known.server` sends them elsewhere.
        #[serde(default)]
        pub tls_addresses: Vec<SocketAddr>,
        /// The certificate chain for `tls_addresses`, as a PEM file.
        pub tls_certificate: Option<PathBuf> => r#""/etc/myelin/fullchain.pem""#,
        /// The private key that belongs to `tls_certificate`, as a PEM file.
        pub tls_private_key: Option<PathBuf> => r#""/etc/myelin/privkey.pem""#,
        /// The proxies before this server, as addresses or networks. Only what they say in `X-Forwarded-For` is
        /// believed; rate limits and the list of a user's devices go by that address.
        #[serde(default = "default_trusted_proxies")]
        pub trusted_proxies: TrustedProxies,
    }
}

fn default_addresses() -> Vec<SocketAddr> {
    vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 8008))]
}

fn default_trusted_proxies() -> TrustedProxies {
    let loopback = [
        IpAddr::from(Ipv4Addr::LOCALHOST),
        Ipv6Addr::LOCALHOST.into(),
    ];
    TrustedProxies(loopback.into_iter().map(Into::into).collect())
}

/// The two files which a TLS listener needs.
#[derive(Clone, Copy, Debug)]
pub struct TlsFiles<'a> {
    /// The certificate chain, PEM.
    pub certificate: &'a Path,
    /// The private key, PEM.
    pub private_key: &'a Path,
}

impl Listen {
    /// The files of the TLS listeners, present whenever `tls_addresses` is not empty.
    pub fn tls_files(&self) -> Option<TlsFiles<'_>> {
        Some(TlsFiles {
            certificate: self.tls_certificate.as_deref()?,
            private_key: self.tls_private_key.as_deref()?,
        })
    }
}

impl Section for Listen {
    const DOC: SectionDoc = Self::SECTION;

    fn validate(&self) -> Result<(), Invalid> {
        if self.addresses.is_empty() && self.tls_addresses.is_empty() {
            return Err(Invalid::new(
                "addresses",
                "must not be empty, unless tls_addresses is given",
            ));
        }
        if self.tls_certificate.is_some() != self.tls_private_key.is_some() {
            let missing = match self.tls_certificate {
                Some(_) => "tls_private_key",
                None => "tls_certificate",
            };
            return Err(Invalid::new(
                missing,
                "is missing: certificate and private key are given together",
            ));
        }
        match (self.tls_addresses.is_empty(), self.tls_files().is_some()) {
            (false, false) => Err(Invalid::new(
                "tls_certificate",
                "is required by tls_addresses",
            )),
            (true, true) => Err(Invalid::new(
                "tls_addresses",
                "must not be empty when a certificate is given",
            )),
            _ => Ok(()),
        }
    }
}
