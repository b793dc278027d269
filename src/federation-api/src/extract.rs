//! From an HTTP request to the operation's own type, with the calling server proved.

use std::{sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::{FromRequest, FromRequestParts, RawPathParams},
    middleware,
    response::{IntoResponse, Response},
};
use bytes::{Bytes, BytesMut};
use http::{Method, StatusCode, header, request::Parts};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use myelin_federation::{
    Announced, AuthError, BodyMemory, FREE_BODY, Federation, KeyError, Kind, Permit,
    auth::{Authorization, Signed},
};
use myelin_rules::canonical::{self, CanonicalError, Numbers};
use parking_lot::Mutex;
use ruma::{
    OwnedServerName, ServerName,
    api::{
        IncomingRequest, IncomingRequestExt, OutgoingResponse, OutgoingResponseExt,
        auth_scheme::{AuthScheme, NoAuthentication},
        error::{DeserializationError, ErrorKind, FromHttpRequestError},
        federation::authentication::ServerSignatures,
    },
};
use serde_json::Value;

use crate::{
    error::{Refusal, Result, chain},
    routes::Access,
};

/// Declares the request of an endpoint whose path and body are read like those of another one.
macro_rules! read_like {
    ($(#[$doc:meta])* $name:ident($other:ty) => $response:ty) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub(crate) struct $name($other);

        impl ruma::api::IncomingRequest for $name {
            type EndpointError = ruma::api::error::Error;
            type OutgoingResponse = $response;

            fn try_from_http_request_inner(
                request: http::Request<&[u8]>,
                path_args: &[&str],
            ) -> std::result::Result<Self, ruma::api::error::DeserializationError> {
                <$other>::try_from_http_request_inner(request, path_args).map(Self)
            }
        }
    };
}
pub(crate) use read_like;

/// The greatest body in bytes: a transaction of 50 events of 64 KiB, and 100 EDUs, with room to spare.
const MAX_BODY: usize = 8 << 20;
/// The longest `Authorization` header in bytes: two names, a key identifier and a signature.
const MAX_HEADER: usize = 4 << 10;
/// How long a body may take: whoever is slower than a modem keeps memory from others.
const BODY_TIMEOUT: Duration = Duration::from_mins(1);
/// When whoever finds this server short of memory or of time for strangers is to come again.
const BUSY: Duration = Duration::from_secs(10);
/// What the paths of transactions begin with.
const TRANSACTIONS: &str = "/_matrix/federation/v1/send/";

/// A request of the operation `T`: its parsed content and the server that sent it.
#[derive(Debug)]
pub struct Request<T: IncomingRequest>
where
    T::Authentication: Identify,
{
    /// The parsed request.
    pub body: T,
    /// The server that sent it, as the operation's kind of authentication has it.
    pub origin: <T::Authentication as Identify>::Origin,
}

/// A kind of authentication, as this server carries it out.
pub trait Identify: AuthScheme {
    /// What a handler learns of the server that calls.
    type Origin: std::fmt::Debug + Send + 'static;
    /// What is known of the caller before the body is read.
    type Announced: Clone + Send + Sync + 'static;

    /// Who may call.
    const ACCESS: Access;
    /// The greatest body in bytes.
    const MAX_BODY: usize;

    /// Checks what can be checked without the body.
    fn announce(
        federation: &Federation,
        head: &http::Request<()>,
    ) -> impl Future<Output = Result<Self::Announced>> + Send;

    /// Proves who is calling.
    fn identify(
        announced: &Self::Announced,
        method: &Method,
        uri: &str,
        content: Option<&Value>,
    ) -> Result<Self::Origin>;

    /// Counts the request towards what its server may ask for.
    fn admit(federation: &Federation, origin: &Self::Origin, kind: Kind) -> Result<Option<Permit>>;
}

impl Identify for NoAuthentication {
    type Origin = ();
    type Announced = ();

    const ACCESS: Access = Access::Public;
    const MAX_BODY: usize = FREE_BODY;

    async fn announce(_: &Federation, _: &http::Request<()>) -> Result<()> {
        Ok(())
    }

    fn identify((): &(), _: &Method, _: &str, _: Option<&Value>) -> Result<()> {
        Ok(())
    }

    fn admit(_: &Federation, (): &(), _: Kind) -> Result<Option<Permit>> {
        Ok(None)
    }
}

impl Identify for ServerSignatures {
    type Origin = OwnedServerName;
    type Announced = Announced;

    const ACCESS: Access = Access::Server;
    const MAX_BODY: usize = MAX_BODY;

    async fn announce(federation: &Federation, head: &http::Request<()>) -> Result<Announced> {
        let authorization = authorization(head)?;
        let origin = authorization.origin.clone();
        let announced = federation.announce(authorization).await;
        announced.map_err(|error| refuse_origin(&origin, &error))
    }

    fn identify(
        announced: &Announced,
        method: &Method,
        uri: &str,
        content: Option<&Value>,
    ) -> Result<OwnedServerName> {
        let signed = Signed {
            method: method.as_str(),
            uri,
            content,
        };
        let proved = announced.prove(signed);
        proved.map_err(|error| refuse_origin(announced.origin(), &error))
    }

    fn admit(
        federation: &Federation,
        origin: &OwnedServerName,
        kind: Kind,
    ) -> Result<Option<Permit>> {
        federation
            .admit(origin, kind)
            .map(Some)
            .map_err(|refused| Refusal::too_fast(refused.retry_after))
    }
}

fn authorization(head: &http::Request<()>) -> Result<Authorization> {
    let header = head
        .headers()
        .get(header::AUTHORIZATION)
        .ok_or_else(|| Refusal::unauthorized("This endpoint needs a signed request."))?;
    if header.len() > MAX_HEADER {
        return Err(Refusal::unauthorized(
            "The Authorization header is too long.",
        ));
    }
    let header = header
        .to_str()
        .map_err(|_| Refusal::unauthorized("The Authorization header is not readable."))?;
    let parsed = Authorization::parse(header).and_then(|parsed| {
        parsed.check()?;
        Ok(parsed)
    });
    parsed.map_err(|error| {
        Refusal::unauthorized(format!("The Authorization header is not valid: {error}."))
    })
}

fn refuse_origin(origin: &ServerName, error: &AuthError) -> Refusal {
    tracing::debug!(%origin, error = chain(error), "request of another server is not believed");
    match error {
        AuthError::Key(KeyError::Busy) => Refusal::too_fast(BUSY),
        AuthError::Destination
        | AuthError::Ourselves
        | AuthError::Key(_)
        | AuthError::Signature => {
            Refusal::unauthorized(format!("The request is not believed: {error}."))
        }
    }
}

impl<T> FromRequest<Federation> for Request<T>
where
    T: IncomingRequest + Send + 'static,
    T::Authentication: Identify,
{
    type Rejection = Response;

    async fn from_request(
        request: axum::extract::Request,
        federation: &Federation,
    ) -> std::result::Result<Self, Response> {
        let (parts, body) = request.into_parts();
        read::<T>(parts, body, federation)
            .await
            .map_err(IntoResponse::into_response)
    }
}

async fn read<T>(mut parts: Parts, body: Body, federation: &Federation) -> Result<Request<T>>
where
    T: IncomingRequest,
    T::Authentication: Identify,
{
    let params = RawPathParams::from_request_parts(&mut parts, federation)
        .await
        .map_err(|_| Refusal::invalid("The path is not percent-encoded UTF-8."))?;
    let args: Vec<&str> = params.iter().map(|(_, value)| value).collect();
    let mut head = http::Request::new(());
    *head.method_mut() = parts.method;
    *head.uri_mut() = parts.uri;
    *head.headers_mut() = parts.headers;

    // Whoever does not say who he is, or says to be somebody whose keys cannot be had, has his body left unread.
    let announced = T::Authentication::announce(federation, &head).await?;
    let (body, memory) = read_body(body, T::Authentication::MAX_BODY, federation).await?;
    let origin = prove::<T::Authentication>(&head, announced, body.clone()).await?;
    drop(memory);
    let is_transaction = head.uri().path().starts_with(TRANSACTIONS);
    let kind = if is_transaction {
        Kind::Transaction
    } else {
        Kind::Request
    };
    let permit = T::Authentication::admit(federation, &origin, kind)?;
    if let Some(slot) = parts.extensions.get::<PermitSlot>() {
        *slot.0.lock() = permit;
    }
    let body = T::try_from_http_request(head.map(|()| &body[..]), &args).map_err(refuse_request)?;
    Ok(Request { body, origin })
}

/// Keeps the permit of a request until it is answered.
#[derive(Clone, Debug, Default)]
struct PermitSlot(Arc<Mutex<Option<Permit>>>);

/// Keeps the permits of requests until they are answered.
pub(crate) async fn hold_permit(
    mut request: axum::extract::Request,
    next: middleware::Next,
) -> Response {
    let slot = PermitSlot::default();
    request.extensions_mut().insert(slot.clone());
    let response = next.run(request).await;
    drop(slot.0.lock().take());
    response
}

/// Parses the body and proves by it who is calling. Large bodies are dealt with where nobody waits for the thread.
async fn prove<A: Identify>(
    head: &http::Request<()>,
    announced: A::Announced,
    body: Bytes,
) -> Result<A::Origin> {
    let uri = head.uri().path_and_query().map_or("/", |uri| uri.as_str());
    let (method, uri) = (head.method().clone(), uri.to_owned());
    let is_large = body.len() > FREE_BODY;
    let prove = move || {
        let content = content(&body)?;
        A::identify(&announced, &method, &uri, content.as_ref())
    };
    if is_large {
        tokio::task::spawn_blocking(prove)
            .await
            .map_err(Refusal::internal)?
    } else {
        prove()
    }
}

/// The body, and the memory it takes while it is not proved.
async fn read_body(
    body: Body,
    limit: usize,
    federation: &Federation,
) -> Result<(Bytes, Vec<BodyMemory>)> {
    let reading = async {
        let mut body = Limited::new(body, limit);
        let mut read = BytesMut::new();
        let mut memory = Vec::new();
        let mut reserved = FREE_BODY;
        while let Some(frame) = body.frame().await {
            let frame = match frame {
                Ok(frame) => frame,
                Err(error) if error.is::<LengthLimitError>() => {
                    return Err(Refusal::too_large(format!(
                        "The body is larger than {limit} bytes."
                    )));
                }
                Err(_) => {
                    return Err(Refusal::bad_request(
                        ErrorKind::Unknown,
                        "The body ended early.",
                    ));
                }
            };
            let Ok(data) = frame.into_data() else {
                continue;
            };
            let missing = (read.len() + data.len()).saturating_sub(reserved);
            if missing > 0 {
                // In few steps: each is a permit.
                let step = missing.max(reserved).min(limit);
                let permit = federation.admit_body(step).await;
                memory.push(permit.ok_or_else(|| Refusal::too_fast(BUSY))?);
                reserved += step;
            }
            read.extend_from_slice(&data);
        }
        Ok((read.freeze(), memory))
    };
    tokio::time::timeout(BODY_TIMEOUT, reading)
        .await
        .unwrap_or_else(|_| {
            Err(Refusal::new(
                StatusCode::REQUEST_TIMEOUT,
                ErrorKind::Unknown,
                "The body did not come in time.",
            ))
        })
}

/// The body as JSON, which is always an object; none if it is empty.
fn content(body: &[u8]) -> Result<Option<Value>> {
    if body.is_empty() {
        return Ok(None);
    }
    canonical::parse_object(body, Numbers::Any)
        .map(|object| Some(Value::Object(object)))
        .map_err(|error| {
            let kind = match error {
                CanonicalError::Syntax(_) => ErrorKind::NotJson,
                CanonicalError::NotAnObject
                | CanonicalError::TooDeep
                | CanonicalError::Float
                | CanonicalError::OutOfRange => ErrorKind::BadJson,
            };
            Refusal::bad_request(kind, format!("The body cannot be taken: {error}."))
        })
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
        DeserializationError::Json(error) => Refusal::bad_request(
            ErrorKind::BadJson,
            format!("The body is not what this endpoint takes: {error}."),
        ),
        DeserializationError::Query(error) => Refusal::invalid(format!(
            "The query is not what this endpoint takes: {error}."
        )),
        DeserializationError::Ident(error) => {
            Refusal::invalid(format!("An identifier is not valid: {error}."))
        }
        other => Refusal::invalid(format!("The request could not be read: {other}.")),
    }
}

/// The answer of an operation.
#[derive(Debug)]
pub(crate) struct Reply<R>(pub(crate) R);

impl<R: OutgoingResponse> IntoResponse for Reply<R> {
    fn into_response(self) -> Response {
        match self.0.try_into_http_response::<Vec<u8>>() {
            Ok(response) => response.map(Body::from),
            Err(error) => Refusal::internal(error).into_response(),
        }
    }
}
