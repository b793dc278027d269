//! `POST /_matrix/client/v3/rooms/{roomId}/kick`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidkick>

use axum::extract::State;
use myelin_rooms::Rooms;
use ruma::api::client::membership::kick_user::v3::{Request as Operation, Response};

use super::{moderation, refuse_moderation};
use crate::{
    error::Result,
    extract::{Reply, Request},
};

/// Kicks a user.
pub(crate) async fn kick(
    State(rooms): State<Rooms>,
    request: Request<Operation>,
) -> Result<Reply<Response>> {
    let Request { body, caller, .. } = request;
    rooms
        .kick(moderation(
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
    async fn whoever_is_kicked_is_out_but_may_come_back() {
        let (server, alice, bob) = Server::with_two_users().await;
        let room = server
            .room(&alice, &json!({ "preset": "public_chat" }))
            .await;
        // Nobody is kicked who is not there, or not any more.
        server
            .act("kick", &room, &alice, &bob)
            .await
            .refused(403, "M_FORBIDDEN");
        server.join(&room, &bob).await;
        server
            .act("kick", &room, &bob, &alice)
            .await
            .refused(403, "M_FORBIDDEN");
        let body = json!({ "user_id": bob.id, "reason": "testing" });
        let kick = in_room(&room, "/kick");
        assert_eq!(server.post(&kick, &alice, &body).await.ok(), json!({}));
        let member = format!("m.room.member/{}", encode(&bob.id));
        let content = json!({ "membership": "leave", "reason": "testing" });
        assert_eq!(server.state(&room, &alice, &member).await.ok(), content);
        server
            .post(&kick, &alice, &body)
            .await
            .refused(403, "M_FORBIDDEN");
        server.join(&room, &bob).await;
        server.leave(&room, &bob).await;
        server
            .post(&kick, &alice, &body)
            .await
            .refused(403, "M_FORBIDDEN");
        server
            .act("kick", "!nowhere:hs1", &alice, &bob)
            .await
            .refused(403, "M_FORBIDDEN");
    }

    #[tokio::test]
    async fn an_invitation_can_be_taken_back() {
        let (server, alice, bob) = Server::with_two_users().await;
        let room = server.room(&alice, &json!({ "invite": [bob.id] })).await;
        server.act("kick", &room, &alice, &bob).await.ok();
        let join = in_room(&room, "/join");
        server
            .post(&join, &bob, &json!({}))
            .await
            .refused(403, "M_FORBIDDEN");
    }
}
