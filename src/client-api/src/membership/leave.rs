//! `POST /_matrix/client/v3/rooms/{roomId}/leave`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidleave>

use axum::extract::State;
use myelin_federation::Federation;
use myelin_rooms::LeaveError;
use ruma::api::client::membership::leave_room::v3::{Request as Operation, Response};

use crate::{
    error::{Refusal, Result},
    extract::{Reply, Request},
    shared::{no_such_room, not_in_room, refuse_append},
};

fn refuse(error: LeaveError) -> Refusal {
    match error {
        LeaveError::RoomNotFound => no_such_room(),
        LeaveError::NotInRoom | LeaveError::NotResident => not_in_room(),
        LeaveError::Append(error) => refuse_append(error),
    }
}

/// Leaves a room, declines an invitation, or takes a knock back.
pub(crate) async fn leave(
    State(federation): State<Federation>,
    request: Request<Operation>,
) -> Result<Reply<Response>> {
    let Request { body, caller, .. } = request;
    federation
        .leave(&body.room_id, &caller.user_id, body.reason)
        .await
        .map_err(refuse)?;
    Ok(Reply(Response::new()))
}

#[cfg(test)]
mod tests {
    use http::Method;
    use serde_json::json;

    use crate::testing::{Server, encode, in_room};

    #[tokio::test]
    async fn a_room_is_left_once_however_often_it_is_asked() {
        let (server, alice, bob) = Server::with_two_users().await;
        let room = server.room(&alice, &json!({ "invite": [bob.id] })).await;
        server.join(&room, &bob).await;
        let member = format!("m.room.member/{}", encode(&bob.id));
        for reason in ["first", "second"] {
            let body = json!({ "reason": reason });
            let answer = server.post(&in_room(&room, "/leave"), &bob, &body).await;
            assert_eq!(answer.ok(), json!({}));
            let content = json!({ "membership": "leave", "reason": "first" });
            assert_eq!(server.state(&room, &alice, &member).await.ok(), content);
        }
        let whole = format!("/_matrix/client/v3{}", in_room(&room, "/leave"));
        let answer = server
            .send(Method::POST, &whole, Some(&alice.token), Vec::new())
            .await;
        assert_eq!(answer.ok(), json!({}));
    }

    #[tokio::test]
    async fn whoever_left_sees_the_room_as_it_was_then() {
        let (server, alice, bob) = Server::with_two_users().await;
        let charlie = server.register("charlie").await;
        let visibility = json!({
            "type": "m.room.history_visibility",
            "content": { "history_visibility": "joined" },
        });
        let request = json!({ "preset": "public_chat", "initial_state": [visibility] });
        let room = server.room(&alice, &request).await;
        server.join(&room, &bob).await;
        let happen = async |when: &str| {
            let name = json!({ "name": format!("name {when}") });
            server
                .set_state(&room, &alice, "m.room.name", &name)
                .await
                .ok();
            let state = json!({ "body": format!("state {when}") });
            server
                .set_state(&room, &alice, "madeup.test.state", &state)
                .await
                .ok();
            server.say(&room, &alice, &format!("message {when}")).await
        };
        let before = happen("before").await;
        server.leave(&room, &bob).await;
        let since = server.sync(&bob, "").await["next_batch"].clone();
        let since = since.as_str().expect("a token");
        happen("after").await;
        server.join(&room, &charlie).await;

        for (user, when) in [(&bob, "before"), (&alice, "after")] {
            let name = server.state(&room, user, "m.room.name").await.ok();
            assert_eq!(name["name"], format!("name {when}"));
            let state = server.state(&room, user, "madeup.test.state").await.ok();
            assert_eq!(state["body"], format!("state {when}"));
        }
        let members = server.get(&in_room(&room, "/members"), &bob).await.ok();
        let mut members: Vec<_> = members["chunk"]
            .as_array()
            .expect("members")
            .iter()
            .map(|event| {
                (
                    event["state_key"].clone(),
                    event["content"]["membership"].clone(),
                )
            })
            .map(|(user, membership)| format!("{user} {membership}"))
            .collect();
        members.sort();
        assert_eq!(members, [r#""@alice:hs1" "join""#, r#""@bob:hs1" "leave""#]);

        let path = in_room(&room, &format!("/messages?dir=b&limit=2&from={since}"));
        let page = server.get(&path, &bob).await.ok();
        assert_eq!(page["chunk"][0]["state_key"], bob.id);
        assert_eq!(page["chunk"][1]["event_id"], before);
        let path = in_room(&room, &format!("/messages?dir=f&limit=100&from={since}"));
        assert_eq!(server.get(&path, &bob).await.ok()["chunk"], json!([]));
    }

    #[tokio::test]
    async fn whoever_is_not_in_a_room_does_not_leave_it() {
        let (server, alice, bob) = Server::with_two_users().await;
        let room = server.room(&alice, &json!({})).await;
        let path = in_room(&room, "/leave");
        server
            .post(&path, &bob, &json!({}))
            .await
            .refused(403, "M_FORBIDDEN");
        let nowhere = in_room("!nowhere:hs1", "/leave");
        server
            .post(&nowhere, &bob, &json!({}))
            .await
            .refused(404, "M_NOT_FOUND");
        server.act("ban", &room, &alice, &bob).await.ok();
        server
            .post(&path, &bob, &json!({}))
            .await
            .refused(403, "M_FORBIDDEN");
    }
}
