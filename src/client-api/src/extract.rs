//! From an HTTP request to the operation's own type, with the caller proved.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use axum::{
    extract::{ConnectInfo, FromRequest, FromRequestParts, Query, RawPathParams},
    response::{IntoResponse, Response},
};
use http::request::Parts;
use myelin_accounts::Requester;
use ruma::api::{
    IncomingRequest, IncomingRequestExt, OutgoingResponse, OutgoingResponseExt,
    auth_scheme::{
        AccessToken, AccessTokenOptional, AppserviceTokenOptional, AuthScheme, ExtractTokenError,
        NoAccessToken, NoAuthentication,
    },
    error::{DeserializationError, ErrorKind, FromHttpRequestError},
};

use crate::{
    AppState, Limit, body,
    error::{Refusal, Result},
    limiter::Source,
    routes::Access,
};

/// A request of the operation `T`: its parsed content and who sent it.
///
/// In this order: the token is checked, the limit is counted, the body is read within its limits and parsed.
#[derive(Debug)]
pub(crate) struct Request<T: IncomingRequest>
where
    T::Authentication: Identify,
{
    /// The parsed request.
    pub body: T,
    /// Who sent it, as the operation's kind of authentication has it.
    pub caller: <T::Authentication as Identify>::Caller,
    /// The bytes of the body, for the parts of it that ruma does not describe.
    pub raw: axum::body::Bytes,
}

/// A kind of authentication, as this server carries it out.
pub(crate) trait Identify: AuthScheme {
    /// What a handler learns of the caller.
    type Caller: std::fmt::Debug + Send + 'static;

    /// Who may call.
    const ACCESS: Access;

    /// Proves who is calling.
    fn identify(
        state: &AppState,
        request: &http::Request<()>,
        address: IpAddr,
    ) -> impl Future<Output = Result<Self::Caller>> + Send;

    /// Whoever is logged in, by whom the limits count.
    fn requester(caller: &Self::Caller) -> Option<&Requester>;
}

impl Identify for AccessToken {
    type Caller = Requester;

    const ACCESS: Access = Access::User;

    async fn identify(
        state: &AppState,
        request: &http::Request<()>,
        address: IpAddr,
    ) -> Result<Requester> {
        let token = Self::extract_authentication(request).map_err(|error| refuse_token(&error))?;
        authenticate(state, &token, address).await
    }

    fn requester(caller: &Requester) -> Option<&Requester> {
        Some(caller)
    }
}

impl Identify for AccessTokenOptional {
    type Caller = Option<Requester>;

    const ACCESS: Access = Access::Optional;

    async fn identify(
        state: &AppState,
        request: &http::Request<()>,
        address: IpAddr,
    ) -> Result<Option<Requester>> {
        let token = Self::extract_authentication(request).map_err(|error| refuse_token(&error))?;
        match token {
            Some(token) => authenticate(state, &token, address).await.map(Some),
            None => Ok(None),
        }
    }

    fn requester(caller: &Option<Requester>) -> Option<&Requester> {
        caller.as_ref()
    }
}

/// Kinds of authentication that let anybody in, and tell the handler nothing.
macro_rules! anybody {
    ($($scheme:ty),+) => {
        $(impl Identify for $scheme {
            type Caller = ();

            const ACCESS: Access = Access::Public;

            async fn identify(
                _: &AppState,
                _: &http::Request<()>,
                _: IpAddr,
            ) -> Result<()> {
                Ok(())
            }

            fn requester((): &()) -> Option<&Requester> {
                None
            }
        })+
    };
}

// No application service is known here, so that whoever calls where one may is anybody too.
anybody!(NoAccessToken, NoAuthentication, AppserviceTokenOptional);

fn refuse_token(error: &ExtractTokenError) -> Refusal {
    match error {
        ExtractTokenError::MissingAccessToken => Refusal::missing_token(),
        _ => Refusal::unknown_token(false),
    }
}

async fn authenticate(state: &AppState, token: &str, address: IpAddr) -> Result<Requester> {
    use myelin_accounts::AuthenticateError;
    state
        .accounts
        .authenticate(token, Some(address))
        .await
        .map(|requester| (*requester).clone())
        .map_err(|error| match error {
            AuthenticateError::Unknown => Refusal::unknown_token(false),
            AuthenticateError::Expired => Refusal::unknown_token(true),
            AuthenticateError::Failed(cause) => Refusal::internal(cause),
        })
}

impl<T> FromRequest<AppState> for Request<T>
where
    T: IncomingRequest + Send + 'static,
    T::Authentication: Identify,
{
    type Rejection = Response;

    async fn from_request(
        request: axum::extract::Request,
        state: &AppState,
    ) -> std::result::Result<Self, Response> {
        let (parts, body) = request.into_parts();
        read::<T>(parts, body, state)
            .await
            .map_err(IntoResponse::into_response)
    }
}

