//! `POST /_matrix/client/v3/rooms/{roomId}/join` and `POST /_matrix/client/v3/join/{roomIdOrAlias}`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidjoin>

use axum::extract::State;
use http::StatusCode;
use myelin_accounts::Requester;
use myelin_federation::{Federation, join::JoinError};
use myelin_rooms::{Enter, JsonObject};
use ruma::{
    OwnedRoomId, OwnedServerName,
    api::{
        client::membership::{
            join_room_by_id::v3::{Request as ByIdOperation, Response as ByIdResponse},
            join_room_by_id_or_alias::v3::{Request as Operation, Response},
        },
        error::ErrorKind,
    },
};
use serde_json::json;

use super::resolve;
use crate::{
    error::{Refusal, Result},
    extract::{Reply, Request},
    shared::{no_such_room, profile, refuse_append, refuse_failure},
};

fn refuse(error: JoinError) -> Refusal {
    match error {
        JoinError::RoomNotFound => no_such_room(),
        JoinError::Forbidden(reason) => Refusal::forbidden(reason),
        JoinError::IncompatibleVersion(version) => {
            let mut body = json!({
                "errcode": "M_INCOMPATIBLE_ROOM_VERSION",
                "error": "This server does not support the version of the room.",
            });
            if let Some(version) = version {
                body["room_version"] = version.into();
            }
            Refusal::with_body(StatusCode::BAD_REQUEST, body)
        }
        JoinError::Append(error) => refuse_append(error),
        JoinError::NoAnswer(_) => Refusal::new(
            StatusCode::BAD_GATEWAY,
            ErrorKind::Unknown,
            "None of the servers that may be in the room could let you in.",
        ),
        JoinError::Failure(failure) => refuse_failure(failure),
    }
}

/// Joins the room of an id.
pub(crate) async fn join_by_id(
    State(federation): State<Federation>,
    request: Request<ByIdOperation>,
) -> Result<Reply<ByIdResponse>> {
    let Request { body, caller, raw } = request;
    let extra = extra(&raw)?;
    let room_id = body.room_id;
    let room_id = enter(&federation, caller, room_id, Vec::new(), body.reason, extra).await?;
    Ok(Reply(ByIdResponse::new(room_id)))
}

/// Joins the room of an id or alias.
pub(crate) async fn join(
    State(federation): State<Federation>,
    request: Request<Operation>,
) -> Result<Reply<Response>> {
    let Request { body, caller, raw } = request;
    let (room_id, servers) = resolve(&federation, &body.room_id_or_alias).await?;
    let extra = extra(&raw)?;
    let via = body.via.into_iter().chain(servers).collect();
    let room_id = enter(&federation, caller, room_id, via, body.reason, extra).await?;
    Ok(Reply(Response::new(room_id)))
}

/// What else the body has, which becomes part of the membership event. Clients have always been able to say more about
/// themselves there than the specification lists.
fn extra(body: &[u8]) -> Result<JsonObject> {
    if body.is_empty() {
        return Ok(JsonObject::new());
    }
    let mut extra: JsonObject = serde_json::from_slice(body)
        .map_err(|_| Refusal::bad_request(ErrorKind::BadJson, "The body is not an object."))?;
    extra.remove("third_party_signed");
    Ok(extra)
}

async fn enter(
    federation: &Federation,
    caller: Requester,
    room_id: OwnedRoomId,
    via: Vec<OwnedServerName>,
    reason: Option<String>,
    extra: JsonObject,
) -> Result<OwnedRoomId> {
    let profile = profile(federation.rooms(), federation.accounts(), &caller.user_id).await?;
    let request = Enter {
        room_id: room_id.clone(),
        user: caller.user_id,
        profile,
        reason,
        extra,
    };
    federation.join(request, via).await.map_err(refuse)?;
    Ok(room_id)
}

#[cfg(test)]
mod tests {
    use http::Method;
    use serde_json::json;

    use crate::testing::{Server, encode, in_room};

