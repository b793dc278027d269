//! The document `https://<host>/.well-known/matrix/server`, by which a server delegates to another name. Spec:
//! server-server API, "Resolving server names", step 3.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, Uri, header};
use http_body_util::Empty;
use hyper_util::client::legacy::Client as HttpClient;
use myelin_types::Millis;
use ruma::{OwnedServerName, ServerName};
use url::Url;

use crate::{
    connect::{Connector, Dialer, Kind},
    transport::{TransportError, USER_AGENT, http_client, read_body},
};

/// The greatest document in bytes.
const LIMIT: usize = 50 << 10;
/// How long it may take, redirects included.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(10);
/// How often it may be elsewhere.
const REDIRECTS: usize = 5;
/// How long delegations count: without a word about it, and at least and at most.
const DEFAULT_AGE: Duration = Duration::from_hours(24);
const LEAST_AGE: Duration = Duration::from_mins(5);
const GREATEST_AGE: Duration = Duration::from_hours(48);

/// Why a name is not delegated.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WellKnownError {
    /// There was no answer.
    #[error("ask for the document")]
    Unreachable(#[source] TransportError),
    /// The answer is not a success.
    #[error("the answer has the status {0}")]
    Status(StatusCode),
    /// A redirect leads nowhere, or to where it may not lead, or there are too many.
    #[error("a redirect cannot be followed")]
    Redirect,
    /// It has no server name under `m.server`.
    #[error("the document does not name a server")]
    Malformed,
}

impl WellKnownError {
    /// Whether there is a document, and it is of no use.
    pub(crate) fn is_malformed(&self) -> bool {
        matches!(self, Self::Malformed | Self::Redirect)
    }

    /// Whether it may be another answer soon: what was known before then counts for some time more. Who answers that there
    /// is no such document has ended the delegation.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable(_) => true,
            Self::Status(status) => status.is_server_error() || *status == 429,
            Self::Redirect | Self::Malformed => false,
        }
    }
}

/// Whom a name delegates to, and for how long that counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Delegation {
    pub(crate) server: OwnedServerName,
    pub(crate) age: Duration,
}

/// Asks for the document.
pub(crate) struct WellKnown {
    http: HttpClient<Connector, Empty<Bytes>>,
}

impl WellKnown {
    pub(crate) fn new(dialer: Arc<Dialer>) -> Self {
        Self {
            http: http_client(Connector::new(dialer, Kind::Web)),
        }
    }

    /// The delegation of `server` as it is `now`, by its own word.
    pub(crate) async fn ask(
        &self,
        server: &ServerName,
        now: Millis,
    ) -> Result<Delegation, WellKnownError> {
        tokio::time::timeout(TIMEOUT, self.follow(server, now))
            .await
            .unwrap_or(Err(WellKnownError::Unreachable(TransportError::Timeout)))
    }

    async fn follow(&self, server: &ServerName, now: Millis) -> Result<Delegation, WellKnownError> {
        let url = format!("https://{server}/.well-known/matrix/server");
        let mut url = Url::parse(&url).map_err(|_| WellKnownError::Redirect)?;
        for _ in 0..=REDIRECTS {
            let uri = Uri::try_from(url.as_str()).map_err(|_| WellKnownError::Redirect)?;
            let request = Request::get(uri)
                .header(header::USER_AGENT, USER_AGENT)
                .body(Empty::new())
                .expect("the parts of the request are valid");
            let response = self.http.request(request).await;
            let response = response
                .map_err(|error| WellKnownError::Unreachable(TransportError::Http(error)))?;
            let status = response.status();
            if status.is_redirection() {
                url = target(&url, response.headers()).ok_or(WellKnownError::Redirect)?;
                continue;
            }
            if status != StatusCode::OK {
                return Err(WellKnownError::Status(status));
            }
            let age = age(response.headers(), now);
            let body = read_body(response.into_body(), LIMIT)
                .await
                .map_err(WellKnownError::Unreachable)?;
            let server = parse(&body).ok_or(WellKnownError::Malformed)?;
            return Ok(Delegation { server, age });
        }
        Err(WellKnownError::Redirect)
    }
}

/// Where a redirect leads: only to HTTPS, and not with a password.
fn target(from: &Url, headers: &HeaderMap) -> Option<Url> {
    let location = headers.get(header::LOCATION)?.to_str().ok()?;
    let url = from.join(location).ok()?;
    let plain = url.username().is_empty() && url.password().is_none();
    (url.scheme() == "https" && plain).then_some(url)
}

/// The server that the document names. Whatever its type says, it is read as JSON.
pub(crate) fn parse(body: &[u8]) -> Option<OwnedServerName> {
    // An object: a struct would be read from a list as well.
    let document: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(body).ok()?;
    document.get("m.server")?.as_str()?.try_into().ok()
}

