//! `GET /_matrix/federation/v1/query/directory`
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1querydirectory>

use axum::extract::State;
use myelin_federation::{Federation, ResolveAliasError};
use ruma::api::federation::query::get_room_information::v1::{Request as Operation, Response};

use crate::{
    error::{Refusal, Result},
    extract::{Reply, Request},
};

/// The room of an alias of this server.
pub(crate) async fn get(
    State(federation): State<Federation>,
    request: Request<Operation>,
) -> Result<Reply<Response>> {
    let alias = request.body.room_alias;
    if alias.server_name() != federation.server_name() {
        return Err(Refusal::invalid("The alias is not of this server."));
    }
    let found = federation
        .resolve_alias(&alias)
        .await
        .map_err(|error| match error {
            ResolveAliasError::NotFound => Refusal::not_found("No room has this alias."),
            ResolveAliasError::Query(cause) => Refusal::internal(cause),
            ResolveAliasError::Store(cause) => Refusal::internal(cause),
        })?;
    Ok(Reply(Response::new(found.room_id, found.servers)))
}

#[cfg(test)]
mod tests {
    use http::Method;
    use serde_json::json;

    use crate::testing::{Here, OUR_NAME};

    #[tokio::test]
    async fn aliases_of_this_server_are_told() {
        let here = Here::new().await;
        let room = here.public_room().await;
        // #老虎:here.example
        here.name(&room, "#\u{8001}\u{864e}:here.example").await;
        let get = async |alias: &str| {
            let path = format!("/_matrix/federation/v1/query/directory?room_alias={alias}");
            here.signed(Method::GET, &path, None).await
        };
        for _ in 0..2 {
            let found = get("%23%E8%80%81%E8%99%8E%3Ahere.example").await.ok();
            assert_eq!(found, json!({ "room_id": room, "servers": [OUR_NAME] }));
        }
        get("%23other%3Ahere.example")
            .await
            .refused(404, "M_NOT_FOUND");
        get("%23other%3Aelsewhere.example")
            .await
            .refused(400, "M_INVALID_PARAM");
        get("nonsense").await.refused(400, "M_INVALID_PARAM");
    }
}
