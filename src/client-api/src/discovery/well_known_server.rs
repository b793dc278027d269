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

#[cfg(test)]
mod tests {
    use http::Method;
    use serde_json::json;

    use crate::testing::Server;

    const PATH: &str = "/.well-known/matrix/server";

    #[tokio::test]
    async fn it_is_told_what_was_configured() {
        let server = Server::with(|config| {
            config.well_known.server = Some(ruma::owned_server_name!("matrix.example.org:443"));
        })
        .await;
        for _ in 0..2 {
            let answer = server.send(Method::GET, PATH, None, Vec::new()).await;
            assert_eq!(answer.headers["content-type"], "application/json");
            let told = json!({ "m.server": "matrix.example.org:443" });
            assert_eq!(answer.ok(), told);
        }
    }

    #[tokio::test]
    async fn without_configuration_there_is_nothing_to_tell() {
        let server = Server::new().await;
        let answer = server.send(Method::GET, PATH, None, Vec::new()).await;
        answer.refused(404, "M_NOT_FOUND");
    }
}
