//! `DELETE /_matrix/client/v3/user/{userId}/rooms/{roomId}/tags/{tag}`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#delete_matrixclientv3useruseridroomsroomidtagstag>

use axum::{Json, extract::State};
use myelin_accounts::Accounts;
use myelin_rooms::Rooms;
use ruma::{OwnedRoomId, OwnedUserId, api::auth_scheme::AccessToken};
use serde_json::{Map, Value};

use super::{own, room, set_tag::refuse};
use crate::{error::Result, extract::Call};

/// Takes a tag off a room for the caller.
pub(crate) async fn delete(
    State(rooms): State<Rooms>,
    State(accounts): State<Accounts>,
    call: Call<AccessToken>,
) -> Result<Json<Map<String, Value>>> {
    let user_id: OwnedUserId = call.id(0)?;
    let room_id: OwnedRoomId = call.id(1)?;
    own(&call.caller, &user_id)?;
    let room = room(&rooms, room_id).await?;
    accounts
        .delete_tag(call.caller.user, room, call.arg(2))
        .await
        .map_err(refuse)?;
    Ok(Json(Map::new()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::testing::{Server, encode};

    #[tokio::test]
    async fn a_tag_is_gone_and_the_others_stay() {
        let (server, alice, bob) = Server::with_two_users().await;
        let room = server.room(&alice, &json!({})).await;
        let tags = format!("/user/@alice:hs1/rooms/{}/tags", encode(&room));
        for tag in ["u.one", "u.two"] {
            server
                .put(&format!("{tags}/{tag}"), &alice, &json!({}))
                .await
                .ok();
        }
        let path = format!("{tags}/u.one");
        server
            .delete(&path, &bob, &json!({}))
            .await
            .refused(403, "M_FORBIDDEN");
        for _ in 0..2 {
            assert_eq!(
                server.delete(&path, &alice, &json!({})).await.ok(),
                json!({})
            );
            let left = server.get(&tags, &alice).await.ok();
            assert_eq!(left, json!({ "tags": { "u.two": {} } }));
        }
        let nowhere = "/user/@alice:hs1/rooms/!nowhere:hs1/tags/u.one";
        server
            .delete(nowhere, &alice, &json!({}))
            .await
            .refused(404, "M_NOT_FOUND");
    }
}