/// A request whose content the endpoint reads by itself: where ruma's types would lose or refuse what the specification
/// allows. `A` is the operation's kind of authentication.
#[derive(Debug)]
pub(crate) struct Call<A: Identify> {
    /// Who sent it.
    pub caller: A::Caller,
    /// The parameters of the path, in order, decoded.
    args: Vec<String>,
    /// The path and the query.
    uri: http::Uri,
    /// The body.
    pub raw: axum::body::Bytes,
}

impl<A: Identify> Call<A> {
    /// The parameter of the path at `index`.
    pub(crate) fn arg(&self, index: usize) -> &str {
        self.args.get(index).map_or("", String::as_str)
    }

    /// The parameter of the path at `index` as an identifier.
    pub(crate) fn id<T: for<'a> TryFrom<&'a str, Error = ruma::IdParseError>>(
        &self,
        index: usize,
    ) -> Result<T> {
        T::try_from(self.arg(index))
            .map_err(|error| Refusal::invalid(format!("An identifier is not valid: {error}.")))
    }

    /// The query.
    pub(crate) fn query<T: serde::de::DeserializeOwned>(&self) -> Result<T> {
        Query::try_from_uri(&self.uri)
            .map(|Query(query)| query)
            .map_err(|error| {
                Refusal::invalid(format!(
                    "The query is not what this endpoint takes: {error}."
                ))
            })
    }

    /// The body as JSON; an empty one is an empty object.
    pub(crate) fn json<T: serde::de::DeserializeOwned>(&self) -> Result<T> {
        let raw: &[u8] = if self.raw.is_empty() {
            b"{}"
        } else {
            &self.raw
        };
        serde_json::from_slice(raw).map_err(|error| refuse_json(&error))
    }
}

impl<A: Identify> FromRequest<AppState> for Call<A> {
    type Rejection = Response;

    async fn from_request(
        request: axum::extract::Request,
        state: &AppState,
    ) -> std::result::Result<Self, Response> {
        let (parts, body) = request.into_parts();
        let received = receive::<A>(parts, body, state)
            .await
            .map_err(IntoResponse::into_response)?;
        Ok(Call {
            caller: received.caller,
            args: received.args,
            uri: received.head.into_parts().0.uri,
            raw: received.body,
        })
    }
}

/// A request that was let in.
struct Received<C> {
    caller: C,
    head: http::Request<()>,
    args: Vec<String>,
    body: axum::body::Bytes,
}

async fn read<T>(parts: Parts, body: axum::body::Body, state: &AppState) -> Result<Request<T>>
where
    T: IncomingRequest,
    T::Authentication: Identify,
{
    let Received {
        caller,
        head,
        args,
        body: raw,
    } = receive::<T::Authentication>(parts, body, state).await?;
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    // Clients leave out the body of operations whose every field is optional, as joining a room.
    let content: &[u8] = if raw.is_empty() && T::METHOD == http::Method::POST {
        b"{}"
    } else {
        &raw
    };
    let body = T::try_from_http_request(head.map(|()| content), &args).map_err(refuse_request)?;
    Ok(Request { body, caller, raw })
}

async fn receive<A: Identify>(
    mut parts: Parts,
    body: axum::body::Body,
    state: &AppState,
) -> Result<Received<A::Caller>> {
    let params = RawPathParams::from_request_parts(&mut parts, state)
        .await
        .map_err(|_| Refusal::invalid("The path is not percent-encoded UTF-8."))?;
    let limit = parts
        .extensions
        .get::<Limit>()
        .copied()
        .unwrap_or(Limit::Read);
    let address = client_address(&parts, state);
    let mut head = http::Request::new(());
    *head.method_mut() = parts.method;
    *head.uri_mut() = parts.uri;
    *head.headers_mut() = parts.headers;

    let caller = A::identify(state, &head, address).await?;
    let who = A::requester(&caller);
    let source = match (who, limit) {
        (_, Limit::Login | Limit::Registration) | (None, _) => Source::of(address),
        (Some(who), _) => Source::User(who.user),
    };
    state.limiter.check(limit, source)?;
    // What shows that somebody is there: everything that changes a room, or what is read of it.
    if let (Some(who), Limit::Send | Limit::Invite | Limit::Join) = (who, limit) {
        let presence = state.rooms.presence();
        presence.acted(who.user, who.device_id.as_str());
    }

    let body = read_body(body, state.max_body).await?;
    body::check(&body)?;
    let args = params.iter().map(|(_, value)| value.to_owned()).collect();
    Ok(Received {
        caller,
        head,
        args,
        body,
    })
}

