//! `PUT /_matrix/client/v3/user/{userId}/rooms/{roomId}/tags/{tag}`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3useruseridroomsroomidtagstag>

use axum::{Json, extract::State};
use myelin_accounts::{Accounts, TagError};
use myelin_rooms::Rooms;
use ruma::{
    OwnedRoomId, OwnedUserId,
    api::{auth_scheme::AccessToken, error::ErrorKind},
};
use serde_json::{Map, Value};

use super::{own, room};
use crate::{
    error::{Refusal, Result},
    extract::Call,
};

/// What a change of tags is refused with.
pub(super) fn refuse(error: TagError) -> Refusal {
    match error {
        TagError::InvalidName => Refusal::invalid("A tag is 1 to 255 bytes long."),
        TagError::InvalidOrder => Refusal::bad_request(
            ErrorKind::BadJson,
            "The order of a tag is a number from 0 to 1.",
        ),
        TagError::Failed(cause) => Refusal::internal(cause),
    }
}

/// Tags a room for the caller.
pub(crate) async fn set(
    State(rooms): State<Rooms>,
    State(accounts): State<Accounts>,
    call: Call<AccessToken>,
) -> Result<Json<Map<String, Value>>> {
    let user_id: OwnedUserId = call.id(0)?;
    let room_id: OwnedRoomId = call.id(1)?;
    own(&call.caller, &user_id)?;
    let room = room(&rooms, room_id).await?;
    accounts
        .set_tag(call.caller.user, room, call.arg(2), call.json()?)
        .await
        .map_err(refuse)?;
    Ok(Json(Map::new()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::testing::{Server, encode};

    #[tokio::test]
    async fn a_tag_is_set_and_changed() {
        let (server, alice, bob) = Server::with_two_users().await;
        let room = server.room(&alice, &json!({})).await;
        let path = |tag: &str| format!("/user/@alice:hs1/rooms/{}/tags/{tag}", encode(&room));
        for order in [json!({ "order": 0.5 }), json!({ "order": 0.5 }), json!({})] {
            assert_eq!(
                server.put(&path("u.work"), &alice, &order).await.ok(),
                json!({})
            );
            let sync = server.sync(&alice, "").await;
            let events = &sync["rooms"]["join"][&room]["account_data"]["events"];
            let content = json!({ "tags": { "u.work": order } });
            assert_eq!(*events, json!([{ "type": "m.tag", "content": content }]));
        }
        let order = json!({ "order": "first" });
        server
            .put(&path("u.work"), &alice, &order)
            .await
            .refused(400, "M_BAD_JSON");
        server
            .put(&path("u.work"), &bob, &json!({}))
            .await
            .refused(403, "M_FORBIDDEN");
        let long = path(&"u".repeat(256));
        server
            .put(&long, &alice, &json!({}))
            .await
            .refused(400, "M_INVALID_PARAM");
        let nowhere = "/user/@alice:hs1/rooms/!nowhere:hs1/tags/u.work";
        server
            .put(nowhere, &alice, &json!({}))
            .await
            .refused(404, "M_NOT_FOUND");
    }
}
