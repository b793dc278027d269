//! `PUT /_matrix/client/v3/rooms/{roomId}/state/{eventType}/{stateKey}`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3roomsroomidstateeventtypestatekey>

use std::sync::Arc;

use axum::extract::State;
use myelin_federation::Federation;
use myelin_rooms::{Rooms, SendError, SendState, remote::InviteDraft};
use ruma::{
    OwnedUserId,
    api::{
        client::state::send_state_event::v3::{Request as Operation, Response},
        error::ErrorKind,
    },
};

use crate::{
    Limit, Limiter,
    error::{Refusal, Result},
    extract::{Reply, Request},
    limiter::Source,
    membership::refuse_invitation,
    shared::{content, not_in_room, refuse_append, refuse_canonical_alias, remote_user},
};

/// What the sending of messages and of state is refused with.
pub(super) fn refuse(error: SendError) -> Refusal {
    match error {
        SendError::RoomNotFound => not_in_room(),
        SendError::CanonicalAlias(error) => refuse_canonical_alias(error),
        SendError::BadContent(what) => Refusal::bad_request(ErrorKind::BadJson, what),
        SendError::RedactsUnknown => Refusal::not_found("The room has no such event."),
        SendError::RemoteTarget(user) => remote_user(&user),
        SendError::Append(error) => refuse_append(error),
    }
}

/// Sends a state event.
pub(crate) async fn send(
    State(rooms): State<Rooms>,
    State(federation): State<Federation>,
    State(limiter): State<Arc<Limiter>>,
    request: Request<Operation>,
) -> Result<Reply<Response>> {
    let event = request.body;
    let event_type = event.event_type.to_string();
    let content = content(&event.body)?;
    let membership = content.get("membership").and_then(|value| value.as_str());
    if event_type == "m.room.member" && membership == Some("invite") {
        // An invitation by another way is one all the same.
        limiter.check(Limit::Invite, Source::User(request.caller.user))?;
        let target = OwnedUserId::try_from(event.state_key).map_err(|_| {
            Refusal::bad_request(ErrorKind::BadJson, "The state key is no user id.")
        })?;
        let invited = federation.invite_with(InviteDraft {
            room_id: event.room_id,
            sender: request.caller.user_id,
            target,
            content,
        });
        let event_id = invited.await.map_err(refuse_invitation)?;
        return Ok(Reply(Response::new(event_id)));
    }
    let event_id = rooms
        .send_state(SendState {
            room_id: event.room_id,
            sender: request.caller.user_id,
            event_type,
            state_key: event.state_key,
            content,
        })
        .await
        .map_err(refuse)?;
    Ok(Reply(Response::new(event_id)))
}

#[cfg(test)]
mod tests {
    use http::Method;
    use serde_json::{Value, json};

    use crate::testing::{Answer, Server, User, encode, in_room, text};

    #[tokio::test]
    async fn state_is_set_under_every_form_of_the_path() {
        let server = Server::new().await;
        let alice = server.register("alice").await;
        let room = server.room(&alice, &json!({})).await;
        for version in ["v3", "r0"] {
            for (entry, key) in [
                ("a.b", ""),
                ("a.b/", ""),
                ("a.b/key", "key"),
                ("a.b/%2F", "/"),
            ] {
                let content = json!({ "version": version, "entry": entry });
                let path = format!("/_matrix/client/{version}{}", in_room(&room, "/state/"));
                let body = content.to_string().into_bytes();
                server
                    .send(
                        Method::PUT,
                        &format!("{path}{entry}"),
                        Some(&alice.token),
                        body,
                    )
                    .await
                    .ok();
                let event = server
                    .state(&room, &alice, &format!("{entry}?format=event"))
                    .await
                    .ok();
                assert_eq!(event["content"], content);
                assert_eq!(event["state_key"], key);
            }
        }
    }

    #[tokio::test]
    async fn what_is_so_already_is_not_said_again() {
        let server = Server::new().await;
        let alice = server.register("alice").await;
        let room = server.room(&alice, &json!({})).await;
        let content = json!({ "a_key": "a_value" });
        let first = server
            .set_state(&room, &alice, "a.test", &content)
            .await
            .ok();
        assert_eq!(
            server
                .set_state(&room, &alice, "a.test", &content)
                .await
                .ok(),
            first
        );
        let other = server
            .set_state(&room, &alice, "a.test", &json!({}))
            .await
            .ok();
        assert_ne!(other, first);
    }