/// Reads a body of at most `limit` bytes.
pub(crate) async fn read_body(body: axum::body::Body, limit: usize) -> Result<axum::body::Bytes> {
    use http_body_util::{BodyExt, LengthLimitError, Limited};
    match Limited::new(body, limit).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Refusal::too_large(format!(
            "The body is larger than {limit} bytes."
        ))),
        Err(_) => Err(Refusal::bad_request(
            ErrorKind::Unknown,
            "The body ended early.",
        )),
    }
}

/// The address of the client: the peer's, or what a trusted proxy says it is.
fn client_address(parts: &Parts, state: &AppState) -> IpAddr {
    let peer = parts
        .extensions
        .get::<ConnectInfo<SocketAddr>>()
        .map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |info| info.0.ip());
    let forwarded: Vec<&str> = parts
        .headers
        .get_all("x-forwarded-for")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .collect();
    let forwarded = (!forwarded.is_empty()).then(|| forwarded.join(","));
    state.trusted_proxies.client_ip(peer, forwarded.as_deref())
}

fn refuse_request(error: FromHttpRequestError) -> Refusal {
    match error {
        FromHttpRequestError::Deserialization(error) => refuse_content(error),
        FromHttpRequestError::MethodMismatch { .. } => Refusal::wrong_method(),
        _ => Refusal::bad_request(ErrorKind::Unknown, "The request could not be read."),
    }
}

fn refuse_content(error: DeserializationError) -> Refusal {
    match error {
        DeserializationError::Json(error) => refuse_json(&error),
        DeserializationError::Query(error) => Refusal::invalid(format!(
            "The query is not what this endpoint takes: {error}."
        )),
        DeserializationError::Ident(error) => {
            Refusal::invalid(format!("An identifier is not valid: {error}."))
        }
        other => Refusal::invalid(format!("The request could not be read: {other}.")),
    }
}

fn refuse_json(error: &serde_json::Error) -> Refusal {
    use serde_json::error::Category;
    match error.classify() {
        Category::Data => Refusal::bad_request(
            ErrorKind::BadJson,
            format!("The body is not what this endpoint takes: {error}."),
        ),
        Category::Syntax | Category::Eof | Category::Io => Refusal::bad_request(
            ErrorKind::NotJson,
            format!("The body is not JSON: {error}."),
        ),
    }
}

/// The answer of an operation.
#[derive(Debug)]
pub(crate) struct Reply<R>(pub R);

