//! `GET /_matrix/key/v2/server`
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#get_matrixkeyv2server>

use axum::{Json, extract::State, response::IntoResponse};
use myelin_federation::Federation;

/// This server's keys. As they were signed: to sign what was parsed and printed again would be to sign something else.
pub(crate) async fn get(State(federation): State<Federation>) -> impl IntoResponse {
    Json((*federation.own_keys()).clone())
}
