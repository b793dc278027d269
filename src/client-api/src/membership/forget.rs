//! `POST /_matrix/client/v3/rooms/{roomId}/forget`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidforget>

use axum::extract::State;
use myelin_rooms::{ForgetError, Rooms};
use ruma::api::{
    client::membership::forget_room::v3::{Request as Operation, Response},
    error::ErrorKind,
};

use crate::{
    error::{Refusal, Result},
    extract::{Reply, Request},
    shared::{no_such_room, refuse_failure},
};

fn refuse(error: ForgetError) -> Refusal {
    match error {
        ForgetError::RoomNotFound => no_such_room(),
        ForgetError::StillInRoom => {
            Refusal::bad_request(ErrorKind::Unknown, "Leave the room before you forget it.")
        }
        ForgetError::Failure(failure) => refuse_failure(failure),
    }
}

/// Forgets a room that the caller has left.
pub(crate) async fn forget(
    State(rooms): State<Rooms>,
    request: Request<Operation>,
) -> Result<Reply<Response>> {
    rooms
        .forget(&request.body.room_id, &request.caller.user_id)
        .await
        .map_err(refuse)?;
    Ok(Reply(Response::new()))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::testing::{Server, User, in_room, text};

    async fn forget(server: &Server, room: &str, user: &User) -> crate::testing::Answer {
        server
            .post(&in_room(room, "/forget"), user, &json!({}))
            .await
    }

    const WITH_LEFT: &str = "filter=%7B%22room%22%3A%7B%22include_leave%22%3Atrue%7D%7D";

    #[tokio::test]
    async fn a_forgotten_room_is_not_shown() {
        let (server, alice, bob) = Server::with_two_users().await;
        let room = server
            .room(&alice, &json!({ "preset": "public_chat" }))
            .await;
        server.join(&room, &bob).await;
        server.say(&room, &alice, "Hello world!").await;
        let since = text(&server.sync(&alice, "").await["next_batch"]);
        forget(&server, &room, &alice)
            .await
            .refused(400, "M_UNKNOWN");
        server.leave(&room, &alice).await;
        for _ in 0..2 {
            assert_eq!(forget(&server, &room, &alice).await.ok(), json!({}));
        }
        server.say(&room, &bob, "Hello world!").await;
        let messages = in_room(&room, "/messages?dir=b");
        server
            .get(&messages, &alice)
            .await
            .refused(403, "M_FORBIDDEN");
        let sync = server.sync(&alice, WITH_LEFT).await;
        for section in ["join", "invite", "leave", "knock"] {
            assert_eq!(sync["rooms"][section].get(&room), None, "{section}");
        }
        // Another device must still learn that the room was left.
        let sync = server
            .sync(&alice, &format!("{WITH_LEFT}&since={since}"))
            .await;
        assert!(sync["rooms"]["leave"][&room].is_object());
    }

    #[tokio::test]
    async fn whoever_was_removed_or_never_came_in_may_forget() {
        let (server, alice, bob) = Server::with_two_users().await;
        for act in ["kick", "ban"] {
            let room = server
                .room(&alice, &json!({ "preset": "public_chat" }))
                .await;
            server.join(&room, &bob).await;
            server.act(act, &room, &alice, &bob).await.ok();
            forget(&server, &room, &bob).await.ok();
            let sync = server.sync(&bob, "").await;
            assert_eq!(sync["rooms"]["leave"].get(&room), None);
        }
        let room = server.room(&alice, &json!({ "invite": [bob.id] })).await;
        forget(&server, &room, &bob).await.refused(400, "M_UNKNOWN");
        server.leave(&room, &bob).await;
        forget(&server, &room, &bob).await.ok();
        server.leave(&room, &alice).await;
        forget(&server, &room, &alice).await.ok();
        forget(&server, "!nowhere:hs1", &bob)
            .await
            .refused(404, "M_NOT_FOUND");
    }

    #[tokio::test]
    async fn whoever_comes_back_sees_the_history_again() {
        let (server, alice, bob) = Server::with_two_users().await;
        let room = server.room(&alice, &json!({ "invite": [bob.id] })).await;
        server.join(&room, &bob).await;
        let before = server.say(&room, &alice, "Before leave").await;
        server.leave(&room, &bob).await;
        forget(&server, &room, &bob).await.ok();
        let join = in_room(&room, "/join");
        server
            .post(&join, &bob, &json!({}))
            .await
            .refused(403, "M_FORBIDDEN");
        server.act("invite", &room, &alice, &bob).await.ok();
        server.join(&room, &bob).await;
        let page = async |limit: u32| -> Vec<Value> {
            let path = in_room(&room, &format!("/messages?dir=b&limit={limit}"));
            let page = server.get(&path, &bob).await.ok();
            page["chunk"].as_array().expect("a page").clone()
        };
        assert!(
            page(100)
                .await
                .iter()
                .any(|event| event["event_id"] == before)
        );
        let after = server.say(&room, &alice, "After rejoin").await;
        assert_eq!(page(1).await[0]["event_id"], after);
    }
}