    #[tokio::test]
    async fn a_public_room_is_joined_by_its_id_or_its_alias() {
        let server = Server::new().await;
        let alice = server.register("alice").await;
        let request = json!({ "preset": "public_chat", "room_alias_name": "random" });
        let room = server.room(&alice, &request).await;
        let paths = [
            in_room(&room, "/join"),
            format!("/join/{}", encode(&room)),
            "/join/%23random%3Ahs1".to_owned(),
            "/join/%23random%3Ahs1?via=hs1&server_name=hs1".to_owned(),
        ];
        for (number, path) in paths.iter().enumerate() {
            let user = server.register(&format!("user{number}")).await;
            let whole = format!("/_matrix/client/v3{path}");
            let answer = server
                .send(Method::POST, &whole, Some(&user.token), Vec::new())
                .await;
            assert_eq!(answer.ok(), json!({ "room_id": room }), "{path}");
            let entry = format!("m.room.member/{}", encode(&user.id));
            let member = server.state(&room, &alice, &entry).await.ok();
            assert_eq!(member, json!({ "membership": "join" }));
            let sync = server.sync(&user, "").await;
            assert!(sync["rooms"]["join"][&room].is_object());
        }
    }

    #[tokio::test]
    async fn joining_twice_is_joining_once() {
        let (server, alice, bob) = Server::with_two_users().await;
        let room = server.room(&bob, &json!({ "preset": "public_chat" })).await;
        let entry = format!("m.room.member/{}?format=event", encode(&alice.id));
        server.join(&room, &alice).await;
        let first = server.state(&room, &alice, &entry).await.ok();
        server.join(&room, &alice).await;
        assert_eq!(server.state(&room, &alice, &entry).await.ok(), first);
    }

    #[tokio::test]
    async fn what_else_the_body_says_becomes_part_of_the_event() {
        let (server, alice, bob) = Server::with_two_users().await;
        let name = json!({ "displayname": "Bob" });
        server
            .put("/profile/@bob:hs1/displayname", &bob, &name)
            .await
            .ok();
        let request = json!({ "preset": "public_chat", "room_alias_name": "random" });
        let room = server.room(&alice, &request).await;
        let body = json!({
            "foo": "bar",
            "reason": "curious",
            "membership": "ban",
            "third_party_signed": {
                "sender": "@a:b", "mxid": "@b:b", "token": "x", "signatures": {},
            },
        });
        for path in [
            format!("/join/{}", encode(&room)),
            "/join/%23random%3Ahs1".to_owned(),
        ] {
            server.post(&path, &bob, &body).await.ok();
            let entry = format!("m.room.member/{}", encode(&bob.id));
            let content = json!({
                "membership": "join", "displayname": "Bob", "foo": "bar", "reason": "curious",
            });
            assert_eq!(server.state(&room, &alice, &entry).await.ok(), content);
            server.leave(&room, &bob).await;
        }
    }

    #[tokio::test]
    async fn who_may_not_come_in_is_refused() {
        let (server, alice, bob) = Server::with_two_users().await;
        let room = server
            .room(&alice, &json!({ "preset": "private_chat" }))
            .await;
        for (path, status, errcode) in [
            (in_room(&room, "/join"), 403, "M_FORBIDDEN"),
            (format!("/join/{}", encode(&room)), 403, "M_FORBIDDEN"),
            (in_room("!nowhere:hs1", "/join"), 404, "M_NOT_FOUND"),
            ("/join/%23nowhere%3Ahs1".to_owned(), 404, "M_NOT_FOUND"),
            ("/join/%23nowhere%3Ahs2".to_owned(), 404, "M_NOT_FOUND"),
            ("/join/nonsense".to_owned(), 400, "M_INVALID_PARAM"),
        ] {
            server
                .post(&path, &bob, &json!({}))
                .await
                .refused(status, errcode);
        }
        server
            .post(&in_room(&room, "/join"), &bob, &json!([]))
            .await
            .refused(400, "M_BAD_JSON");
    }
}
