//! Requests to other servers: found, signed, bounded in time and bytes.

use std::{path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, header};
use myelin_rules::{Signer, canonical::CanonicalError};
use myelin_types::Clock;
use ruma::{OwnedServerName, ServerName};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Semaphore;
use url::Url;

use crate::{auth::Signed, discovery::Discovery, guard::Guard};

/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How many requests of a kind are under way at once; further ones wait. More than any server needs, and few enough that the answers
/// fit into memory.
const AT_ONCE: usize = 64;
/// How often a `.well-known` may redirect.
const REDIRECTS: usize = 5;
/// The greatest body of a refusal that is looked at.
const REFUSAL_LIMIT: usize = 64 << 10;

/// How this server appears to others.
const USER_AGENT: &str = concat!("Myelin/", env!("CARGO_PKG_VERSION"));

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// A certificate file cannot be read.
    #[error("read the certificates in {path}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// A certificate file does not hold certificates.
    #[error("use the certificates in {path}", path = path.display())]
    Certificates {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: reqwest::Error,
    },
    /// TLS cannot be set up, for example because the operating system has no certificates of authorities and none were
    /// given.
    #[error("set up TLS for requests to other servers")]
    Tls(#[source] reqwest::Error),
}

/// Why another server gave no answer that is of use.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// This server does not work together with others, by its settings.
    #[error("federation is turned off")]
    Disabled,
    /// It could not be reached, or not in time.
    #[error("the server cannot be reached")]
    Unreachable(#[source] reqwest::Error),
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

/// Sends requests to other servers.
pub(crate) struct Client {
    enabled: bool,
    http: reqwest::Client,
    discovery: Discovery,
    guard: Guard,
    origin: OwnedServerName,
    signer: Arc<Signer>,
    slots: Semaphore,
    /// Strangers can have us ask for keys. However many do, there are slots left for what is asked for rooms.
    key_slots: Semaphore,
}

impl Client {
    pub(crate) fn new(
        enabled: bool,
        origin: OwnedServerName,
        signer: Arc<Signer>,
        clock: Arc<dyn Clock>,
        guard: Guard,
        ca_certificates: &[PathBuf],
    ) -> Result<Self, ClientError> {
        // Fails where one is installed already, which is just as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut authorities = Vec::new();
        for path in ca_certificates {
            let pem = std::fs::read(path).map_err(|source| ClientError::Read {
                path: path.clone(),
                source,
            })?;
            let found = reqwest::Certificate::from_pem_bundle(&pem).map_err(|source| {
                ClientError::Certificates {
                    path: path.clone(),
                    source,
                }
            })?;
            authorities.extend(found);
        }
        let build = |redirects| {
            reqwest::Client::builder()
                .tls_certs_merge(authorities.clone())
                .dns_resolver(guard.clone())
                .connect_timeout(CONNECT_TIMEOUT)
                .redirect(redirects)
                .https_only(true)
                // With HTTP/2 the port of the connection would stand in the place of the `Host` header.
                .http1_only()
                .no_proxy()
                .referer(false)
                .user_agent(USER_AGENT)
                .build()
                .map_err(ClientError::Tls)
        };
        let on_redirect = guard.clone();
        let following = reqwest::redirect::Policy::custom(move |attempt| {
            if attempt.previous().len() > REDIRECTS || !on_redirect.allows_host(attempt.url()) {
                attempt.stop()
            } else {
                attempt.follow()
            }
        });
        Ok(Self {
            enabled,
            discovery: Discovery::new(build(following)?, guard.clone(), clock),
            http: build(reqwest::redirect::Policy::none())?,
            guard,
            origin,
            signer,
            slots: Semaphore::new(AT_ONCE),
            key_slots: Semaphore::new(AT_ONCE),
        })
    }

    /// Sends a request to `server` and reads its answer.
    pub(crate) async fn send(
        &self,
        server: &ServerName,
        call: Call<'_>,
    ) -> Result<Bytes, RequestError> {
        if !self.enabled {
            return Err(RequestError::Disabled);
        }
        let slots = if call.signed {
            &self.slots
        } else {
            &self.key_slots
        };
        // The semaphores are never closed.
        let _slot = slots.acquire().await;
        let place = self.discovery.find(server).await;
        let url = url(&place.authority, &call)
            .filter(|url| self.guard.allows_host(url))
            .ok_or(RequestError::NoPublicAddress)?;
        let mut request = self
            .http
            .request(call.method.clone(), url.clone())
            .header(header::HOST, place.host)
            .timeout(call.timeout);
        if call.signed {
            let uri = &url[url::Position::BeforePath..url::Position::AfterQuery];
            let signed = Signed {
                method: call.method.as_str(),
                uri,
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
        if let Some(content) = call.content {
            request = request.json(content);
        }
        let response = request.send().await.map_err(RequestError::Unreachable)?;
        let status = response.status();
        if status.is_success() {
            return read_body(response, call.limit).await;
        }
        #[derive(Deserialize)]
        struct Refusal {
            errcode: String,
        }
        let errcode = read_body(response, REFUSAL_LIMIT)
            .await
            .ok()
            .and_then(|body| serde_json::from_slice::<Refusal>(&body).ok())
            .map_or_else(String::new, |refusal| refusal.errcode);
        Err(RequestError::Refused {
            status: status.as_u16(),
            errcode,
        })
    }
}

/// Reads an answer of at most `limit` bytes.
pub(crate) async fn read_body(
    mut response: reqwest::Response,
    limit: usize,
) -> Result<Bytes, RequestError> {
    let announced = response.content_length().unwrap_or(0);
    if announced > limit as u64 {
        return Err(RequestError::TooLarge);
    }
    let mut body = Vec::with_capacity(announced as usize);
    while let Some(chunk) = response.chunk().await.map_err(RequestError::Unreachable)? {
        if body.len() + chunk.len() > limit {
            return Err(RequestError::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.into())
}

/// The URL of a request.
fn url(authority: &str, call: &Call<'_>) -> Option<Url> {
    let mut url = Url::parse(&format!("https://{authority}/")).ok()?;
    url.path_segments_mut().ok()?.clear().extend(call.path);
    if !call.query.is_empty() {
        url.query_pairs_mut().extend_pairs(call.query);
    }
    Some(url)
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let url = url("example.org:8448", &call).expect("a URL");
        assert_eq!(
            url.as_str(),
            "https://example.org:8448/_matrix/federation/v1/state_ids/!a%2Fb%3Fc:d?event_id=%24e%2Bf%26g"
        );
    }
}
