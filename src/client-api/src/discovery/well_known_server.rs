//! `GET /.well-known/matrix/server`
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#getwell-knownmatrixserver>

use std::sync::Arc;

use axum::{Json, extract::State};
use serde_json::{Value, json};

use crate::{
    About,
    error::{Refusal, Result},
};

/// Answers with the server that federation requests go to, if it is another.
pub(crate) async fn get(State(about): State<Arc<About>>) -> Result<Json<Value>> {
    let server = about
        .federation
        .as_ref()
        .ok_or_else(|| Refusal::not_found("Federation finds this server at its own name."))?;
    Ok(Json(json!({ "m.server": server })))
}