impl<R: OutgoingResponse> IntoResponse for Reply<R> {
    fn into_response(self) -> Response {
        match self.0.try_into_http_response::<Vec<u8>>() {
            Ok(response) => response.map(axum::body::Body::from),
            Err(error) => Refusal::internal(error).into_response(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        net::{IpAddr, SocketAddr},
        time::Duration,
    };

    use axum::{body::Body, extract::ConnectInfo};
    use http::{Method, Request, header};
    use serde_json::{Value, json};

    use crate::testing::{Answer, PASSWORD, Server, encode, in_room};

    const WHOAMI: &str = "/_matrix/client/v3/account/whoami";

    /// A request from `peer` with these headers.
    async fn get(server: &Server, path: &str, peer: &str, headers: &[(&str, &str)]) -> Answer {
        let peer: IpAddr = peer.parse().expect("an address");
        let mut request = Request::builder()
            .uri(path)
            .extension(ConnectInfo(SocketAddr::from((peer, 1))));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        server
            .request(request.body(Body::empty()).expect("a valid request"))
            .await
    }

    #[tokio::test]
    async fn the_token_stands_in_the_header_or_in_the_query() {
        let server = Server::new().await;
        let alice = server.register("alice").await;
        let bearer = format!("Bearer {}", alice.token);
        let small = format!("bearer {}", alice.token);
        let query = format!("{WHOAMI}?access_token={}", alice.token);
        for (path, header, errcode) in [
            (WHOAMI, Some(bearer.as_str()), None),
            (WHOAMI, Some(small.as_str()), None),
            (&query, None, None),
            // The header counts where there are both.
            (&query, Some("Bearer wrong"), Some("M_UNKNOWN_TOKEN")),
            (WHOAMI, Some("Basic abc"), Some("M_UNKNOWN_TOKEN")),
            (WHOAMI, Some("Bearer ü"), Some("M_UNKNOWN_TOKEN")),
            (WHOAMI, None, Some("M_MISSING_TOKEN")),
            (
                &format!("{WHOAMI}?access_token=wrong"),
                None,
                Some("M_UNKNOWN_TOKEN"),
            ),
        ] {
            let headers: Vec<_> = header
                .iter()
                .map(|value| ("authorization", *value))
                .collect();
            let answer = get(&server, path, "127.0.0.1", &headers).await;
            match errcode {
                None => assert_eq!(answer.ok()["user_id"], alice.id),
                Some(errcode) => assert_eq!(answer.refused(401, errcode).get("soft_logout"), None),
            }
        }
    }

    #[tokio::test]
    async fn what_is_no_json_is_told_from_json_that_does_not_fit() {
        let server = Server::new().await;
        let alice = server.register("alice").await;
        for (body, errcode) in [
            (&b"{"[..], "M_NOT_JSON"),
            (b"{} {}", "M_NOT_JSON"),
            (b"{\"name\":\"\x81\"}", "M_NOT_JSON"),
            (b"nonsense", "M_NOT_JSON"),
            (b" ", "M_NOT_JSON"),
            (b"[]", "M_BAD_JSON"),
            (b"{\"name\":5,\"displayname\":5}", "M_BAD_JSON"),
            (b"null", "M_BAD_JSON"),
        ] {
            // The one is read by ruma's types, the other by our own.
            for (method, path) in [
                (Method::POST, "/createRoom"),
                (Method::PUT, "/profile/@alice:hs1/displayname"),
            ] {
                let path = format!("/_matrix/client/v3{path}");
                let answer = server
                    .send(method, &path, Some(&alice.token), body.to_vec())
                    .await;
                assert_eq!(answer.status, 400, "{path} {body:?}");
                assert_eq!(answer.body["errcode"], errcode, "{path} {body:?}");
            }
        }
    }

    #[tokio::test]
    async fn parameters_of_the_path_are_decoded() {
        let server = Server::new().await;
        let alice = server.register("alice").await;
        let room = server.room(&alice, &json!({})).await;
        for key in ["a/b", "100%", "ä ö+", "a?b#c", "..", "%2F"] {
            let entry = format!("a.b/{}", encode(key));
            server
                .set_state(&room, &alice, &entry, &json!({ "key": key }))
                .await
                .ok();
            let event = server
                .state(&room, &alice, &format!("{entry}?format=event"))
                .await
                .ok();
            assert_eq!(event["state_key"], key);
        }
        // A plus sign stands for itself.
        server
            .state(&room, &alice, "a.b/%C3%A4%20%C3%B6+")
            .await
            .ok();
        let path = in_room(&room, "/state/a.b/%FF");
        server
            .get(&path, &alice)
            .await
            .refused(400, "M_INVALID_PARAM");
        server
            .get("/rooms/nonsense/state", &alice)
            .await
            .refused(400, "M_INVALID_PARAM");
    }

    #[tokio::test]
    async fn the_address_of_a_client_is_what_a_trusted_proxy_says() {
        let server = Server::with(|config| {
            config.listen.trusted_proxies.0 = vec!["10.0.0.0/8".parse().expect("a network")];
        })
        .await;
        server.register("alice").await;
        for (number, (peer, forwarded, address)) in [
            ("192.0.2.1", None, "192.0.2.1"),
            ("192.0.2.2", Some("198.51.100.1"), "192.0.2.2"),
            ("10.0.0.1", Some("198.51.100.2"), "198.51.100.2"),
            (
                "10.0.0.1",
                Some("203.0.113.9, 198.51.100.3, 10.1.1.1"),
                "198.51.100.3",
            ),
            ("10.0.0.2", Some("nonsense"), "10.0.0.2"),
            ("10.0.0.3", None, "10.0.0.3"),
        ]
        .into_iter()
        .enumerate()
        {
            // A device of its own for each, since an address is noted at intervals.
            let device = format!("D{number}");
            let body = json!({
                "type": "m.login.password",
                "identifier": { "type": "m.id.user", "user": "alice" },
                "password": PASSWORD,
                "device_id": device,
            });
            let login = server.stranger(Method::POST, "/login", &body).await.ok();
            let bearer = format!(
                "Bearer {}",
                login["access_token"].as_str().expect("a token")
            );
            let mut headers = vec![(header::AUTHORIZATION.as_str(), bearer.as_str())];
            headers.extend(forwarded.map(|value| ("x-forwarded-for", value)));
            let path = format!("/_matrix/client/v3/devices/{device}");
            let mut shown = Value::Null;
            // Nobody waits for that note to be written.
            for _ in 0..1000 {
                shown = get(&server, &path, peer, &headers).await.ok();
                if shown["last_seen_ip"].is_string() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            assert_eq!(
                shown["last_seen_ip"],
                Value::from(address),
                "{peer} {forwarded:?}"
            );
        }
    }
}
