//! `GET /_matrix/client/v3/publicRooms`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3publicrooms>

use axum::{Json, extract::State};
use myelin_rooms::{
    Rooms,
    read::{PublicRooms, PublicRoomsQuery, PublicRoomsToken},
};
use ruma::{ServerName, api::client::directory::get_public_rooms::v3::Request as Operation};

use crate::{
    error::{Refusal, Result},
    extract::Request,
    shared::count,
};

/// Lists the rooms of the public directory.
pub(crate) async fn list(
    State(rooms): State<Rooms>,
    request: Request<Operation>,
) -> Result<Json<PublicRooms>> {
    let query = request.body;
    check_server(&rooms, query.server.as_deref())?;
    rooms
        .public_rooms(PublicRoomsQuery {
            limit: query.limit.map(count),
            since: since(query.since.as_deref())?,
            ..PublicRoomsQuery::default()
        })
        .await
        .map(Json)
        .map_err(Refusal::internal)
}

/// Refuses to list the rooms of another server, which cannot be asked from here.
pub(super) fn check_server(rooms: &Rooms, server: Option<&ServerName>) -> Result<()> {
    match server {
        Some(server) if server != rooms.server_name() => Err(Refusal::not_found(format!(
            "{server} cannot be reached from here."
        ))),
        _ => Ok(()),
    }
}

/// Where the page begins.
pub(super) fn since(text: Option<&str>) -> Result<Option<PublicRoomsToken>> {
    text.map(str::parse)
        .transpose()
        .map_err(|_| Refusal::invalid("This is not a token of the directory."))
}

#[cfg(test)]
mod tests {
    use http::Method;
    use serde_json::{Value, json};

    use crate::testing::Server;

    #[tokio::test]
    async fn anybody_finds_the_rooms_that_are_listed() {
        let server = Server::new().await;
        let alice = server.register("alice").await;
        server
            .room(&alice, &json!({ "preset": "public_chat" }))
            .await;
        let request = json!({
            "visibility": "public",
            "preset": "public_chat",
            "name": "CHEESE",
            "topic": "Tasty tasty cheese",
            "room_alias_name": "cheese",
            "creation_content": { "type": "m.space" },
        });
        let room = server.room(&alice, &request).await;
        for _ in 0..2 {
            let answer = server
                .stranger(Method::GET, "/publicRooms", &Value::Null)
                .await;
            let shown = json!({ "chunk": [{
                "room_id": room,
                "name": "CHEESE",
                "topic": "Tasty tasty cheese",
                "canonical_alias": "#cheese:hs1",
                "num_joined_members": 1,
                "world_readable": false,
                "guest_can_join": false,
                "join_rule": "public",
                "room_type": "m.space",
            }] });
            assert_eq!(answer.ok(), shown);
        }
        server.leave(&room, &alice).await;
        let answer = server
            .stranger(Method::GET, "/publicRooms", &Value::Null)
            .await;
        assert_eq!(answer.ok(), json!({ "chunk": [] }), "nobody is there");
    }

    #[tokio::test]
    async fn pages_follow_each_other_in_both_directions() {
        let server = Server::new().await;
        let alice = server.register("alice").await;
        let mut rooms = Vec::new();
        for _ in 0..5 {
            rooms.insert(
                0,
                server
                    .room(&alice, &json!({ "visibility": "public" }))
                    .await,
            );
        }
        let page = async |token: &Value| -> Value {
            let since = token
                .as_str()
                .map_or_else(String::new, |token| format!("&since={token}"));
            server
                .get(&format!("/publicRooms?limit=2{since}"), &alice)
                .await
                .ok()
        };
        let ids = |page: &Value| -> Vec<Value> {
            let chunk = page["chunk"].as_array().expect("a chunk");
            chunk.iter().map(|room| room["room_id"].clone()).collect()
        };
        let first = page(&Value::Null).await;
        let second = page(&first["next_batch"]).await;
        let third = page(&second["next_batch"]).await;
        assert_eq!(ids(&first), rooms[..2]);
        assert_eq!(ids(&second), rooms[2..4]);
        assert_eq!(ids(&third), rooms[4..]);
        assert!(first.get("prev_batch").is_none() && third.get("next_batch").is_none());
        let back = page(&third["prev_batch"]).await;
        assert_eq!(ids(&back), ids(&second));
        let back = page(&back["prev_batch"]).await;
        assert_eq!(ids(&back), ids(&first));
        assert!(back.get("prev_batch").is_none());
        assert_eq!(ids(&page(&back["next_batch"]).await), ids(&second));
    }

    #[tokio::test]
    async fn other_servers_and_nonsense_are_refused() {
        let server = Server::new().await;
        let get = async |query: &str| {
            let path = format!("/publicRooms?{query}");
            server.stranger(Method::GET, &path, &Value::Null).await
        };
        get("server=hs1").await.ok();
        get("server=hs2").await.refused(404, "M_NOT_FOUND");
        get("since=nonsense").await.refused(400, "M_INVALID_PARAM");
        get("limit=nonsense").await.refused(400, "M_INVALID_PARAM");
    }
}
