//! `POST /_matrix/client/v3/rooms/{roomId}/unban`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidunban>

use axum::extract::State;
use myelin_rooms::Rooms;
use ruma::api::client::membership::unban_user::v3::{Request as Operation, Response};

use super::{moderation, refuse_moderation};
use crate::{
    error::Result,
    extract::{Reply, Request},
};

/// Lifts a user's ban.
pub(crate) async fn unban(
    State(rooms): State<Rooms>,
    request: Request<Operation>,
) -> Result<Reply<Response>> {
    let Request { body, caller, .. } = request;
    rooms
        .unban(moderation(
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

    use crate::testing::{Server, encode};

    #[tokio::test]
    async fn a_lifted_ban_lets_the_user_come_back() {
        let (server, alice, bob) = Server::with_two_users().await;
        let room = server
            .room(&alice, &json!({ "preset": "public_chat" }))
            .await;
        server.act("ban", &room, &alice, &bob).await.ok();
        server
            .act("unban", &room, &bob, &bob)
            .await
            .refused(403, "M_FORBIDDEN");
        assert_eq!(
            server.act("unban", &room, &alice, &bob).await.ok(),
            json!({})
        );
        let member = format!("m.room.member/{}", encode(&bob.id));
        let member = server.state(&room, &alice, &member).await.ok();
        assert_eq!(member["membership"], "leave");
        // There is no second ban to lift.
        server
            .act("unban", &room, &alice, &bob)
            .await
            .refused(403, "M_FORBIDDEN");
        server.join(&room, &bob).await;
        server
            .act("unban", &room, &alice, &bob)
            .await
            .refused(403, "M_FORBIDDEN");
        server
            .act("unban", "!nowhere:hs1", &alice, &bob)
            .await
            .refused(403, "M_FORBIDDEN");
    }
}
