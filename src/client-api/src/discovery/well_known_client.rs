//! `GET /.well-known/matrix/client`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#getwell-knownmatrixclient>

use std::sync::Arc;

use axum::extract::State;
use ruma::api::client::discovery::discover_homeserver::{
    HomeserverInfo, Request as Operation, Response,
};

use crate::{
    About,
    error::{Refusal, Result},
    extract::{Reply, Request},
};

/// Answers with the address that is configured, if one is.
pub(crate) async fn get(
    State(about): State<Arc<About>>,
    _: Request<Operation>,
) -> Result<Reply<Response>> {
    let base_url = about
        .client_base_url
        .as_ref()
        .ok_or_else(|| Refusal::not_found("This server does not say where it is."))?;
    Ok(Reply(Response::new(HomeserverInfo::new(
        base_url.to_string(),
    ))))
}

#[cfg(test)]
mod tests {
    use http::Method;
    use serde_json::json;

    use crate::testing::Server;

    const PATH: &str = "/.well-known/matrix/client";

    #[tokio::test]
    async fn it_is_told_what_was_configured() {
        let server = Server::with(|config| {
            config.well_known.client = Some("https://matrix.example.org".parse().expect("a URL"));
        })
        .await;
        for _ in 0..2 {
            let answer = server.send(Method::GET, PATH, None, Vec::new()).await;
            assert_eq!(answer.headers["content-type"], "application/json");
            let told = json!({ "m.homeserver": { "base_url": "https://matrix.example.org" } });
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
