//! `GET /_matrix/client/v3/rooms/{roomId}/members`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidmembers>

use axum::{Json, extract::State};
use myelin_data::rooms::Membership;
use myelin_rooms::{Rooms, read::MembersQuery};
use ruma::{
    api::client::membership::get_member_events::v3::Request as Operation,
    events::room::member::MembershipState,
};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::{
    error::{Refusal, Result},
    extract::Request,
    shared::{refuse_read, token, viewer},
};

/// The response body.
#[derive(Debug, Serialize)]
pub(crate) struct Members {
    /// Membership events.
    chunk: Vec<Box<RawValue>>,
}

fn membership(wanted: Option<MembershipState>) -> Result<Option<Membership>> {
    wanted
        .map(|wanted| {
            Membership::from_name(wanted.as_str())
                .ok_or_else(|| Refusal::invalid(format!("There is no membership {wanted:?}.")))
        })
        .transpose()
}

/// Lists members as of now, of `at`, or of when the caller left.
pub(crate) async fn list(
    State(rooms): State<Rooms>,
    request: Request<Operation>,
) -> Result<Json<Members>> {
    let query = request.body;
    let members = MembersQuery {
        at: token(query.at.as_deref())?,
        membership: membership(query.membership)?,
        not_membership: membership(query.not_membership)?,
    };
    let chunk = rooms
        .members(&viewer(&request.caller), &query.room_id, members)
        .await
        .map_err(refuse_read)?;
    Ok(Json(Members { chunk }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::testing::{Server, User, in_room, text};

    /// The members that a query finds, as `name membership`.
    async fn members(server: &Server, room: &str, user: &User, query: &str) -> Vec<String> {
        let path = in_room(room, &format!("/members{query}"));
        let body = server.get(&path, user).await.ok();
        let mut members: Vec<String> = body["chunk"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|event| {
                assert_eq!(event["type"], "m.room.member");
                assert_eq!(event["room_id"], room);
                let membership = text(&event["content"]["membership"]);
                format!("{} {membership}", text(&event["state_key"]))
            })
            .collect();
        members.sort();
        members
    }

    #[tokio::test]
    async fn members_are_filtered_by_membership() {
        let (server, alice, bob) = Server::with_two_users().await;
        let room = server
            .room(&alice, &json!({ "preset": "public_chat" }))
            .await;
        server.join(&room, &bob).await;
        let both = ["@alice:hs1 join", "@bob:hs1 join"];
        for _ in 0..2 {
            assert_eq!(members(&server, &room, &alice, "").await, both);
        }
        server.leave(&room, &bob).await;
        for (query, wanted) in [
            ("?not_membership=leave", "@alice:hs1 join"),
            ("?membership=leave", "@bob:hs1 leave"),
            ("?membership=join", "@alice:hs1 join"),
        ] {
            assert_eq!(
                members(&server, &room, &alice, query).await,
                [wanted],
                "{query}"
            );
        }
        // Given together, either is enough.
        let all = members(
            &server,
            &room,
            &alice,
            "?membership=leave&not_membership=leave",
        )
        .await;
        assert_eq!(all, ["@alice:hs1 join", "@bob:hs1 leave"]);
    }

    #[tokio::test]
    async fn members_are_shown_as_of_a_point_of_a_sync() {
        let (server, alice, bob) = Server::with_two_users().await;
        let room = server
            .room(&alice, &json!({ "preset": "public_chat" }))
            .await;
        server.say(&room, &alice, "Hello world!").await;
        let sync = server.sync(&alice, "").await;
        server.join(&room, &bob).await;
        server.say(&room, &bob, "Hello back").await;
        let prev = &sync["rooms"]["join"][&room]["timeline"]["prev_batch"];
        for at in [prev, &sync["next_batch"]] {
            let query = format!("?at={}", text(at));
            let then = members(&server, &room, &alice, &query).await;
            assert_eq!(then, ["@alice:hs1 join"], "{query}");
        }
    }

    #[tokio::test]
    async fn strangers_and_nonsense_are_refused() {
        let (server, alice, bob) = Server::with_two_users().await;
        let room = server
            .room(&alice, &json!({ "preset": "public_chat" }))
            .await;
        let path = in_room(&room, "/members");
        server.get(&path, &bob).await.refused(403, "M_FORBIDDEN");
        let nowhere = in_room("!nowhere:hs1", "/members");
        server
            .get(&nowhere, &alice)
            .await
            .refused(403, "M_FORBIDDEN");
        for query in [
            "at=nonsense",
            "membership=nonsense",
            "not_membership=nonsense",
        ] {
            let path = format!("{path}?{query}");
            server
                .get(&path, &alice)
                .await
                .refused(400, "M_INVALID_PARAM");
        }
    }
}
