//! `DELETE /_matrix/client/v3/directory/room/{roomAlias}`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#delete_matrixclientv3directoryroomroomalias>

use axum::extract::State;
use myelin_rooms::{DeleteAliasError, Rooms};
use ruma::api::client::alias::delete_alias::v3::{Request as Operation, Response};

use crate::{
    error::{Refusal, Result},
    extract::{Reply, Request},
    shared::refuse_failure,
};

fn refuse(error: DeleteAliasError) -> Refusal {
    match error {
        DeleteAliasError::NotFound => Refusal::not_found("No room has this alias."),
        DeleteAliasError::NotAllowed => Refusal::forbidden("You may not delete this alias."),
        DeleteAliasError::Failure(failure) => refuse_failure(failure),
    }
}

/// Deletes an alias.
pub(crate) async fn delete(
    State(rooms): State<Rooms>,
    request: Request<Operation>,
) -> Result<Reply<Response>> {
    let Request { body, caller, .. } = request;
    rooms
        .delete_alias(&body.room_alias, &caller.user_id, caller.admin)
        .await
        .map_err(refuse)?;
    Ok(Reply(Response::new()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::testing::{Server, encode};

    #[tokio::test]
    async fn whoever_made_an_alias_or_has_the_power_deletes_it() {
        let (server, alice, bob) = Server::with_two_users().await;
        let request = json!({ "preset": "public_chat", "room_version": "11" });
        let room = server.room(&alice, &request).await;
        server.join(&room, &bob).await;
        let restricted = json!({ "users": { &alice.id: 100 }, "events": { "m.room.aliases": 50 } });
        let shared = json!({ "users": { &alice.id: 100, &bob.id: 100 } });
        for (levels, creator, deleter, status) in [
            (&restricted, &bob, &bob, 200),
            (&restricted, &alice, &bob, 403),
            (&restricted, &bob, &alice, 200),
            (&shared, &alice, &bob, 200),
        ] {
            server
                .set_state(&room, &alice, "m.room.power_levels", levels)
                .await
                .ok();
            let path = format!("/directory/room/{}", encode("#here:hs1"));
            server
                .put(&path, creator, &json!({ "room_id": room }))
                .await
                .ok();
            let answer = server.delete(&path, deleter, &json!({})).await;
            if status == 200 {
                assert_eq!(answer.ok(), json!({}));
            } else {
                answer.refused(403, "M_FORBIDDEN");
                server.delete(&path, creator, &json!({})).await.ok();
            }
            server.get(&path, &alice).await.refused(404, "M_NOT_FOUND");
            server
                .delete(&path, deleter, &json!({}))
                .await
                .refused(404, "M_NOT_FOUND");
        }
    }

    #[tokio::test]
    async fn a_canonical_alias_goes_with_it_if_its_deleter_may_say_so() {
        let (server, alice, bob) = Server::with_two_users().await;
        let room = server
            .room(&alice, &json!({ "preset": "public_chat" }))
            .await;
        server.join(&room, &bob).await;
        for (user, left) in [(&alice, json!({})), (&bob, json!({ "alias": "#here:hs1" }))] {
            let path = format!("/directory/room/{}", encode("#here:hs1"));
            server
                .put(&path, user, &json!({ "room_id": room }))
                .await
                .ok();
            let canonical = json!({ "alias": "#here:hs1" });
            server
                .set_state(&room, &alice, "m.room.canonical_alias", &canonical)
                .await
                .ok();
            server.delete(&path, user, &json!({})).await.ok();
            let now = server
                .state(&room, &alice, "m.room.canonical_alias")
                .await
                .ok();
            assert_eq!(now, left);
        }
        // An alias that is gone cannot be made canonical.
        let canonical = json!({ "alias": "#here:hs1" });
        for (content, status) in [(json!({}), 200), (canonical, 400)] {
            let entry = "m.room.canonical_alias";
            let answer = server.set_state(&room, &alice, entry, &content).await;
            assert_eq!(answer.status, status, "{}", answer.body);
        }
    }
}
