//! `POST /_matrix/key/v2/query`
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#post_matrixkeyv2query>

use std::collections::BTreeMap;

use axum::{Json, body::Bytes, extract::State};
use myelin_federation::{Federation, Queries};
use myelin_types::Millis;
use ruma::{OwnedServerName, api::error::ErrorKind};
use serde::Deserialize;
use serde_json::{Value, error::Category};

use crate::{
    error::{Refusal, Result},
    key_query::answer,
};

/// The greatest body in bytes: some thousands of keys.
const MAX_BODY: usize = 512 << 10;

/// What is asked. Names and key identifiers are read one by one, so that one which is none does not spoil the others.
#[derive(Deserialize)]
struct Query {
    server_keys: BTreeMap<String, BTreeMap<String, Criteria>>,
}

#[derive(Deserialize)]
struct Criteria {
    minimum_valid_until_ts: Option<u64>,
}

/// The keys of servers with our signature.
pub(crate) async fn post(State(federation): State<Federation>, body: Bytes) -> Result<Json<Value>> {
    if body.len() > MAX_BODY {
        return Err(Refusal::too_large(format!(
            "The body is larger than {MAX_BODY} bytes."
        )));
    }
    let query: Query = serde_json::from_slice(&body).map_err(|error| {
        let kind = match error.classify() {
            Category::Data => ErrorKind::BadJson,
            Category::Io | Category::Syntax | Category::Eof => ErrorKind::NotJson,
        };
        Refusal::bad_request(kind, format!("The body cannot be taken: {error}."))
    })?;
    let queries: Queries = query
        .server_keys
        .into_iter()
        .filter_map(|(server, keys)| {
            let server = OwnedServerName::try_from(server).ok()?;
            let keys = keys
                .into_iter()
                .map(|(id, criteria)| (Some(id), criteria.minimum_valid_until_ts.map(Millis)));
            Some((server, keys.collect()))
        })
        .collect();
    answer(&federation, queries).await
}
