//! What a request is refused with.
//!
//! Each endpoint maps the errors of its operation in one exhaustive match onto a [`Refusal`]: a status, an errcode and
//! a message for the other server. The cause is for the operator alone: it is logged, once, and has no way into the
//! answer.

use std::{error::Error as StdError, time::Duration};

use axum::response::{IntoResponse, Response};
use http::StatusCode;
use ruma::{
    RoomVersionId,
    api::{
        OutgoingResponseExt,
        error::{
            Error as MatrixError, ErrorBody, ErrorKind, IncompatibleRoomVersionErrorData,
            LimitExceededErrorData, RetryAfter, StandardErrorBody, UnknownTokenErrorData,
        },
    },
};

/// A refused request.
#[derive(Debug)]
pub struct Refusal {
    status: StatusCode,
    kind: ErrorKind,
    message: String,
    cause: Option<Box<dyn StdError + Send + Sync>>,
}

/// What a handler returns.
pub(crate) type Result<T> = std::result::Result<T, Refusal>;

impl Refusal {
    /// A refusal with this status, errcode and message.
    pub fn new(status: StatusCode, kind: ErrorKind, message: impl Into<String>) -> Refusal {
        Refusal {
            status,
            kind,
            message: message.into(),
            cause: None,
        }
    }

    /// 400 with this errcode.
    pub fn bad_request(kind: ErrorKind, message: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::BAD_REQUEST, kind, message)
    }

    /// 400 `M_INVALID_PARAM`.
    pub fn invalid(message: impl Into<String>) -> Refusal {
        Refusal::bad_request(ErrorKind::InvalidParam, message)
    }

    /// 401 `M_UNAUTHORIZED`.
    pub fn unauthorized(message: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::UNAUTHORIZED, ErrorKind::Unauthorized, message)
    }

    /// 401 `M_UNKNOWN_TOKEN`, for a token in the place of a signature.
    pub fn unknown_token() -> Refusal {
        let kind = ErrorKind::UnknownToken(UnknownTokenErrorData::new());
        Refusal::new(
            StatusCode::UNAUTHORIZED,
            kind,
            "The token is not known, or has ended.",
        )
    }

    /// 403 `M_FORBIDDEN`.
    pub fn forbidden(message: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::FORBIDDEN, ErrorKind::Forbidden, message)
    }

    /// 404 `M_NOT_FOUND`.
    pub fn not_found(message: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::NOT_FOUND, ErrorKind::NotFound, message)
    }

    /// 400 `M_INCOMPATIBLE_ROOM_VERSION`, for a room of this version.
    pub fn incompatible_version(version: RoomVersionId, message: impl Into<String>) -> Refusal {
        let data = IncompatibleRoomVersionErrorData::new(version);
        Refusal::bad_request(ErrorKind::IncompatibleRoomVersion(data), message)
    }

    /// 404 `M_UNRECOGNIZED`, for what is not served.
    pub fn unknown_path(message: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::NOT_FOUND, ErrorKind::Unrecognized, message)
    }

    /// 405 `M_UNRECOGNIZED`, for a method that the path's operations do not have.
    pub fn wrong_method() -> Refusal {
        Refusal::new(
            StatusCode::METHOD_NOT_ALLOWED,
            ErrorKind::Unrecognized,
            "This endpoint does not take that method.",
        )
    }

    /// 413 `M_TOO_LARGE`.
    pub fn too_large(message: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, ErrorKind::TooLarge, message)
    }

    /// 429 `M_LIMIT_EXCEEDED`, to be tried again after this time.
    pub fn too_fast(retry_after: Duration) -> Refusal {
        let mut data = LimitExceededErrorData::new();
        data.retry_after = Some(RetryAfter::Delay(retry_after));
        Refusal::new(
            StatusCode::TOO_MANY_REQUESTS,
            ErrorKind::LimitExceeded(data),
            "This server is asked too much.",
        )
    }

    /// 500 `M_UNKNOWN`. The other server learns nothing of `cause`; the log has all of it.
    pub fn internal(cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Refusal {
        Refusal {
            cause: Some(cause.into()),
            ..Refusal::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                ErrorKind::Unknown,
                "Something went wrong on this server; its log says what.",
            )
        }
    }

    /// For a room that this server does not know or is not in.
    pub(crate) fn no_such_room() -> Refusal {
        Refusal::not_found("This server knows no such room.")
    }

    /// The status that the other server is answered.
    pub fn status(&self) -> StatusCode {
        self.status
    }
}

/// An error with its sources, as one sentence.
pub(crate) fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        if let Some(cause) = &self.cause {
            tracing::error!(
                status = self.status.as_u16(),
                cause = chain(&**cause),
                "request of another server failed"
            );
        }
        let body = ErrorBody::Standard(StandardErrorBody::new(self.kind, self.message));
        match MatrixError::new(self.status, body).try_into_http_response::<Vec<u8>>() {
            Ok(response) => response.map(axum::body::Body::from),
            Err(error) => {
                tracing::error!(
                    cause = chain(&error),
                    "an error could not be put into words"
                );
                StatusCode::INTERNAL_SERVER_ERROR.into_response()
            }
        }
    }
}
