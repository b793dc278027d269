//! `GET /_matrix/client/v3/directory/room/{roomAlias}`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3directoryroomroomalias>

use axum::extract::State;
use myelin_federation::Federation;
use ruma::api::client::alias::get_alias::v3::{Request as Operation, Response};

use crate::{
    error::Result,
    extract::{Reply, Request},
    shared::refuse_alias,
};

/// Answers with the room that an alias points to. An alias of another server is asked for there.
pub(crate) async fn get(
    State(federation): State<Federation>,
    request: Request<Operation>,
) -> Result<Reply<Response>> {
    let found = federation
        .resolve_alias(&request.body.room_alias)
        .await
        .map_err(refuse_alias)?;
    Ok(Reply(Response::new(found.room_id, found.servers)))
}

#[cfg(test)]
mod tests {
    use http::Method;
    use serde_json::{Value, json};

    use crate::testing::Server;

    #[tokio::test]
    async fn anybody_finds_the_room_of_an_alias() {
        let server = Server::new().await;
        let alice = server.register("alice").await;
        let room = server
            .room(&alice, &json!({ "room_alias_name": "room_new" }))
            .await;
        let get = async |alias: &str| {
            let path = format!("/directory/room/{alias}");
            server.stranger(Method::GET, &path, &Value::Null).await
        };
        for _ in 0..2 {
            let found = get("%23room_new:hs1").await.ok();
            assert_eq!(found, json!({ "room_id": room, "servers": ["hs1"] }));
        }
        get("%23other:hs1").await.refused(404, "M_NOT_FOUND");
        get("%23room_new:hs2").await.refused(404, "M_NOT_FOUND");
        get("nonsense").await.refused(400, "M_INVALID_PARAM");
    }
}
