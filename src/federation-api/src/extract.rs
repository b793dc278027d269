//! From an HTTP request to the operation's own type, with the calling server proved.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{FromRequest, FromRequestParts, RawPathParams},
    middleware,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::{header, request::Parts};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use myelin_federation::{
    AuthError, Federation, Kind, Permit,
    auth::{Authorization, Signed},
};
use myelin_rules::canonical::{self, CanonicalError, Numbers};
use parking_lot::Mutex;
use ruma::{
    OwnedServerName,
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

/// The greatest body in bytes: a transaction of 50 events of 64 KiB, and 100 EDUs, with room to spare.
const MAX_BODY: usize = 8 << 20;

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

    /// Who may call.
    const ACCESS: Access;

    /// Counts the request towards what its server may ask for.
    fn admit(federation: &Federation, origin: &Self::Origin, kind: Kind) -> Result<Option<Permit>>;

    /// Proves who is calling.
    fn identify(
        federation: &Federation,
        head: &http::Request<()>,
        content: Option<&Value>,
    ) -> impl Future<Output = Result<Self::Origin>> + Send;
}

impl Identify for NoAuthentication {
    type Origin = ();

    const ACCESS: Access = Access::Public;

    fn admit(_: &Federation, (): &(), _: Kind) -> Result<Option<Permit>> {
        Ok(None)
    }

    async fn identify(_: &Federation, _: &http::Request<()>, _: Option<&Value>) -> Result<()> {
        Ok(())
    }
}

impl Identify for ServerSignatures {
    type Origin = OwnedServerName;

    const ACCESS: Access = Access::Server;

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

    async fn identify(
        federation: &Federation,
        head: &http::Request<()>,
        content: Option<&Value>,
    ) -> Result<OwnedServerName> {
        let authorization = authorization(head)?;
        let uri = head.uri().path_and_query().map_or("/", |uri| uri.as_str());
        let signed = Signed {
            method: head.method().as_str(),
            uri,
            content,
        };
        federation
            .authenticate(signed, &authorization)
            .await
            .map_err(|error| refuse_origin(&authorization.origin, &error))
    }
}

fn authorization(head: &http::Request<()>) -> Result<Authorization> {
    let header = head
        .headers()
        .get(header::AUTHORIZATION)
        .ok_or_else(|| Refusal::unauthorized("This endpoint needs a signed request."))?;
    let header = header
        .to_str()
        .map_err(|_| Refusal::unauthorized("The Authorization header is not readable."))?;
    Authorization::parse(header).map_err(|error| {
        Refusal::unauthorized(format!("The Authorization header is not valid: {error}."))
    })
}

fn refuse_origin(origin: &OwnedServerName, error: &AuthError) -> Refusal {
    tracing::debug!(%origin, error = chain(error), "request of another server is not believed");
    match error {
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

    if T::Authentication::ACCESS == Access::Server {
        // Whoever does not even say who he is has his body left unread.
        authorization(&head)?;
    }
    let body = read_body(body).await?;
    let content = content(&body)?;
    let origin = T::Authentication::identify(federation, &head, content.as_ref()).await?;
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

async fn read_body(body: Body) -> Result<Bytes> {
    match Limited::new(body, MAX_BODY).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Refusal::too_large(format!(
            "The body is larger than {MAX_BODY} bytes."
        ))),
        Err(_) => Err(Refusal::bad_request(
            ErrorKind::Unknown,
            "The body ended early.",
        )),
    }
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
