//! `GET /_matrix/client/versions`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientversions>

use ruma::api::client::discovery::get_supported_versions::{Request as Operation, Response};

use crate::extract::{Reply, Request};

/// The versions of the specification whose clients find what they need here. A version is added when what it asks of a
/// server works: v1.3 and v1.4 need `/relations` and `/threads`, which clients call as soon as they read of them here.
const VERSIONS: [&str; 2] = ["v1.1", "v1.2"];

/// Answers with the versions.
pub(crate) async fn get(_: Request<Operation>) -> Reply<Response> {
    Reply(Response::new(VERSIONS.map(str::to_owned).to_vec()))
}

#[cfg(test)]
mod tests {
    use http::Method;

    use crate::testing::Server;

    #[tokio::test]
    async fn versions_are_told_to_anybody() {
        let server = Server::new().await;
        for _ in 0..2 {
            let answer = server
                .send(Method::GET, "/_matrix/client/versions", None, Vec::new())
                .await;
            assert_eq!(answer.headers["content-type"], "application/json");
            let body = answer.ok();
            let versions = body["versions"].as_array().expect("a list");
            assert!(versions.iter().any(|version| version == "v1.2"));
            let grammar = |text: &str| {
                let (major, minor) = text.strip_prefix('v')?.split_once('.')?;
                Some((major.parse::<u32>().ok()?, minor.parse::<u32>().ok()?))
            };
            assert!(
                versions
                    .iter()
                    .all(|text| text.as_str().and_then(grammar).is_some())
            );
        }
    }
}
