//! From a host to an encrypted connection with it: the only way of this server to sockets of others.

use std::{
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::{
    client::legacy::connect::{Connected, Connection},
    rt::TokioIo,
};
use rustls::pki_types::ServerName as CertificateName;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{
    discovery::route::{Host, Route, Routes, Target},
    dns::{Dns, DnsError},
    guard::Guard,
};

/// How long one address may take for TCP and TLS together.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long all targets of a host may take.
const TIMEOUT: Duration = Duration::from_secs(20);
/// After this time without success the next address is tried beside the earlier ones.
const STAGGER: Duration = Duration::from_millis(300);
/// More targets of a host than this are not tried.
const MOST_TARGETS: usize = 6;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The host is not one.
    #[error("{0} is not the name of a host")]
    Name(String),
    /// Its addresses are not to be had.
    #[error("find the addresses of the host")]
    Dns(#[source] DnsError),
    /// All of its addresses are within the machine or its private network, and the operator has not allowed them.
    #[error("{name} has only addresses that are not public: {addresses:?}")]
    NotPublic {
        /// The host.
        name: String,
        /// Its addresses.
        addresses: Vec<IpAddr>,
    },
    /// Its SRV record says that there is no such service.
    #[error("{0} says that it does not federate: its SRV record has no target")]
    NoService(String),
    /// Nobody listens, or is reached, at an address.
    #[error("connect to {address}")]
    Tcp {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// Who listens there does not prove to be the host.
    #[error("speak TLS with {address}")]
    Tls {
        /// The address.
        address: SocketAddr,
        /// What is wrong.
        #[source]
        source: io::Error,
    },
    /// It took too long.
    #[error("there was no connection in time")]
    Timeout,
}

/// An encrypted connection.
pub(crate) type Secured = TlsStream<TcpStream>;

/// Makes connections.
pub(crate) struct Dialer {
    pub(crate) dns: Arc<Dns>,
    pub(crate) guard: Guard,
    pub(crate) tls: TlsConnector,
    pub(crate) routes: Routes,
    open: Arc<AtomicUsize>,
}

impl Dialer {
    pub(crate) fn new(dns: Arc<Dns>, guard: Guard, tls: TlsConnector, routes: Routes) -> Self {
        Self {
            dns,
            guard,
            tls,
            routes,
            open: Arc::default(),
        }
    }

    /// How many connections are open.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// The addresses of a target that this server connects to.
    pub(crate) async fn addresses(&self, target: &Target) -> Result<Vec<SocketAddr>, ConnectError> {
        let (name, found): (String, Arc<[IpAddr]>) = match &target.host {
            Host::Ip(ip) => (ip.to_string(), [*ip].into()),
            Host::Name(name) => {
                let found = self.dns.addresses(name).await;
                (name.clone(), found.map_err(ConnectError::Dns)?)
            }
        };
        let allowed = found.iter().filter(|ip| self.guard.allows(**ip));
        let allowed: Vec<SocketAddr> = allowed
            .map(|ip| SocketAddr::new(*ip, target.port))
            .collect();
        if allowed.is_empty() {
            return Err(ConnectError::NotPublic {
                name,
                addresses: found.to_vec(),
            });
        }
        Ok(allowed)
    }

    /// A connection with the first target that answers.
    pub(crate) async fn connect(&self, route: &Route) -> Result<Secured, ConnectError> {
        let attempts = async {
            let mut failed = None;
            for target in route.targets.iter().take(MOST_TARGETS) {
                let connected = match self.addresses(target).await {
                    Ok(addresses) => self.race(addresses, &route.certificate).await,
                    Err(error) => Err(error),
                };
                match connected {
                    Ok(connection) => return Ok(connection),
                    // What is said of the first, most wanted target explains most.
                    Err(error) => failed = failed.or(Some(error)),
                }
            }
            Err(failed.unwrap_or(ConnectError::Timeout))
        };
        tokio::time::timeout(TIMEOUT, attempts)
            .await
            .unwrap_or(Err(ConnectError::Timeout))
    }

    /// Tries addresses, each a moment after the one before, or at once when that fails.
    async fn race(
        &self,
        addresses: Vec<SocketAddr>,
        name: &CertificateName<'static>,
    ) -> Result<Secured, ConnectError> {
        let mut waiting = addresses.into_iter();
        let mut attempts = FuturesUnordered::new();
        let mut failed = None;
        loop {
            match waiting.next() {
                Some(address) => attempts.push(self.attempt(address, name.clone())),
                None if attempts.is_empty() => return Err(failed.unwrap_or(ConnectError::Timeout)),
                None => {}
            }
            tokio::select! {
                biased;
                Some(ended) = attempts.next() => match ended {
                    Ok(connection) => return Ok(connection),
                    Err(error) => failed = Some(error),
                },
                () = tokio::time::sleep(STAGGER), if waiting.len() > 0 => {}
            }
        }
    }

    /// One address.
    pub(crate) async fn attempt(
        &self,
        address: SocketAddr,
        name: CertificateName<'static>,
    ) -> Result<Secured, ConnectError> {
        let attempt = async {
            let tcp = self.tcp(address).await?;
            let secured = self.tls.connect(name, tcp).await;
            secured.map_err(|source| ConnectError::Tls { address, source })
        };
        tokio::time::timeout(ATTEMPT_TIMEOUT, attempt)
            .await
            .unwrap_or(Err(ConnectError::Timeout))
    }

    /// One address, not yet encrypted.
    pub(crate) async fn tcp(&self, address: SocketAddr) -> Result<TcpStream, ConnectError> {
        let connected = TcpStream::connect(address).await.and_then(|stream| {
            stream.set_nodelay(true)?;
            Ok(stream)
        });
        connected.map_err(|source| ConnectError::Tcp { address, source })
    }
}

/// How a host of a URL is understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// As a Matrix server's name: by SRV records, or port 8448.
    Matrix,
    /// As browsers do: port 443.
    Web,
}

/// Makes connections for an HTTP client. The authority of a request's URL is what its `Host` header says; where to connect to
/// and whose certificate is wanted follows from it.
#[derive(Clone)]
pub(crate) struct Connector {
    dialer: Arc<Dialer>,
    kind: Kind,
}

impl Connector {
    pub(crate) fn new(dialer: Arc<Dialer>, kind: Kind) -> Self {
        Self { dialer, kind }
    }

    async fn connect(self, uri: Uri) -> Result<Counted, ConnectError> {
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        let route = match self.kind {
            Kind::Matrix => self.dialer.routes.matrix(authority).await?,
            Kind::Web => Arc::new(Route::web(authority, self.dialer.routes.ports)?),
        };
        let stream = self.dialer.connect(&route).await?;
        self.dialer.open.fetch_add(1, Ordering::Relaxed);
        Ok(Counted {
            stream: TokioIo::new(stream),
            open: Arc::clone(&self.dialer.open),
        })
    }
}

impl tower::Service<Uri> for Connector {
    type Response = Counted;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Counted, ConnectError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().connect(uri))
    }
}

/// A connection that is counted as long as it is open.
pub(crate) struct Counted {
    stream: TokioIo<Secured>,
    open: Arc<AtomicUsize>,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Connection for Counted {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl Write for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }
}
