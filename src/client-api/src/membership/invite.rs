//! `POST /_matrix/client/v3/rooms/{roomId}/invite`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidinvite>

use axum::extract::State;
use myelin_accounts::Accounts;
use myelin_federation::Federation;
use myelin_rooms::{Invite, Rooms};
use ruma::api::{
    client::membership::invite_user::v3::{
        InvitationRecipient, InviteUserId, Request as Operation, Response,
    },
    error::ErrorKind,
};

use super::refuse_invitation;
use crate::{
    error::{Refusal, Result},
    extract::{Reply, Request},
    shared::profile,
};

/// Invites a user.
pub(crate) async fn invite(
    State(rooms): State<Rooms>,
    State(accounts): State<Accounts>,
    State(federation): State<Federation>,
    request: Request<Operation>,
) -> Result<Reply<Response>> {
    let invitation = request.body;
    let InvitationRecipient::UserId(recipient) = invitation.recipient else {
        return Err(Refusal::bad_request(
            ErrorKind::ThreepidDenied,
            "This server does not invite by e-mail address or phone number.",
        ));
    };
    let InviteUserId {
        user_id: target,
        reason,
        ..
    } = recipient;
    let profile = profile(&rooms, &accounts, &target).await?;
    federation
        .invite(Invite {
            room_id: invitation.room_id,
            sender: request.caller.user_id,
            target,
            profile,
            reason,
            is_direct: false,
        })
        .await
        .map_err(refuse_invitation)?;
    Ok(Reply(Response::new()))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::testing::{Server, encode, in_room, text};

    #[tokio::test]
    async fn an_invitation_opens_a_closed_room() {
        let (server, alice, bob) = Server::with_two_users().await;
        server
            .put(
                "/profile/@bob:hs1/displayname",
                &bob,
                &json!({ "displayname": "Bob" }),
            )
            .await
            .ok();
        let room = server
            .room(&alice, &json!({ "preset": "private_chat" }))
            .await;
        let body = json!({ "user_id": bob.id, "reason": "come in" });
        let content = json!({ "membership": "invite", "displayname": "Bob", "reason": "come in" });
        let member = format!("m.room.member/{}", encode(&bob.id));
        for _ in 0..2 {
            let answer = server.post(&in_room(&room, "/invite"), &alice, &body).await;
            assert_eq!(answer.ok(), json!({}));
            assert_eq!(server.state(&room, &alice, &member).await.ok(), content);
        }
        assert!(server.sync(&bob, "").await["rooms"]["invite"][&room].is_object());
        server.join(&room, &bob).await;
        server
            .act("invite", &room, &alice, &bob)
            .await
            .refused(403, "M_FORBIDDEN");
    }

    #[tokio::test]
    async fn an_invitation_can_be_declined_even_when_everybody_has_left() {
        let (server, alice, bob) = Server::with_two_users().await;
        let room = server.room(&alice, &json!({ "invite": [bob.id] })).await;
        let since = text(&server.sync(&bob, "").await["next_batch"]);
        server.leave(&room, &alice).await;
        server.leave(&room, &bob).await;
        let sync = server.sync(&bob, &format!("since={since}")).await;
        assert!(sync["rooms"]["leave"][&room].is_object());
        let since = text(&sync["next_batch"]);
        let sync = server.sync(&bob, &format!("since={since}")).await;
        assert_eq!(sync["rooms"], json!({}));
    }

    #[tokio::test]
    async fn the_creator_can_be_invited_again() {
        let (server, alice, bob) = Server::with_two_users().await;
        let room = server
            .room(&alice, &json!({ "invite": [bob.id], "room_version": "11" }))
            .await;
        server.join(&room, &bob).await;
        let levels = json!({ "users": { &bob.id: 100 } });
        server
            .set_state(&room, &alice, "m.room.power_levels", &levels)
            .await
            .ok();
        server.leave(&room, &alice).await;
        server.act("invite", &room, &bob, &alice).await.ok();
        server.join(&room, &alice).await;
    }

    #[tokio::test]
    async fn who_cannot_invite_or_be_invited_is_refused() {
        let (server, alice, bob) = Server::with_two_users().await;
        let room = server.room(&alice, &json!({})).await;
        server
            .act("invite", &room, &alice, &alice)
            .await
            .refused(403, "M_FORBIDDEN");
        server
            .act("invite", &room, &bob, &bob)
            .await
            .refused(403, "M_FORBIDDEN");
        server
            .act("invite", "!nowhere:hs1", &alice, &bob)
            .await
            .refused(403, "M_FORBIDDEN");
        let path = in_room(&room, "/invite");
        let email = json!({
            "id_server": "a.b", "id_access_token": "x", "medium": "email", "address": "a@b.c",
        });
        for (body, status, errcode) in [
            (json!({ "user_id": "@bob:hs2" }), 404, "M_NOT_FOUND"),
            (json!({ "user_id": "nonsense" }), 400, "M_BAD_JSON"),
            (json!({}), 400, "M_BAD_JSON"),
            (email, 400, "M_THREEPID_DENIED"),
        ] {
            server
                .post(&path, &alice, &body)
                .await
                .refused(status, errcode);
        }
    }

    #[tokio::test]
    async fn whoever_wants_no_invitations_gets_none() {
        let (server, alice, bob) = Server::with_two_users().await;
        let path = "/user/@bob:hs1/account_data/m.invite_permission_config";
        let block = json!({ "default_action": "block" });
        server.put(path, &bob, &block).await.ok();
        let room = server.room(&alice, &json!({})).await;
        server
            .act("invite", &room, &alice, &bob)
            .await
            .refused(403, "M_INVITE_BLOCKED");
        let member = format!("m.room.member/{}", encode(&bob.id));
        let content = json!({ "membership": "invite" });
        server
            .set_state(&room, &alice, &member, &content)
            .await
            .refused(403, "M_INVITE_BLOCKED");
        server.put(path, &bob, &json!({})).await.ok();
        server.act("invite", &room, &alice, &bob).await.ok();
        // What came before is not shown either while it is so.
        let invited = |sync: Value| sync["rooms"]["invite"][&room].is_object();
        assert!(invited(server.sync(&bob, "").await));
        server.put(path, &bob, &block).await.ok();
        assert!(!invited(server.sync(&bob, "").await));
    }

    #[tokio::test]
    async fn invitations_of_ignored_users_are_not_shown() {
        let (server, alice, bob) = Server::with_two_users().await;
        let chris = server.register("chris").await;
        let ignored = json!({ "ignored_users": { &bob.id: {} } });
        let path = "/user/@alice:hs1/account_data/m.ignored_user_list";
        server.put(path, &alice, &ignored).await.ok();
        let since = text(&server.sync(&alice, "").await["next_batch"]);
        let request = json!({ "invite": [alice.id] });
        let from_bob = server.room(&bob, &request).await;
        let from_chris = server.room(&chris, &request).await;
        for query in [String::new(), format!("since={since}")] {
            let invited = server.sync(&alice, &query).await["rooms"]["invite"].clone();
            assert!(invited.get(&from_chris).is_some(), "{query}");
            assert!(invited.get(&from_bob).is_none(), "{query}");
        }
    }
}
