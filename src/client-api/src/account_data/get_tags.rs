//! `GET /_matrix/client/v3/user/{userId}/rooms/{roomId}/tags`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3useruseridroomsroomidtags>

use axum::{Json, extract::State};
use myelin_accounts::Accounts;
use myelin_rooms::Rooms;
use ruma::{OwnedRoomId, OwnedUserId, api::auth_scheme::AccessToken};
use serde_json::{Value, json};

use super::{own, room};
use crate::{
    error::{Refusal, Result},
    extract::Call,
};

/// Lists the caller's tags of a room.
pub(crate) async fn list(
    State(rooms): State<Rooms>,
    State(accounts): State<Accounts>,
    call: Call<AccessToken>,
) -> Result<Json<Value>> {
    let user_id: OwnedUserId = call.id(0)?;
    let room_id: OwnedRoomId = call.id(1)?;
    own(&call.caller, &user_id)?;
    let room = room(&rooms, room_id).await?;
    let user = call.caller.user;
    let tags = rooms
        .store()
        .read(move |view| accounts.tags(view, user, room))
        .await
        .map_err(Refusal::internal)?;
    Ok(Json(json!({ "tags": tags })))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::testing::{Server, encode};

    #[tokio::test]
    async fn everybody_sees_his_own_tags() {
        let (server, alice, bob) = Server::with_two_users().await;
        let room = server
            .room(&alice, &json!({ "preset": "public_chat" }))
            .await;
        server.join(&room, &bob).await;
        let path = |user: &str| format!("/user/{user}/rooms/{}/tags", encode(&room));
        let none = json!({ "tags": {} });
        assert_eq!(server.get(&path(&alice.id), &alice).await.ok(), none);
        let tag = format!("{}/m.favourite", path(&alice.id));
        server
            .put(&tag, &alice, &json!({ "order": 0.1 }))
            .await
            .ok();
        for _ in 0..2 {
            let tags = server.get(&path(&alice.id), &alice).await.ok();
            assert_eq!(tags, json!({ "tags": { "m.favourite": { "order": 0.1 } } }));
        }
        assert_eq!(server.get(&path(&bob.id), &bob).await.ok(), none);
        server
            .get(&path(&alice.id), &bob)
            .await
            .refused(403, "M_FORBIDDEN");
        let nowhere = "/user/@alice:hs1/rooms/!nowhere:hs1/tags";
        server
            .get(nowhere, &alice)
            .await
            .refused(404, "M_NOT_FOUND");
    }
}
