//! `POST /_matrix/client/v3/knock/{roomIdOrAlias}`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3knockroomidoralias>

use axum::extract::State;
use http::StatusCode;
use myelin_accounts::Accounts;
use myelin_federation::{Federation, KnockError};
use myelin_rooms::{Enter, JsonObject, Rooms};
use ruma::api::{
    client::knock::knock_room::v3::{Request as Operation, Response},
    error::ErrorKind,
};

use super::resolve;
use crate::{
    error::{Refusal, Result},
    extract::{Reply, Request},
    shared::{no_such_room, profile, refuse_append, refuse_failure},
};

fn refuse(error: KnockError) -> Refusal {
    let message = error.to_string();
    match error {
        KnockError::RoomNotFound => no_such_room(),
        KnockError::Forbidden(_) => Refusal::forbidden(message),
        KnockError::IncompatibleVersion => {
            Refusal::bad_request(ErrorKind::UnsupportedRoomVersion, message)
        }
        KnockError::Append(error) => refuse_append(error),
        KnockError::NoAnswer(_) => {
            Refusal::new(StatusCode::BAD_GATEWAY, ErrorKind::Unknown, message)
        }
        KnockError::Failure(failure) => refuse_failure(failure),
    }
}

/// Knocks on a room.
pub(crate) async fn knock(
    State(rooms): State<Rooms>,
    State(federation): State<Federation>,
    State(accounts): State<Accounts>,
    request: Request<Operation>,
) -> Result<Reply<Response>> {
    let Request { body, caller, .. } = request;
    let (room_id, known) = resolve(&federation, &body.room_id_or_alias).await?;
    let profile = profile(&rooms, &accounts, &caller.user_id).await?;
    let enter = Enter {
        room_id: room_id.clone(),
        user: caller.user_id,
        profile,
        reason: body.reason,
        extra: JsonObject::new(),
    };
    let via = body.via.into_iter().chain(known).collect();
    federation.knock(enter, via).await.map_err(refuse)?;
    Ok(Reply(Response::new(room_id)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::testing::{Server, encode};

    #[tokio::test]
    async fn whoever_knocks_may_be_let_in() {
        let (server, alice, bob) = Server::with_two_users().await;
        let rule = json!({ "type": "m.room.join_rules", "content": { "join_rule": "knock" } });
        let request = json!({ "initial_state": [rule], "room_alias_name": "door" });
        let room = server.room(&alice, &request).await;
        let body = json!({ "reason": "let me in" });
        let member = format!("m.room.member/{}", encode(&bob.id));
        for path in [
            format!("/knock/{}", encode(&room)),
            "/knock/%23door%3Ahs1".to_owned(),
        ] {
            let answer = server.post(&path, &bob, &body).await;
            assert_eq!(answer.ok(), json!({ "room_id": room }));
            let content = json!({ "membership": "knock", "reason": "let me in" });
            assert_eq!(server.state(&room, &alice, &member).await.ok(), content);
            assert!(server.sync(&bob, "").await["rooms"]["knock"][&room].is_object());
        }
        server.act("invite", &room, &alice, &bob).await.ok();
        server.join(&room, &bob).await;
        let path = format!("/knock/{}", encode(&room));
        server
            .post(&path, &bob, &body)
            .await
            .refused(403, "M_FORBIDDEN");
    }

    #[tokio::test]
    async fn not_every_door_can_be_knocked_at() {
        let (server, alice, bob) = Server::with_two_users().await;
        let room = server.room(&alice, &json!({})).await;
        for (room, status, errcode) in [
            (room.as_str(), 403, "M_FORBIDDEN"),
            ("!nowhere:hs1", 404, "M_NOT_FOUND"),
            ("#nowhere:hs1", 404, "M_NOT_FOUND"),
            ("nonsense", 400, "M_INVALID_PARAM"),
        ] {
            let path = format!("/knock/{}", encode(room));
            server
                .post(&path, &bob, &json!({}))
                .await
                .refused(status, errcode);
        }
    }
}
