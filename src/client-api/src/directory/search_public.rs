//! `POST /_matrix/client/v3/publicRooms`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3publicrooms>

use axum::{Json, extract::State};
use myelin_rooms::{
    Rooms,
    read::{PublicRooms, PublicRoomsQuery},
};
use ruma::{
    api::client::directory::get_public_rooms_filtered::v3::Request as Operation,
    directory::{RoomNetwork, RoomTypeFilter},
};

use super::list_public::{check_server, since};
use crate::{
    error::{Refusal, Result},
    extract::Request,
    shared::count,
};

/// Lists those rooms of the public directory that a filter lets through.
pub(crate) async fn search(
    State(rooms): State<Rooms>,
    request: Request<Operation>,
) -> Result<Json<PublicRooms>> {
    let query = request.body;
    check_server(&rooms, query.server.as_deref())?;
    if matches!(query.room_network, RoomNetwork::ThirdParty(_)) {
        // No application service brings rooms of other networks in.
        return Ok(Json(PublicRooms::default()));
    }
    let types = query.filter.room_types;
    rooms
        .public_rooms(PublicRoomsQuery {
            limit: query.limit.map(count),
            since: since(query.since.as_deref())?,
            search: query.filter.generic_search_term,
            types: (!types.is_empty()).then(|| types.iter().map(room_type).collect()),
        })
        .await
        .map(Json)
        .map_err(Refusal::internal)
}

fn room_type(filter: &RoomTypeFilter) -> Option<String> {
    filter.as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::testing::Server;

    const PATH: &str = "/publicRooms";

    #[tokio::test]
    async fn rooms_are_found_by_what_they_say_of_themselves() {
        let server = Server::new().await;
        let alice = server.register("alice").await;
        for (name, topic, alias, kind) in [
            ("Cheese", "tasty", "one", Value::Null),
            ("Wine", "goes with CHEESE", "two", json!("m.space")),
            ("Bread", "plain", "cheeseless", json!("org.example")),
        ] {
            let request = json!({
                "visibility": "public", "name": name, "topic": topic, "room_alias_name": alias,
                "creation_content": if kind.is_null() { json!({}) } else { json!({ "type": kind }) },
            });
            server.room(&alice, &request).await;
        }
        for (filter, found) in [
            (json!({}), vec!["Bread", "Wine", "Cheese"]),
            (
                json!({ "generic_search_term": "cheese" }),
                vec!["Bread", "Wine", "Cheese"],
            ),
            (json!({ "generic_search_term": "tasty" }), vec!["Cheese"]),
            (json!({ "generic_search_term": "meat" }), vec![]),
            (json!({ "room_types": [Value::Null] }), vec!["Cheese"]),
            (
                json!({ "room_types": [Value::Null, "m.space"] }),
                vec!["Wine", "Cheese"],
            ),
            (
                json!({ "room_types": ["m.space"], "generic_search_term": "tasty" }),
                vec![],
            ),
        ] {
            for _ in 0..2 {
                let page = server
                    .post(PATH, &alice, &json!({ "filter": filter }))
                    .await
                    .ok();
                let chunk = page["chunk"].as_array().expect("a chunk");
                let names: Vec<_> = chunk.iter().map(|room| room["name"].clone()).collect();
                assert_eq!(names, found, "{filter}");
            }
        }
        let page = server.post(PATH, &alice, &json!({ "limit": 1 })).await.ok();
        assert_eq!(page["chunk"].as_array().map(Vec::len), Some(1));
        let next = json!({ "limit": 1, "since": page["next_batch"] });
        let page = server.post(PATH, &alice, &next).await.ok();
        assert_eq!(page["chunk"][0]["name"], "Wine");
        let other = json!({ "third_party_instance_id": "irc" });
        assert_eq!(
            server.post(PATH, &alice, &other).await.ok(),
            json!({ "chunk": [] })
        );
    }

    #[tokio::test]
    async fn other_servers_and_nonsense_are_refused() {
        let server = Server::new().await;
        let alice = server.register("alice").await;
        let post = async |query: &str, body: Value| {
            server.post(&format!("{PATH}{query}"), &alice, &body).await
        };
        post("?server=hs2", json!({}))
            .await
            .refused(404, "M_NOT_FOUND");
        post("", json!({ "since": "nonsense" }))
            .await
            .refused(400, "M_INVALID_PARAM");
        post("", json!({ "filter": [] }))
            .await
            .refused(400, "M_BAD_JSON");
    }
}
