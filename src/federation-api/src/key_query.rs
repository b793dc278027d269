//! `GET /_matrix/key/v2/query/{serverName}`
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#get_matrixkeyv2queryservername>

use axum::{
    Json,
    extract::{Path, RawQuery, State},
};
use myelin_federation::{Federation, KeyError, Queries};
use myelin_types::Millis;
use ruma::OwnedServerName;
use serde_json::{Value, json};

use crate::error::{Refusal, Result};

/// The keys of a server with our signature. As they were signed: to sign what was parsed and printed again would be to sign
/// something else.
pub(crate) async fn get(
    State(federation): State<Federation>,
    Path(server): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Json<Value>> {
    let server = OwnedServerName::try_from(server)
        .map_err(|_| Refusal::invalid("The path does not name a server."))?;
    let until = minimum(query.as_deref().unwrap_or_default())?;
    let wanted = until.map(|until| (None, Some(until)));
    answer(&federation, [(server, wanted.into_iter().collect())].into()).await
}

/// Until when the keys should count at least.
fn minimum(query: &str) -> Result<Option<Millis>> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let value = pairs
        .filter(|(name, _)| *name == "minimum_valid_until_ts")
        .map(|(_, value)| value)
        .next();
    let parsed = value.map(str::parse).transpose();
    parsed
        .map(|until| until.map(Millis))
        .map_err(|_| Refusal::invalid("`minimum_valid_until_ts` is not a timestamp."))
}

/// What is known, as an answer.
pub(crate) async fn answer(federation: &Federation, queries: Queries) -> Result<Json<Value>> {
    let keys = federation.notarize(queries).await;
    let keys = keys.map_err(|error| match error {
        KeyError::Store(cause) => Refusal::internal(cause),
        KeyError::Commit(cause) => Refusal::internal(cause),
        KeyError::Unknown
        | KeyError::Busy
        | KeyError::Resting
        | KeyError::Request(_)
        | KeyError::Malformed(_) => Refusal::internal(error),
    })?;
    Ok(Json(json!({ "server_keys": keys })))
}
