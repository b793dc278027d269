//! `GET /_matrix/client/v3/rooms/{roomId}/aliases`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidaliases>

use axum::extract::State;
use myelin_rooms::{ListAliasesError, Rooms};
use ruma::api::client::room::aliases::v3::{Request as Operation, Response};

use crate::{
    error::{Refusal, Result},
    extract::{Reply, Request},
    shared::{not_in_room, refuse_failure},
};

fn refuse(error: ListAliasesError) -> Refusal {
    match error {
        ListAliasesError::RoomNotFound | ListAliasesError::NotInRoom => not_in_room(),
        ListAliasesError::Failure(failure) => refuse_failure(failure),
    }
}

/// Lists the aliases that this server has for a room.
pub(crate) async fn list(
    State(rooms): State<Rooms>,
    request: Request<Operation>,
) -> Result<Reply<Response>> {
    let aliases = rooms
        .list_aliases(&request.body.room_id, &request.caller.user_id)
        .await
        .map_err(refuse)?;
    Ok(Reply(Response::new(aliases)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::testing::{Server, in_room};

    #[tokio::test]
    async fn only_members_list_the_aliases_of_a_room() {
        let (server, alice, bob) = Server::with_two_users().await;
        let room = server.room(&alice, &json!({})).await;
        let path = in_room(&room, "/aliases");
        assert_eq!(
            server.get(&path, &alice).await.ok(),
            json!({ "aliases": [] })
        );
        let body = json!({ "room_id": room });
        server
            .put("/directory/room/%23lists_aliases:hs1", &alice, &body)
            .await
            .ok();
        for _ in 0..2 {
            let aliases = json!({ "aliases": ["#lists_aliases:hs1"] });
            assert_eq!(server.get(&path, &alice).await.ok(), aliases);
        }
        server.get(&path, &bob).await.refused(403, "M_FORBIDDEN");
        let nowhere = in_room("!nowhere:hs1", "/aliases");
        server
            .get(&nowhere, &alice)
            .await
            .refused(403, "M_FORBIDDEN");
        let visibility = json!({ "history_visibility": "world_readable" });
        server
            .set_state(&room, &alice, "m.room.history_visibility", &visibility)
            .await
            .ok();
        server.get(&path, &bob).await.ok();
    }
}
