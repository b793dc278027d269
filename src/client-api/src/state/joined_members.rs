//! `GET /_matrix/client/v3/rooms/{roomId}/joined_members`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidjoined_members>

use axum::{Json, extract::State};
use myelin_rooms::{Rooms, read::JoinedMembers};
use ruma::api::client::membership::joined_members::v3::Request as Operation;

use crate::{
    error::Result,
    extract::Request,
    shared::{refuse_read, viewer},
};

/// Lists the joined members with their profiles.
pub(crate) async fn list(
    State(rooms): State<Rooms>,
    request: Request<Operation>,
) -> Result<Json<JoinedMembers>> {
    rooms
        .joined_members(&viewer(&request.caller), &request.body.room_id)
        .await
        .map(Json)
        .map_err(refuse_read)
}

#[cfg(test)]
mod tests {
    use http::Method;
    use serde_json::{Value, json};

    use crate::testing::{Server, in_room};

    #[tokio::test]
    async fn members_are_shown_with_what_they_say_of_themselves() {
        let (server, alice, bob) = Server::with_two_users().await;
        let charlie = server.register("charlie").await;
        let name = json!({ "displayname": "Bob" });
        server
            .put("/profile/@bob:hs1/displayname", &bob, &name)
            .await
            .ok();
        let request = json!({ "preset": "public_chat", "invite": [charlie.id] });
        let room = server.room(&alice, &request).await;
        server.join(&room, &bob).await;
        let path = in_room(&room, "/joined_members");
        for _ in 0..2 {
            let members = json!({ "joined": {
                "@alice:hs1": { "display_name": Value::Null, "avatar_url": Value::Null },
                "@bob:hs1": { "display_name": "Bob", "avatar_url": Value::Null },
            } });
            assert_eq!(server.get(&path, &alice).await.ok(), members);
        }
        server
            .get(&path, &charlie)
            .await
            .refused(403, "M_FORBIDDEN");
        server.leave(&room, &bob).await;
        let old = format!("/_matrix/client/r0{path}");
        server
            .send(Method::GET, &old, Some(&bob.token), Vec::new())
            .await
            .refused(403, "M_FORBIDDEN");
        let nowhere = in_room("!nowhere:hs1", "/joined_members");
        server
            .get(&nowhere, &alice)
            .await
            .refused(403, "M_FORBIDDEN");
    }
}
