//! Requests to other servers: found, signed, bounded in time and bytes.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Uri, header};
use http_body_util::Full;
use hyper::body::{Body as _, Incoming};
use hyper_util::client::legacy::Client as HttpClient;
use myelin_rules::{Signer, canonical::CanonicalError};
use myelin_types::{Clock, Random};
use ruma::{OwnedServerName, ServerName};
use rustls::ClientConfig;
use serde::Deserialize;
use serde_json::Value;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};
use tokio_rustls::TlsConnector;
use url::Url;

use crate::{
    auth::Signed,
    connect::{ConnectError, Connector, Dialer, Kind},
    discovery::{
        Discovery,
        route::{Ports, Routes},
    },
    dns::{Dns, DnsError},
    guard::Guard,
    memory::Shares,
    transport::{TransportError, USER_AGENT, http_client, next_chunk, read_body},
};

/// How many signed requests are under way at once; further ones wait. Servers that do not answer hold theirs until their
/// time is up, and there are many of them among the servers of a large room.
const AT_ONCE: usize = 512;
/// The same for requests for keys. Strangers can have us make them; however many do, there is room for the others.
const KEYS_AT_ONCE: usize = 64;
/// With more open connections than this, each is closed after its request. Below it they are kept for a while, which costs
/// some 30 KiB each.
const KEPT_OPEN: usize = 1000;
/// The greatest body of a refusal that is looked at.
const REFUSAL_LIMIT: usize = 64 << 10;
/// The longest error code in bytes, and the longest text of a refusal in characters, of which more is not shown.
const LONGEST_CODE: usize = 64;
const LONGEST_TEXT: usize = 256;

/// Why another server gave no answer that is of use.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// This server does not work together with others, by its settings.
    #[error("federation is turned off")]
    Disabled,
    /// It could not be reached, or not in time.
    #[error("the server cannot be reached")]
    Unreachable(#[source] TransportError),
    /// Its name leads to an address that this server does not connect to, or nowhere.
    #[error("the server has no public address")]
    NoPublicAddress,
    /// It answered with an error.
    #[error("the server refused with status {status} {errcode}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The Matrix error code; empty if there was none.
        errcode: String,
        /// What it says about it, fit to be shown; empty if it says nothing.
        text: String,
    },
    /// The answer is larger than it may be.
    #[error("the answer is too large")]
    TooLarge,
    /// The answer is not what the specification says.
    #[error("the answer is malformed")]
    Malformed(#[source] serde_json::Error),
    /// The request cannot be signed, because its content has no canonical form.
    #[error("the request cannot be signed")]
    Unsigned(#[source] CanonicalError),
}

impl RequestError {
    /// What the server says about its refusal, for users; `otherwise` if it says nothing.
    pub(crate) fn said(&self, otherwise: &str) -> String {
        match self {
            Self::Refused { text, .. } if !text.is_empty() => text.clone(),
            _ => otherwise.to_owned(),
        }
    }

    /// What happened, as a label of metrics.
    fn label(&self) -> &'static str {
        match self {
            Self::Disabled => "disabled",
            Self::Unreachable(_) => "unreachable",
            Self::NoPublicAddress => "no_address",
            Self::Refused { .. } => "refused",
            Self::TooLarge => "too_large",
            Self::Malformed(_) => "malformed",
            Self::Unsigned(_) => "unsigned",
        }
    }
}

impl From<TransportError> for RequestError {
    fn from(error: TransportError) -> Self {
        match error.connect() {
            Some(
                ConnectError::NotPublic { .. }
                | ConnectError::NoService(_)
                | ConnectError::Name(_)
                | ConnectError::Dns(DnsError::Nothing { .. }),
            ) => Self::NoPublicAddress,
            _ if matches!(error, TransportError::TooLarge) => Self::TooLarge,
            _ => Self::Unreachable(error),
        }
    }
}

/// One request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call<'a> {
    pub(crate) method: &'a Method,
    /// The path in its parts, not yet percent-encoded.
    pub(crate) path: &'a [&'a str],
    pub(crate) query: &'a [(&'a str, &'a str)],
    pub(crate) content: Option<&'a Value>,
    /// Whether it is signed: all but requests for keys are.
    pub(crate) signed: bool,
    /// The greatest answer, in bytes.
    pub(crate) limit: usize,
    /// How long it may take altogether.
    pub(crate) timeout: Duration,
}

/// An answer that is read piece by piece, for those that need not be in memory as a whole.
pub(crate) struct Answer {
    body: Incoming,
    left: usize,
    deadline: Instant,
    _slot: OwnedSemaphorePermit,
}

