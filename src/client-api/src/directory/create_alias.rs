//! `PUT /_matrix/client/v3/directory/room/{roomAlias}`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3directoryroomroomalias>

use axum::extract::State;
use http::StatusCode;
use myelin_rooms::{CreateAliasError, Rooms};
use ruma::api::{
    client::alias::create_alias::v3::{Request as Operation, Response},
    error::ErrorKind,
};

use crate::{
    error::{Refusal, Result},
    extract::{Reply, Request},
    shared::{no_such_room, not_in_room, refuse_failure},
};

fn refuse(error: CreateAliasError) -> Refusal {
    match error {
        CreateAliasError::Remote => Refusal::invalid("The alias belongs to another server."),
        CreateAliasError::Exists => Refusal::new(
            StatusCode::CONFLICT,
            ErrorKind::Unknown,
            "The alias points to a room already.",
        ),
        CreateAliasError::RoomNotFound => no_such_room(),
        CreateAliasError::NotInRoom => not_in_room(),
        CreateAliasError::Failure(failure) => refuse_failure(failure),
    }
}

/// Makes an alias for a room.
pub(crate) async fn create(
    State(rooms): State<Rooms>,
    request: Request<Operation>,
) -> Result<Reply<Response>> {
    let Request { body, caller, .. } = request;
    rooms
        .create_alias(&body.room_alias, &body.room_id, &caller.user_id)
        .await
        .map_err(refuse)?;
    Ok(Reply(Response::new()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::testing::{Answer, Server, User, encode};

    async fn create(server: &Server, alias: &str, room: &str, user: &User) -> Answer {
        let path = format!("/directory/room/{}", encode(alias));
        server.put(&path, user, &json!({ "room_id": room })).await
    }

    #[tokio::test]
    async fn an_alias_points_to_one_room() {
        let (server, alice, bob) = Server::with_two_users().await;
        let room = server
            .room(&alice, &json!({ "preset": "public_chat" }))
            .await;
        for alias in ["#creates_alias:hs1", "#老虎Â£я🤨👉ඞ:hs1"] {
            assert_eq!(create(&server, alias, &room, &alice).await.ok(), json!({}));
            create(&server, alias, &room, &alice)
                .await
                .refused(409, "M_UNKNOWN");
            let path = format!("/directory/room/{}", encode(alias));
            assert_eq!(server.get(&path, &bob).await.ok()["room_id"], room);
        }
        create(&server, "#bobs:hs1", &room, &bob)
            .await
            .refused(403, "M_FORBIDDEN");
        server.join(&room, &bob).await;
        create(&server, "#bobs:hs1", &room, &bob).await.ok();
    }

    #[tokio::test]
    async fn what_is_no_alias_of_ours_is_refused() {
        let server = Server::new().await;
        let alice = server.register("alice").await;
        let room = server.room(&alice, &json!({})).await;
        for (alias, room, status, errcode) in [
            ("#here:hs2", room.as_str(), 400, "M_INVALID_PARAM"),
            ("here", room.as_str(), 400, "M_INVALID_PARAM"),
            ("#here:hs1", "!nowhere:hs1", 404, "M_NOT_FOUND"),
            ("#here:hs1", "nonsense", 400, "M_BAD_JSON"),
        ] {
            create(&server, alias, room, &alice)
                .await
                .refused(status, errcode);
        }
    }
}
