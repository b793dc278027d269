//! One connection to a homeserver, kept open: HTTP/1.1 over TCP, or over TLS where the URL says so.
//!
//! A virtual client owns a connection, as a real one does. hyper's connection is used without a pool above it, since the
//! driver shares the machine with the server and every microsecond of its own is taken from what it measures.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, pki_types::ServerName};
use rustls_platform_verifier::ConfigVerifierExt as _;
use tokio::{
    net::TcpStream,
    time::{Instant, timeout},
};
use tokio_rustls::TlsConnector;
use url::Url;

/// Why a request had no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HttpError {
    #[error("`{0}` is not an http or https URL of a host")]
    Url(String),
    #[error("connect to {host}")]
    Connect {
        host: String,
        #[source]
        cause: std::io::Error,
    },
    #[error("use the certificates of this machine")]
    Certificates(#[from] rustls::Error),
    #[error("make a request")]
    Request(#[source] http::Error),
    #[error("exchange a request and its answer")]
    Exchange(#[from] hyper::Error),
    #[error("no answer within {0:?}")]
    Timeout(Duration),
}

/// Where a server listens.
#[derive(Clone)]
pub(crate) struct Host {
    name: String,
    port: u16,
    tls: Option<Arc<ClientConfig>>,
}

impl Host {
    /// Of a base URL without a path, such as `http://127.0.0.1:8008`.
    pub(crate) fn parse(base: &str) -> Result<Self, HttpError> {
        let wrong = || HttpError::Url(base.to_owned());
        let url = Url::parse(base).map_err(|_| wrong())?;
        let name = url.host_str().ok_or_else(wrong)?.to_owned();
        let port = url.port_or_known_default().ok_or_else(wrong)?;
        let tls = match url.scheme() {
            "http" => None,
            "https" => Some(Arc::new(ClientConfig::with_platform_verifier()?)),
            _ => return Err(wrong()),
        };
        Ok(Self { name, port, tls })
    }
}

/// An answer with its whole body.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
    /// From the first byte sent to the last byte of the body received.
    pub(crate) took: Duration,
}

/// A connection, opened when it is first needed and again when the server closed it.
pub(crate) struct Connection {
    host: Host,
    sender: Option<SendRequest<Full<Bytes>>>,
}

impl Connection {
    pub(crate) fn new(host: Host) -> Self {
        Self { host, sender: None }
    }

    /// Sends one request and reads its answer, waiting no longer than `patience`. A request on a connection that the
    /// server had closed meanwhile is sent again on a new one.
    pub(crate) async fn send(
        &mut self,
        method: &Method,
        path: &str,
        token: Option<&str>,
        body: Option<Bytes>,
        patience: Duration,
    ) -> Result<Answer, HttpError> {
        let sent = timeout(patience, self.exchange(method, path, token, body)).await;
        sent.unwrap_or_else(|_| {
            // What comes later would be taken for the answer of the next request.
            self.sender = None;
            Err(HttpError::Timeout(patience))
        })
    }

    async fn exchange(
        &mut self,
        method: &Method,
        path: &str,
        token: Option<&str>,
        body: Option<Bytes>,
    ) -> Result<Answer, HttpError> {
        let begun = Instant::now();
        let mut may_be_stale = self.sender.is_some();
        loop {
            let mut request = Request::builder()
                .method(method)
                .uri(path)
                .header(header::HOST, &self.host.name);
            if let Some(token) = token {
                request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
            }
            if body.is_some() {
                request = request.header(header::CONTENT_TYPE, "application/json");
            }
            let request = request
                .body(Full::new(body.clone().unwrap_or_default()))
                .map_err(HttpError::Request)?;
            let outcome = self.sender().await?.send_request(request).await;
            match outcome {
                Ok(answer) => {
                    let status = answer.status();
                    let body = answer.into_body().collect().await?.to_bytes();
                    let took = begun.elapsed();
                    return Ok(Answer { status, body, took });
                }
                Err(cause) if may_be_stale && (cause.is_closed() || cause.is_canceled()) => {
                    may_be_stale = false;
                    self.sender = None;
                }
                Err(cause) => {
                    self.sender = None;
                    return Err(cause.into());
                }
            }
        }
    }

    async fn sender(&mut self) -> Result<&mut SendRequest<Full<Bytes>>, HttpError> {
        let open = match self.sender.take() {
            Some(mut sender) => sender.ready().await.is_ok().then_some(sender),
            None => None,
        };
        let sender = match open {
            Some(sender) => sender,
            None => self.open().await?,
        };
        Ok(self.sender.insert(sender))
    }

    async fn open(&self) -> Result<SendRequest<Full<Bytes>>, HttpError> {
        let Host { name, port, tls } = &self.host;
        let failed = |cause| HttpError::Connect {
            host: format!("{name}:{port}"),
            cause,
        };
        let stream = TcpStream::connect((name.as_str(), *port))
            .await
            .map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        let mut sender = match tls {
            None => hand_shake(TokioIo::new(stream)).await?,
            Some(config) => {
                let server =
                    ServerName::try_from(name.clone()).map_err(|_| HttpError::Url(name.clone()))?;
                let connector = TlsConnector::from(Arc::clone(config));
                let stream = connector.connect(server, stream).await.map_err(failed)?;
                hand_shake(TokioIo::new(stream)).await?
            }
        };
        sender.ready().await?;
        Ok(sender)
    }
}

async fn hand_shake<S>(stream: S) -> Result<SendRequest<Full<Bytes>>, HttpError>
where
    S: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (sender, connection) = http1::handshake(stream).await?;
    // It ends when the server closes or the sender is dropped; an error then reaches whoever has a request under way.
    tokio::spawn(async move { drop(connection.await) });
    Ok(sender)
}
