//! `GET /_matrix/federation/v1/query/{queryType}`
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1queryquerytype>

use ruma::api::federation::query::get_custom_information::v1::{Request as Operation, Response};

use crate::{
    error::{Refusal, Result},
    extract::{Reply, Request},
};

/// Of queries beyond those that the specification describes none is known here.
pub(crate) async fn get(request: Request<Operation>) -> Result<Reply<Response>> {
    let kind = request.body.query_type;
    Err(Refusal::unknown_path(format!(
        "This server knows no query {kind:?}."
    )))
}

#[cfg(test)]
mod tests {
    use http::Method;

    use crate::testing::Here;

    #[tokio::test]
    async fn other_queries_are_not_known() {
        let here = Here::new().await;
        for path in ["query/nonsense", "query/nonsense?a=b"] {
            let path = format!("/_matrix/federation/v1/{path}");
            here.signed(Method::GET, &path, None)
                .await
                .refused(404, "M_UNRECOGNIZED");
        }
    }
}
