//! `DELETE /_matrix/client/v3/profile/{userId}/{keyName}`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#delete_matrixclientv3profileuseridkeyname>

use axum::{Json, extract::State};
use myelin_accounts::Accounts;
use myelin_rooms::Rooms;
use ruma::{OwnedUserId, api::auth_scheme::AccessToken};
use serde_json::{Map, Value};

use super::{own_profile, refuse, tell_rooms};
use crate::{error::Result, extract::Call};

/// Removes one field of the caller's profile.
pub(crate) async fn delete(
    State(rooms): State<Rooms>,
    State(accounts): State<Accounts>,
    call: Call<AccessToken>,
) -> Result<Json<Map<String, Value>>> {
    let user_id: OwnedUserId = call.id(0)?;
    own_profile(&call.caller.user_id, &user_id)?;
    let changed = accounts
        .delete_profile_field(call.caller.user, call.arg(1))
        .await
        .map_err(refuse)?;
    tell_rooms(&rooms, &user_id, changed).await?;
    Ok(Json(Map::new()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::testing::{Server, encode};

    #[tokio::test]
    async fn a_field_is_gone_from_the_profile_and_the_rooms() {
        let (server, alice, bob) = Server::with_two_users().await;
        let path = "/profile/@alice:hs1/displayname";
        server
            .put(path, &alice, &json!({ "displayname": "Alice" }))
            .await
            .ok();
        let room = server.room(&alice, &json!({})).await;
        server
            .delete(path, &bob, &json!({}))
            .await
            .refused(403, "M_FORBIDDEN");
        for _ in 0..2 {
            assert_eq!(
                server.delete(path, &alice, &json!({})).await.ok(),
                json!({})
            );
            server.get(path, &alice).await.refused(404, "M_NOT_FOUND");
        }
        let entry = format!("m.room.member/{}", encode(&alice.id));
        let member = server.state(&room, &alice, &entry).await.ok();
        assert_eq!(member, json!({ "membership": "join" }));
    }
}
