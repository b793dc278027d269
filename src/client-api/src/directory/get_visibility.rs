//! `GET /_matrix/client/v3/directory/list/room/{roomId}`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3directorylistroomroomid>

use axum::extract::State;
use myelin_rooms::{Rooms, Visibility};
use myelin_store::StoreError;
use ruma::api::client::{
    directory::get_room_visibility::v3::{Request as Operation, Response},
    room::Visibility as WireVisibility,
};

use crate::{
    error::{Refusal, Result},
    extract::{Reply, Request},
    shared::no_such_room,
};

/// Answers whether the public directory lists a room.
pub(crate) async fn get(
    State(rooms): State<Rooms>,
    request: Request<Operation>,
) -> Result<Reply<Response>> {
    let reader = rooms.clone();
    let room_id = request.body.room_id;
    let visibility = rooms
        .store()
        .read(
            move |view| -> std::result::Result<Option<Visibility>, StoreError> {
                reader
                    .find(view, &room_id)?
                    .map(|room| reader.visibility(view, room.num))
                    .transpose()
            },
        )
        .await
        .map_err(Refusal::internal)?
        .ok_or_else(no_such_room)?;
    Ok(Reply(Response::new(match visibility {
        Visibility::Public => WireVisibility::Public,
        Visibility::Private => WireVisibility::Private,
    })))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::testing::{Server, encode};

    #[tokio::test]
    async fn a_room_is_listed_if_it_was_made_so() {
        let (server, alice, bob) = Server::with_two_users().await;
        for visibility in ["public", "private"] {
            let room = server
                .room(&alice, &json!({ "visibility": visibility }))
                .await;
            let path = format!("/directory/list/room/{}", encode(&room));
            for user in [&alice, &bob] {
                let answer = server.get(&path, user).await;
                assert_eq!(answer.ok(), json!({ "visibility": visibility }));
            }
        }
        let nowhere = "/directory/list/room/!nowhere:hs1";
        server
            .get(nowhere, &alice)
            .await
            .refused(404, "M_NOT_FOUND");
    }
}
