//! What every request leaves behind: a span while it runs, a log line and numbers when it is answered.

use std::{any::Any, time::Instant};

use axum::{
    Json,
    extract::{MatchedPath, Request},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use http::{Method, StatusCode};
use serde_json::json;
use tracing::{Instrument as _, field::Empty};

/// Watches one request. Only the route's template is recorded, never the path, the query or a header: they may hold
/// tokens.
pub(crate) async fn request(request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = method_name(request.method());
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| "unmatched".to_owned(), |path| path.as_str().to_owned());
    let span = tracing::info_span!("request", method, route, status = Empty);
    let response = next.run(request).instrument(span.clone()).await;

    let status = response.status();
    let elapsed = started.elapsed();
    span.record("status", status.as_u16());
    span.in_scope(|| {
        let elapsed_ms = elapsed.as_secs_f64() * 1e3;
        if status.is_server_error() {
            tracing::warn!(elapsed_ms, "request failed");
        } else {
            tracing::debug!(elapsed_ms, "request answered");
        }
    });
    metrics::histogram!("http_request_seconds", "method" => method, "route" => route.clone())
        .record(elapsed.as_secs_f64());
    metrics::counter!(
        "http_requests_total",
        "method" => method, "route" => route, "status" => status.as_u16().to_string()
    )
    .increment(1);
    response
}

/// The answer where a handler panicked: the message is for the log, the client learns that it is our fault.
pub(crate) fn panicked(panic: Box<dyn Any + Send>) -> Response {
    let message = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("a value that is not text");
    tracing::error!(panic = message, "a request's handler panicked");
    let body = json!({ "errcode": "M_UNKNOWN", "error": "Internal server error" });
    (StatusCode::INTERNAL_SERVER_ERROR, Json(body)).into_response()
}

/// Methods as labels; strangers cannot add new ones.
fn method_name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        Method::HEAD => "HEAD",
        _ => "other",
    }
}
