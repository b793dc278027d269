//! What a request is refused with.
//!
//! Each endpoint maps the errors of its operation in one exhaustive match onto a [`Refusal`]: a status, an errcode and
//! a message for the client. The cause is for the operator alone: it is logged, once, and has no way into the answer.

use std::{error::Error as StdError, time::Duration};

use axum::response::{IntoResponse, Response};
use http::StatusCode;
use ruma::api::{
    OutgoingResponseExt,
    error::{
        Error as MatrixError, ErrorBody, ErrorKind, LimitExceededErrorData, RetryAfter,
        StandardErrorBody, UnknownTokenErrorData,
    },
};
use serde_json::Value as JsonValue;

/// A refused request.
#[derive(Debug)]
pub struct Refusal {
    status: StatusCode,
    body: ErrorBody,
    cause: Option<Box<dyn StdError + Send + Sync>>,
}

/// What a handler returns.
pub(crate) type Result<T> = std::result::Result<T, Refusal>;

impl Refusal {
    /// A refusal with this status, errcode and message.
    pub fn new(status: StatusCode, kind: ErrorKind, message: impl Into<String>) -> Refusal {
        Refusal {
            status,
            body: ErrorBody::Standard(StandardErrorBody::new(kind, message.into())),
            cause: None,
        }
    }

    /// A refusal whose body is not a standard error, as user-interactive authentication has it.
    pub fn with_body(status: StatusCode, body: JsonValue) -> Refusal {
        Refusal {
            status,
            body: ErrorBody::Json(body),
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

    /// 400 `M_MISSING_PARAM`.
    pub fn missing(message: impl Into<String>) -> Refusal {
        Refusal::bad_request(ErrorKind::MissingParam, message)
    }

    /// 403 `M_FORBIDDEN`.
    pub fn forbidden(message: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::FORBIDDEN, ErrorKind::Forbidden, message)
    }

    /// 404 `M_NOT_FOUND`.
    pub fn not_found(message: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::NOT_FOUND, ErrorKind::NotFound, message)
    }

    /// 404 `M_UNRECOGNIZED`, for a path that no operation has.
    pub fn unknown_path() -> Refusal {
        Refusal::new(
            StatusCode::NOT_FOUND,
            ErrorKind::Unrecognized,
            "This server has no such endpoint.",
        )
    }

    /// 405 `M_UNRECOGNIZED`, for a method that the path's operations do not have.
    pub fn wrong_method() -> Refusal {
        Refusal::new(
            StatusCode::METHOD_NOT_ALLOWED,
            ErrorKind::Unrecognized,
            "This endpoint does not take that method.",
        )
    }

    /// 401 `M_MISSING_TOKEN`.
    pub fn missing_token() -> Refusal {
        Refusal::new(
            StatusCode::UNAUTHORIZED,
            ErrorKind::MissingToken,
            "This endpoint needs an access token.",
        )
    }

    /// 401 `M_UNKNOWN_TOKEN`; `soft_logout` tells the client that it may log in to the same device again or refresh.
    pub fn unknown_token(soft_logout: bool) -> Refusal {
        let mut data = UnknownTokenErrorData::new();
        data.soft_logout = soft_logout;
        let message = if soft_logout {
            "The access token has expired."
        } else {
            "The access token is not known."
        };
        Refusal::new(
            StatusCode::UNAUTHORIZED,
            ErrorKind::UnknownToken(data),
            message,
        )
    }

    /// 429 `M_LIMIT_EXCEEDED`, to be tried again after `wait`.
    pub fn too_fast(wait: Duration) -> Refusal {
        let mut data = LimitExceededErrorData::new();
        data.retry_after = Some(RetryAfter::Delay(wait));
        Refusal::new(
            StatusCode::TOO_MANY_REQUESTS,
            ErrorKind::LimitExceeded(data),
            "Too many requests; wait before the next one.",
        )
    }

    /// 413 `M_TOO_LARGE`.
    pub fn too_large(message: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, ErrorKind::TooLarge, message)
    }

    /// 500 `M_UNKNOWN`. The client learns nothing of `cause`; the log has all of it.
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

    /// The status that the client is answered.
    pub fn status(&self) -> StatusCode {
        self.status
    }
}

/// An error with its sources, as one sentence.
fn chain(error: &(dyn StdError + 'static)) -> String {
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
                "request failed"
            );
        }
        match MatrixError::new(self.status, self.body).try_into_http_response::<Vec<u8>>() {
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