/// For how long an answer counts: as its headers say, within limits.
fn age(headers: &HeaderMap, now: Millis) -> Duration {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let expires = || {
        // What is not a date, such as 0, has expired already (RFC 9111, 5.3).
        let Ok(expires) = httpdate::parse_http_date(text(header::EXPIRES)?) else {
            return Some(Duration::ZERO);
        };
        let now = text(header::DATE)
            .and_then(|date| httpdate::parse_http_date(date).ok())
            .unwrap_or_else(|| std::time::UNIX_EPOCH + Duration::from_millis(now.0));
        Some(expires.duration_since(now).unwrap_or_default())
    };
    text(header::CACHE_CONTROL)
        .and_then(max_age)
        .or_else(expires)
        .unwrap_or(DEFAULT_AGE)
        .clamp(LEAST_AGE, GREATEST_AGE)
}

/// For how long a `Cache-Control` header lets an answer be kept.
fn max_age(header: &str) -> Option<Duration> {
    let directives = || header.split(',').map(str::trim);
    let is = |directive: &str, name: &str| directive.eq_ignore_ascii_case(name);
    if directives().any(|directive| is(directive, "no-store") || is(directive, "no-cache")) {
        return Some(Duration::ZERO);
    }
    let seconds = directives().find_map(|directive| {
        let (name, value) = directive.split_once('=')?;
        is(name, "max-age").then_some(value.trim_matches('"'))
    });
    seconds?.parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn documents_are_read() {
        let read = |text: &str| parse(text.as_bytes()).map(|server| server.to_string());
        let named = Some("matrix.example.org:443".to_owned());
        assert_eq!(
            read(r#"{"m.server": "matrix.example.org:443", "x": 1}"#),
            named
        );
        for other in [
            "",
            "{}",
            "<html>",
            r#"{"m.server": 1}"#,
            r#"{"m.server": ""}"#,
            r#"{"m.server": "https://matrix.example.org"}"#,
            r#"["m.server"]"#,
        ] {
            assert_eq!(read(other), None, "{other}");
        }
    }

    #[test]
    fn ages_are_read_and_limited() {
        let now = Millis(784_111_777_000);
        let check = |headers: &[(header::HeaderName, &'static str)], expected: Duration| {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                map.insert(name, HeaderValue::from_static(value));
            }
            assert_eq!(age(&map, now), expected, "{headers:?}");
        };
        use header::{CACHE_CONTROL, DATE, EXPIRES};
        let hours = Duration::from_hours;
        check(&[], DEFAULT_AGE);
        check(&[(CACHE_CONTROL, "public, max-age=7200")], hours(2));
        check(&[(CACHE_CONTROL, "Max-Age=\"7200\"")], hours(2));
        check(&[(CACHE_CONTROL, "max-age=x")], DEFAULT_AGE);
        check(&[(CACHE_CONTROL, "no-store, max-age=7200")], LEAST_AGE);
        check(&[(CACHE_CONTROL, "max-age=99999999")], GREATEST_AGE);
        check(&[(EXPIRES, "Sun, 06 Nov 1994 11:49:37 GMT")], hours(3));
        check(&[(EXPIRES, "0")], LEAST_AGE);
        check(
            &[
                (DATE, "Sun, 06 Nov 1994 10:49:37 GMT"),
                (EXPIRES, "Sun, 06 Nov 1994 11:49:37 GMT"),
            ],
            hours(1),
        );
        check(
            &[
                (CACHE_CONTROL, "max-age=7200"),
                (EXPIRES, "Sun, 06 Nov 1994 11:49:37 GMT"),
            ],
            hours(2),
        );
    }

    #[test]
    fn redirects_stay_encrypted() {
        let from = Url::parse("https://example.org/.well-known/matrix/server").expect("a URL");
        let check = |location: &'static str, expected: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert(header::LOCATION, HeaderValue::from_static(location));
            let target = target(&from, &headers);
            assert_eq!(target.as_ref().map(Url::as_str), expected, "{location}");
        };
        check("/other", Some("https://example.org/other"));
        check("https://www.example.org/", Some("https://www.example.org/"));
        check("http://www.example.org/", None);
        check("https://a:b@www.example.org/", None);
        check("file:///etc/passwd", None);
    }

    proptest! {
        #[test]
        fn any_body_is_judged(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&body);
        }

        #[test]
        fn any_name_is_judged(name in ".{0,60}") {
            let body = serde_json::json!({ "m.server": name }).to_string();
            if let Some(server) = parse(body.as_bytes()) {
                prop_assert_eq!(server.as_str(), name);
            }
        }
    }
}
