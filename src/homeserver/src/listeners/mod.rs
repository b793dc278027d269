//! The sockets on which the server answers, and how they close.

mod tls;

use std::{
    io,
    net::{SocketAddr, TcpListener},
    pin::pin,
    time::Duration,
};

use axum::{Router, extract::connect_info::IntoMakeServiceWithConnectInfo};
use axum_server::{
    Handle, Server,
    accept::{Accept, NoDelayAcceptor},
    service::SendService,
    tls_rustls::RustlsAcceptor,
};
use http::Request;
use hyper_util::rt::TokioTimer;
use myelin_config::{Listen, TlsFiles};
use myelin_runtime::Tasks;
use tokio::net::TcpStream;

/// How long a client may take for the head of a request.
const HEAD_LIMIT: Duration = Duration::from_secs(30);
/// How long requests may take after the soft stop before their connections are cut.
const DRAIN: Duration = Duration::from_secs(8);

/// Why the server does not listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The address cannot be taken.
    #[error("listen on {address}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The certificate or its key cannot be used.
    #[error("use the certificate {certificate} with its key", certificate = certificate.display())]
    Tls {
        /// The certificate's file.
        certificate: std::path::PathBuf,
        /// What is wrong.
        #[source]
        source: io::Error,
    },
}

/// Sockets that are bound and do not answer yet: connections made now wait until [`Listeners::serve`].
#[derive(Debug)]
pub(crate) struct Listeners {
    plain: Vec<TcpListener>,
    tls: Vec<TcpListener>,
}

impl Listeners {
    /// Takes the configured addresses.
    pub(crate) fn bind(listen: &Listen) -> Result<Self, ListenError> {
        Ok(Self {
            plain: bind_all(&listen.addresses)?,
            tls: bind_all(&listen.tls_addresses)?,
        })
    }

    /// The addresses with plain HTTP, with the ports that were really taken.
    pub(crate) fn plain_addresses(&self) -> Vec<SocketAddr> {
        local_addresses(&self.plain)
    }

    /// The same with TLS.
    pub(crate) fn tls_addresses(&self) -> Vec<SocketAddr> {
        local_addresses(&self.tls)
    }

    /// Answers with `router` until the shutdown.
    pub(crate) async fn serve(
        self,
        router: &Router,
        tls: Option<TlsFiles<'_>>,
        tasks: &Tasks,
    ) -> Result<(), ListenError> {
        if let Some(files) = tls {
            let config = tls::load(files, tasks).await?;
            for listener in self.tls {
                let acceptor = RustlsAcceptor::new(config.clone()).acceptor(NoDelayAcceptor::new());
                serve("HTTPS listener", listener, acceptor, router, tasks)?;
            }
        }
        for listener in self.plain {
            serve(
                "HTTP listener",
                listener,
                NoDelayAcceptor::new(),
                router,
                tasks,
            )?;
        }
        Ok(())
    }
}

fn local_addresses(listeners: &[TcpListener]) -> Vec<SocketAddr> {
    listeners
        .iter()
        .filter_map(|listener| listener.local_addr().ok())
        .collect()
}

fn bind_all(addresses: &[SocketAddr]) -> Result<Vec<TcpListener>, ListenError> {
    addresses.iter().copied().map(bind).collect()
}

fn bind(address: SocketAddr) -> Result<TcpListener, ListenError> {
    TcpListener::bind(address)
        .and_then(|listener| {
            listener.set_nonblocking(true)?;
            Ok(listener)
        })
        .map_err(|source| ListenError::Bind { address, source })
}

/// Binds one more address and answers on it with `router`; returns the address with its real port.
pub(crate) fn serve_at(
    name: &'static str,
    address: SocketAddr,
    router: &Router,
    tasks: &Tasks,
) -> Result<SocketAddr, ListenError> {
    let listener = bind(address)?;
    let address = listener.local_addr().unwrap_or(address);
    serve(name, listener, NoDelayAcceptor::new(), router, tasks)?;
    Ok(address)
}

type Service = axum::middleware::AddExtension<Router, axum::extract::ConnectInfo<SocketAddr>>;

fn serve<A>(
    name: &'static str,
    listener: TcpListener,
    acceptor: A,
    router: &Router,
    tasks: &Tasks,
) -> Result<(), ListenError>
where
    A: Accept<TcpStream, Service> + Clone + Send + Sync + 'static,
    A::Stream: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send,
    A::Service: SendService<Request<hyper::body::Incoming>> + Send,
    A::Future: Send,
{
    let address = listener.local_addr().ok();
    let mut server: Server<SocketAddr> =
        axum_server::from_tcp(listener).map_err(|source| ListenError::Bind {
            address: address.unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0))),
            source,
        })?;
    server
        .http_builder()
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_LIMIT)
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Duration::from_secs(30));
    let handle = Handle::new();
    let service: IntoMakeServiceWithConnectInfo<Router, SocketAddr> =
        router.clone().into_make_service_with_connect_info();
    let serving = server
        .acceptor(acceptor)
        .handle(handle.clone())
        .serve(service);

    let soft = tasks.soft().clone();
    tasks.spawn_essential(name, async move {
        let mut serving = pin!(serving);
        let failed = tokio::select! {
            ended = &mut serving => ended.err(),
            () = soft.cancelled() => {
                handle.graceful_shutdown(Some(DRAIN));
                serving.await.err()
            }
        };
        if let Some(error) = failed {
            tracing::error!(%error, listener = name, "a listener failed");
        }
    });
    Ok(())
}