    #[tokio::test]
    async fn what_cannot_be_set_is_refused() {
        let (server, alice, bob) = Server::with_two_users().await;
        let room = server
            .room(&alice, &json!({ "preset": "public_chat" }))
            .await;
        let large = json!({ "body": "Dormammu, I've come to bargain. ".repeat(2200) });
        server
            .set_state(&room, &alice, "a.b", &large)
            .await
            .refused(413, "M_TOO_LARGE");
        server
            .set_state(&room, &alice, "a.b", &json!([]))
            .await
            .refused(400, "M_BAD_JSON");
        let name = json!({ "name": "mine" });
        server
            .set_state(&room, &bob, "m.room.name", &name)
            .await
            .refused(403, "M_FORBIDDEN");
        server.join(&room, &bob).await;
        server
            .set_state(&room, &bob, "m.room.name", &name)
            .await
            .refused(403, "M_FORBIDDEN");
        server
            .set_state("!nowhere:hs1", &alice, "m.room.name", &name)
            .await
            .refused(403, "M_FORBIDDEN");
        let mine = format!("a.b/{}", encode(&alice.id));
        server
            .set_state(&room, &bob, &mine, &json!({}))
            .await
            .refused(403, "M_FORBIDDEN");
    }

    #[tokio::test]
    async fn power_levels_are_set_within_the_rules() {
        let server = Server::new().await;
        let alice = server.register("alice").await;
        let request = json!({
            "room_version": "11",
            "power_level_content_override": { "users_default": 100, "users": { &alice.id: 100 } },
        });
        let room = server.room(&alice, &request).await;
        let set = async |content: Value| -> Answer {
            server
                .set_state(&room, &alice, "m.room.power_levels", &content)
                .await
        };
        // Everybody's level may be lowered by somebody who has the same by his own.
        set(json!({ "users_default": 40, "users": { &alice.id: 100 } }))
            .await
            .ok();
        let content =
            json!({ "invite": 100, "users": { &alice.id: 100, "@random:their.home": 20 } });
        let sent = set(content.clone()).await.ok();
        let path = in_room(&room, &format!("/event/{}", text(&sent["event_id"])));
        assert_eq!(server.get(&path, &alice).await.ok()["content"], content);
        set(json!({ "users": { &alice.id: 100 } })).await.ok();
        set(json!({})).await.ok();
        // Now nobody has the power.
        set(json!({ "users": {} }))
            .await
            .refused(403, "M_FORBIDDEN");
        let now = server
            .state(&room, &alice, "m.room.power_levels")
            .await
            .ok();
        assert_eq!(now, json!({}));
    }

    #[tokio::test]
    async fn a_canonical_alias_points_to_the_room() {
        let server = Server::new().await;
        let alice = server.register("alice").await;
        let (room, other) = (
            server.room(&alice, &json!({})).await,
            server.room(&alice, &json!({})).await,
        );
        for (alias, room) in [("#here:hs1", &room), ("#there:hs1", &other)] {
            let path = format!("/directory/room/{}", encode(alias));
            server
                .put(&path, &alice, &json!({ "room_id": room }))
                .await
                .ok();
        }
        for (content, errcode) in [
            (json!({ "alias": "#here:hs1" }), None),
            (
                json!({ "alias": "#here:hs1", "alt_aliases": ["#here:hs1"] }),
                None,
            ),
            (json!({ "alias": "#missing:hs1" }), Some("M_BAD_ALIAS")),
            (json!({ "alias": "#there:hs1" }), Some("M_BAD_ALIAS")),
            (json!({ "alias": "%invalid:hs1" }), Some("M_INVALID_PARAM")),
            (
                json!({ "alias": "#here:hs1", "alt_aliases": ["#there:hs1"] }),
                Some("M_BAD_ALIAS"),
            ),
            (
                json!({ "alias": "#here:hs1", "alt_aliases": ["#missing:hs1"] }),
                Some("M_BAD_ALIAS"),
            ),
            (
                json!({ "alias": "#here:hs1", "alt_aliases": ["%no:hs1"] }),
                Some("M_INVALID_PARAM"),
            ),
            (json!({}), None),
        ] {
            let answer = server
                .set_state(&room, &alice, "m.room.canonical_alias", &content)
                .await;
            match errcode {
                Some(errcode) => drop(answer.refused(400, errcode)),
                None => drop(answer.ok()),
            }
        }
    }

    #[tokio::test]
    async fn memberships_are_set_within_the_rules() {
        let (server, alice, bob) = Server::with_two_users().await;
        let room = server.room(&alice, &json!({})).await;
        let set = async |by: &User, of: &User, membership: &str| -> Answer {
            let entry = format!("m.room.member/{}", encode(&of.id));
            server
                .set_state(&room, by, &entry, &json!({ "membership": membership }))
                .await
        };
        set(&bob, &bob, "join").await.refused(403, "M_FORBIDDEN");
        set(&alice, &bob, "invite").await.ok();
        set(&alice, &bob, "join").await.refused(403, "M_FORBIDDEN");
        set(&bob, &bob, "join").await.ok();
        set(&bob, &alice, "leave").await.refused(403, "M_FORBIDDEN");
        set(&alice, &bob, "nonsense")
            .await
            .refused(400, "M_BAD_JSON");
        set(&alice, &bob, "ban").await.ok();
    }
}