impl Answer {
    /// The next piece; none at the end.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, RequestError> {
        let chunk = tokio::time::timeout_at(self.deadline, next_chunk(&mut self.body))
            .await
            .unwrap_or(Err(TransportError::Timeout))?;
        if let Some(chunk) = &chunk {
            self.left = self
                .left
                .checked_sub(chunk.len())
                .ok_or(RequestError::TooLarge)?;
        }
        Ok(chunk)
    }

    /// All that is left.
    pub(crate) async fn collect(mut self) -> Result<Bytes, RequestError> {
        let announced = usize::try_from(self.body.size_hint().lower()).unwrap_or(usize::MAX);
        if announced > self.left {
            return Err(RequestError::TooLarge);
        }
        let mut read = Vec::with_capacity(announced);
        while let Some(chunk) = self.chunk().await? {
            read.extend_from_slice(&chunk);
        }
        Ok(read.into())
    }
}

/// Sends requests to other servers.
pub(crate) struct Client {
    enabled: bool,
    http: HttpClient<Connector, Full<Bytes>>,
    pub(crate) dialer: Arc<Dialer>,
    pub(crate) discovery: Discovery,
    origin: OwnedServerName,
    signer: Arc<Signer>,
    slots: Arc<Semaphore>,
    key_slots: Arc<Semaphore>,
}

/// What a [`Client`] is made of.
pub(crate) struct ClientParts {
    pub(crate) enabled: bool,
    pub(crate) memory: Shares,
    pub(crate) origin: OwnedServerName,
    pub(crate) signer: Arc<Signer>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) random: Arc<dyn Random>,
    pub(crate) guard: Guard,
    pub(crate) dns: Dns,
    pub(crate) tls: ClientConfig,
    pub(crate) ports: Ports,
}

impl Client {
    pub(crate) fn new(parts: ClientParts) -> Self {
        let ClientParts {
            enabled,
            memory,
            origin,
            signer,
            clock,
            random,
            guard,
            dns,
            tls,
            ports,
        } = parts;
        let dns = Arc::new(dns);
        let routes = Routes::new(
            Arc::clone(&dns),
            ports,
            Arc::clone(&clock),
            random,
            memory.routes,
        );
        let tls = TlsConnector::from(Arc::new(tls));
        let dialer = Arc::new(Dialer::new(dns, guard, tls, routes));
        Self {
            enabled,
            http: http_client(Connector::new(Arc::clone(&dialer), Kind::Matrix)),
            discovery: Discovery::new(Arc::clone(&dialer), clock, memory.delegations),
            dialer,
            origin,
            signer,
            slots: Arc::new(Semaphore::new(AT_ONCE)),
            key_slots: Arc::new(Semaphore::new(KEYS_AT_ONCE)),
        }
    }

    /// Sends a request to `server` and reads its answer.
    pub(crate) async fn send(
        &self,
        server: &ServerName,
        call: Call<'_>,
    ) -> Result<Bytes, RequestError> {
        let answer = match self.open(server, call).await {
            Ok(answer) => answer.collect().await,
            Err(error) => Err(error),
        };
        let result = answer.as_ref().map_or_else(RequestError::label, |_| "ok");
        metrics::counter!("federation_requests_total", "result" => result).increment(1);
        answer
    }

    /// Sends a request to `server` and waits for the beginning of its answer, which is a success.
    pub(crate) async fn open(
        &self,
        server: &ServerName,
        call: Call<'_>,
    ) -> Result<Answer, RequestError> {
        if !self.enabled {
            return Err(RequestError::Disabled);
        }
        let slots = if call.signed {
            &self.slots
        } else {
            &self.key_slots
        };
        let slot = Arc::clone(slots).acquire_owned().await;
        let slot = slot.expect("the semaphores are never closed");
        let deadline = Instant::now() + call.timeout;
        let exchange = async {
            let host = self.discovery.host(server).await;
            let request = self.request(server, &host, &call)?;
            let response = self.http.request(request).await;
            let response = response.map_err(TransportError::Http)?;
            let status = response.status();
            if status.is_success() {
                return Ok(response.into_body());
            }
            let refusal = refusal(response.into_body()).await;
            Err(RequestError::Refused {
                status: status.as_u16(),
                errcode: refusal.errcode,
                text: refusal.error,
            })
        };
        let body = tokio::time::timeout_at(deadline, exchange)
            .await
            .unwrap_or(Err(RequestError::Unreachable(TransportError::Timeout)))?;
        Ok(Answer {
            body,
            left: call.limit,
            deadline,
            _slot: slot,
        })
    }

