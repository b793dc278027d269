//! `PUT /_matrix/client/v3/directory/list/room/{roomId}`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3directorylistroomroomid>

use axum::{Json, extract::State};
use myelin_rooms::{Rooms, SetVisibilityError, Visibility};
use ruma::{OwnedRoomId, api::auth_scheme::AccessToken};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{
    error::{Refusal, Result},
    extract::Call,
    shared::{no_such_room, refuse_failure},
};

fn refuse(error: SetVisibilityError) -> Refusal {
    match error {
        SetVisibilityError::RoomNotFound => no_such_room(),
        SetVisibilityError::NotAllowed => {
            Refusal::forbidden("You may not change whether this room is listed.")
        }
        SetVisibilityError::Failure(failure) => refuse_failure(failure),
    }
}

/// The body.
#[derive(Deserialize)]
struct Body {
    #[serde(default)]
    visibility: Wanted,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Wanted {
    #[default]
    Public,
    Private,
}

/// Lists a room in the public directory, or takes it off.
pub(crate) async fn set(
    State(rooms): State<Rooms>,
    call: Call<AccessToken>,
) -> Result<Json<Map<String, Value>>> {
    let room_id: OwnedRoomId = call.id(0)?;
    let visibility = match call.json::<Body>()?.visibility {
        Wanted::Public => Visibility::Public,
        Wanted::Private => Visibility::Private,
    };
    let caller = &call.caller;
    rooms
        .set_visibility(&room_id, &caller.user_id, visibility, caller.admin)
        .await
        .map_err(refuse)?;
    Ok(Json(Map::new()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::testing::{Server, encode};

    #[tokio::test]
    async fn whoever_has_the_power_lists_a_room() {
        let (server, alice, bob) = Server::with_two_users().await;
        let room = server
            .room(&alice, &json!({ "preset": "public_chat" }))
            .await;
        let path = format!("/directory/list/room/{}", encode(&room));
        for (body, now) in [
            (json!({ "visibility": "public" }), "public"),
            (json!({ "visibility": "public" }), "public"),
            (json!({ "visibility": "private" }), "private"),
            (json!({}), "public"),
        ] {
            assert_eq!(server.put(&path, &alice, &body).await.ok(), json!({}));
            assert_eq!(server.get(&path, &bob).await.ok()["visibility"], now);
        }
        let body = json!({ "visibility": "private" });
        server
            .put(&path, &bob, &body)
            .await
            .refused(403, "M_FORBIDDEN");
        server.join(&room, &bob).await;
        server
            .put(&path, &bob, &body)
            .await
            .refused(403, "M_FORBIDDEN");
        let nonsense = json!({ "visibility": "nonsense" });
        server
            .put(&path, &alice, &nonsense)
            .await
            .refused(400, "M_BAD_JSON");
        let nowhere = "/directory/list/room/!nowhere:hs1";
        server
            .put(nowhere, &alice, &body)
            .await
            .refused(404, "M_NOT_FOUND");
    }
}
