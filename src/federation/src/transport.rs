//! What all HTTP clients of this crate have in common.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Body, Incoming};
use hyper_util::{
    client::legacy::{Client, Error as HttpError},
    rt::{TokioExecutor, TokioTimer},
};

use crate::connect::{ConnectError, Connector};

/// How this server appears to others.
pub(crate) const USER_AGENT: &str = concat!("Myelin/", env!("CARGO_PKG_VERSION"));
/// For how long a connection that nobody uses is kept.
const IDLE: Duration = Duration::from_secs(45);
/// How many connections with one host are kept for later.
const IDLE_A_HOST: usize = 4;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// No connection, or it broke before there was an answer.
    #[error("send the request")]
    Http(#[source] HttpError),
    /// The connection broke in the middle of the answer.
    #[error("read the answer")]
    Body(#[source] hyper::Error),
    /// The answer is larger than it may be.
    #[error("the answer is too large")]
    TooLarge,
    /// It took too long.
    #[error("there was no answer in time")]
    Timeout,
}

impl TransportError {
    /// Why there was no connection, if that is the reason.
    pub fn connect(&self) -> Option<&ConnectError> {
        let Self::Http(error) = self else {
            return None;
        };
        let mut cause = std::error::Error::source(error);
        while let Some(error) = cause {
            if let Some(found) = error.downcast_ref() {
                return Some(found);
            }
            cause = error.source();
        }
        None
    }
}

/// An HTTP/1.1 client over these connections. Other servers speak it all, and its requests do not share a connection, so
/// that a large answer keeps no other one waiting.
pub(crate) fn http_client<B>(connector: Connector) -> Client<Connector, B>
where
    B: Body + Send,
    B::Data: Send,
{
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(IDLE_A_HOST)
        .build(connector)
}

/// Reads an answer of at most `limit` bytes.
pub(crate) async fn read_body(body: Incoming, limit: usize) -> Result<Bytes, TransportError> {
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > limit {
        return Err(TransportError::TooLarge);
    }
    let mut read = Vec::with_capacity(announced);
    let mut body = body;
    while let Some(chunk) = next_chunk(&mut body).await? {
        if read.len() + chunk.len() > limit {
            return Err(TransportError::TooLarge);
        }
        read.extend_from_slice(&chunk);
    }
    Ok(read.into())
}

/// The next piece of an answer; none at its end.
pub(crate) async fn next_chunk(body: &mut Incoming) -> Result<Option<Bytes>, TransportError> {
    while let Some(frame) = body.frame().await {
        // Trailers say nothing that is of use here.
        if let Ok(data) = frame.map_err(TransportError::Body)?.into_data() {
            return Ok(Some(data));
        }
    }
    Ok(None)
}
