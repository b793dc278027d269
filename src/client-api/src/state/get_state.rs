//! `GET /_matrix/client/v3/rooms/{roomId}/state`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidstate>

use axum::{Json, extract::State};
use myelin_rooms::Rooms;
use ruma::api::client::state::get_state_events::v3::Request as Operation;
use serde_json::value::RawValue;

use crate::{
    error::Result,
    extract::Request,
    shared::{refuse_read, viewer},
};

/// Answers with the events of the room's state.
pub(crate) async fn get(
    State(rooms): State<Rooms>,
    request: Request<Operation>,
) -> Result<Json<Vec<Box<RawValue>>>> {
    rooms
        .client_state(&viewer(&request.caller), &request.body.room_id)
        .await
        .map(Json)
        .map_err(refuse_read)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;

    use crate::testing::{Server, in_room, text};

    #[tokio::test]
    async fn the_whole_state_is_shown_to_members() {
        let (server, alice, bob) = Server::with_two_users().await;
        let request = json!({ "preset": "public_chat", "name": "room_test", "topic": "about" });
        let room = server.room(&alice, &request).await;
        let path = in_room(&room, "/state");
        for _ in 0..2 {
            let state = server.get(&path, &alice).await.ok();
            let events = state.as_array().expect("a list");
            let types: BTreeSet<String> = events.iter().map(|event| text(&event["type"])).collect();
            for wanted in [
                "create",
                "join_rules",
                "name",
                "power_levels",
                "topic",
                "member",
            ] {
                assert!(types.contains(&format!("m.room.{wanted}")), "{wanted}");
            }
            for event in events {
                assert_eq!(event["room_id"], room);
                assert!(event["event_id"].is_string() && event["state_key"].is_string());
            }
        }
        server.get(&path, &bob).await.refused(403, "M_FORBIDDEN");
        let nowhere = in_room("!nowhere:hs1", "/state");
        server
            .get(&nowhere, &alice)
            .await
            .refused(403, "M_FORBIDDEN");
    }
}
