//! `GET /_matrix/client/v3/presence/{userId}/status`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3presenceuseridstatus>

use axum::{Json, extract::State};
use myelin_rooms::{PresenceState, Rooms};
use ruma::{OwnedUserId, api::auth_scheme::AccessToken};
use serde::Serialize;

use super::refuse;
use crate::{error::Result, extract::Call};

/// The answer's body.
#[derive(Debug, Serialize)]
pub(crate) struct Body {
    presence: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_active_ago: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status_msg: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    currently_active: Option<bool>,
}

/// Answers with the presence of somebody with whom the caller shares a room. Of others it is not told whether they exist.
pub(crate) async fn get(State(rooms): State<Rooms>, call: Call<AccessToken>) -> Result<Json<Body>> {
    let user_id: OwnedUserId = call.id(0)?;
    let presence = rooms
        .presence_of(call.caller.user, &user_id)
        .await
        .map_err(refuse)?;
    let now = rooms.clock().now();
    let online = presence.state == PresenceState::Online;
    Ok(Json(Body {
        presence: presence.state.as_str(),
        last_active_ago: presence.last_active.map(|at| now.0.saturating_sub(at.0)),
        status_msg: presence.status.as_deref().map(str::to_owned),
        currently_active: online.then_some(presence.currently_active),
    }))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use crate::testing::Server;

    #[tokio::test]
    async fn the_presence_of_those_in_a_common_room_is_told() {
        let (server, alice, bob) = Server::with_two_users().await;
        let path = format!("/presence/{}/status", alice.id);
        let offline = json!({ "presence": "offline" });
        for _ in 0..2 {
            assert_eq!(server.get(&path, &alice).await.ok(), offline);
        }
        server.get(&path, &bob).await.refused(403, "M_FORBIDDEN");
        let nobody = "/presence/@nobody:hs1/status";
        server.get(nobody, &bob).await.refused(403, "M_FORBIDDEN");

        let room = server
            .room(&alice, &json!({ "preset": "public_chat" }))
            .await;
        server.join(&room, &bob).await;
        assert_eq!(server.get(&path, &bob).await.ok(), offline);
        let status = json!({ "presence": "online", "status_msg": "Testing" });
        server.put(&path, &alice, &status).await.ok();
        server.clock.advance(Duration::from_secs(7));
        let expected = json!({
            "presence": "online",
            "last_active_ago": 7_000,
            "status_msg": "Testing",
            "currently_active": true,
        });
        assert_eq!(server.get(&path, &bob).await.ok(), expected);
        server.clock.advance(Duration::from_secs(30));
        let gone = server.get(&path, &bob).await.ok();
        assert_eq!(gone["presence"], "offline");
        assert_eq!(gone["status_msg"], "Testing");
        server.leave(&room, &bob).await;
        server.get(&path, &bob).await.refused(403, "M_FORBIDDEN");
    }
}