    fn request(
        &self,
        server: &ServerName,
        host: &ServerName,
        call: &Call<'_>,
    ) -> Result<Request<Full<Bytes>>, RequestError> {
        let target = target(call);
        let uri = Uri::try_from(format!("https://{host}{target}"));
        let uri = uri.map_err(|_| RequestError::NoPublicAddress)?;
        let mut request = Request::builder()
            .method(call.method)
            .uri(uri)
            // As it stands: the client would leave out a port that is the scheme's own.
            .header(header::HOST, host.as_str())
            .header(header::USER_AGENT, USER_AGENT);
        if self.dialer.open() > KEPT_OPEN {
            request = request.header(header::CONNECTION, "close");
        }
        if call.signed {
            let signed = Signed {
                method: call.method.as_str(),
                uri: &target,
                content: call.content,
            };
            let authorization = signed
                .sign(&self.origin, self.signer.key(), server)
                .map_err(RequestError::Unsigned)?;
            let mut value = HeaderValue::try_from(authorization.header())
                .expect("names, key identifiers and base64 are printable");
            value.set_sensitive(true);
            request = request.header(header::AUTHORIZATION, value);
        }
        let body = call.content.map_or_else(Bytes::new, |content| {
            serde_json::to_vec(content)
                .expect("a value has only strings as keys")
                .into()
        });
        if call.content.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let request = request.body(Full::new(body));
        Ok(request.expect("a server name is a valid header"))
    }
}

/// What a refusal says; what it does not say is empty.
#[derive(Default, Deserialize)]
struct Refusal {
    #[serde(default)]
    errcode: String,
    #[serde(default)]
    error: String,
}

async fn refusal(body: Incoming) -> Refusal {
    match read_body(body, REFUSAL_LIMIT).await {
        Ok(body) => read_refusal(&body),
        Err(_) => Refusal::default(),
    }
}

/// Reads a refusal. Its text is shown to users: it is cut short, and has nothing in it that would do more than be read.
fn read_refusal(body: &[u8]) -> Refusal {
    let Ok(refusal) = serde_json::from_slice::<Refusal>(body) else {
        return Refusal::default();
    };
    let is_code = |code: &str| {
        code.len() <= LONGEST_CODE
            && code
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
    };
    let text: String = refusal
        .error
        .chars()
        .filter(|char| !is_direction(*char))
        .map(|char| if char.is_control() { ' ' } else { char })
        .take(LONGEST_TEXT)
        .collect();
    Refusal {
        errcode: if is_code(&refusal.errcode) {
            refusal.errcode
        } else {
            String::new()
        },
        error: text.trim().to_owned(),
    }
}

/// Whether a character turns the direction of the text around it.
fn is_direction(char: char) -> bool {
    matches!(char, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Path and query of a request.
fn target(call: &Call<'_>) -> String {
    // The host stands in for one; what is wanted is how its path is encoded.
    let mut url = Url::parse("https://server.invalid/").expect("it is a URL");
    url.path_segments_mut()
        .expect("the scheme has paths")
        .clear()
        .extend(call.path);
    if !call.query.is_empty() {
        url.query_pairs_mut().extend_pairs(call.query);
    }
    url[url::Position::BeforePath..url::Position::AfterQuery].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_refusal_says_is_cut_and_cleaned() {
        let read = |body: &str| {
            let refusal = read_refusal(body.as_bytes());
            (refusal.errcode, refusal.error)
        };
        let said = |code: &str, text: &str| (code.to_owned(), text.to_owned());
        assert_eq!(
            read(r#"{"errcode":"M_FORBIDDEN","error":"You are banned"}"#),
            said("M_FORBIDDEN", "You are banned")
        );
        assert_eq!(
            read(r#"{"errcode":"M_FORBIDDEN"}"#),
            said("M_FORBIDDEN", "")
        );
        assert_eq!(
            read(r#"{"errcode":"no code","error":"\n a\u0000b\u202ec\t"}"#),
            said("", "a bc")
        );
        assert_eq!(read(r#"{"errcode":5,"error":"x"}"#), said("", ""));
        assert_eq!(read("<html>"), said("", ""));
        let long = read(&format!(r#"{{"error":"{}"}}"#, "ä".repeat(5_000)));
        assert_eq!(long.1.chars().count(), LONGEST_TEXT);
        let code = "M".repeat(LONGEST_CODE + 1);
        assert_eq!(read(&format!(r#"{{"errcode":"{code}"}}"#)).0, "");
    }

    #[test]
    fn identifiers_are_encoded_in_paths_and_queries() {
        let call = Call {
            method: &Method::GET,
            path: &["_matrix", "federation", "v1", "state_ids", "!a/b?c:d"],
            query: &[("event_id", "$e+f&g")],
            content: None,
            signed: true,
            limit: 1,
            timeout: Duration::ZERO,
        };
        assert_eq!(
            target(&call),
            "/_matrix/federation/v1/state_ids/!a%2Fb%3Fc:d?event_id=%24e%2Bf%26g"
        );
    }
}
