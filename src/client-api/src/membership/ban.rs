//! `POST /_matrix/client/v3/rooms/{roomId}/ban`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidban>

use axum::extract::State;
use myelin_rooms::Rooms;
use ruma::api::client::membership::ban_user::v3::{Request as Operation, Response};

use super::{moderation, refuse_moderation};
use crate::{
    error::Result,
    extract::{Reply, Request},
};

/// Bans a user.
pub(crate) async fn ban(
    State(rooms): State<Rooms>,
    request: Request<Operation>,
) -> Result<Reply<Response>> {
    let Request { body, caller, .. } = request;
    rooms
        .ban(moderation(
            body.room_id,
            caller.user_id,
            body.user_id,
            body.reason,
        ))
        .await
        .map_err(refuse_moderation)?;
    Ok(Reply(Response::new()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::testing::{Server, encode, in_room};

    #[tokio::test]
    async fn whoever_is_banned_is_out_and_stays_out() {
        let (server, alice, bob) = Server::with_two_users().await;
        let room = server
            .room(&alice, &json!({ "preset": "public_chat" }))
            .await;
        server.join(&room, &bob).await;
        let body = json!({ "user_id": bob.id, "reason": "Testing" });
        let member = format!("m.room.member/{}", encode(&bob.id));
        for _ in 0..2 {
            let answer = server.post(&in_room(&room, "/ban"), &alice, &body).await;
            assert_eq!(answer.ok(), json!({}));
            let content = json!({ "membership": "ban", "reason": "Testing" });
            assert_eq!(server.state(&room, &alice, &member).await.ok(), content);
        }
        let join = in_room(&room, "/join");
        server
            .post(&join, &bob, &json!({}))
            .await
            .refused(403, "M_FORBIDDEN");
        server
            .act("invite", &room, &alice, &bob)
            .await
            .refused(403, "M_FORBIDDEN");
    }

    #[tokio::test]
    async fn only_members_with_power_ban() {
        let (server, alice, bob) = Server::with_two_users().await;
        let charlie = server.register("charlie").await;
        let request = json!({ "preset": "public_chat", "room_version": "11" });
        let room = server.room(&alice, &request).await;
        server.join(&room, &bob).await;
        server
            .act("ban", &room, &bob, &alice)
            .await
            .refused(403, "M_FORBIDDEN");
        let levels = json!({ "users": { &charlie.id: 100 } });
        server
            .set_state(&room, &alice, "m.room.power_levels", &levels)
            .await
            .ok();
        server
            .act("ban", &room, &charlie, &bob)
            .await
            .refused(403, "M_FORBIDDEN");
        server
            .act("ban", "!nowhere:hs1", &alice, &bob)
            .await
            .refused(403, "M_FORBIDDEN");
        let body = json!({ "reason": "nobody" });
        server
            .post(&in_room(&room, "/ban"), &alice, &body)
            .await
            .refused(400, "M_BAD_JSON");
    }
}
