//! `GET /_matrix/client/v3/joined_rooms`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3joined_rooms>

use axum::extract::State;
use myelin_rooms::Rooms;
use myelin_store::StoreError;
use ruma::api::client::membership::joined_rooms::v3::{Request as Operation, Response};

use crate::{
    error::{Refusal, Result},
    extract::{Reply, Request},
};

/// Lists the rooms that the caller is in.
pub(crate) async fn list(
    State(rooms): State<Rooms>,
    request: Request<Operation>,
) -> Result<Reply<Response>> {
    let reader = rooms.clone();
    let user_id = request.caller.user_id;
    let joined = rooms
        .store()
        .read(move |view| {
            reader
                .joined_rooms(view, &user_id)?
                .into_iter()
                .map(|room| Ok(reader.handle(view, room)?.room_id().to_owned()))
                .collect::<std::result::Result<Vec<_>, StoreError>>()
        })
        .await
        .map_err(Refusal::internal)?;
    Ok(Reply(Response::new(joined)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::testing::Server;

    #[tokio::test]
    async fn the_rooms_are_those_that_the_caller_is_in() {
        let (server, alice, bob) = Server::with_two_users().await;
        let rooms = async |user| server.get("/joined_rooms", user).await.ok();
        assert_eq!(rooms(&alice).await, json!({ "joined_rooms": [] }));
        let room = server.room(&alice, &json!({ "invite": [bob.id] })).await;
        for _ in 0..2 {
            assert_eq!(rooms(&alice).await, json!({ "joined_rooms": [room] }));
        }
        assert_eq!(rooms(&bob).await, json!({ "joined_rooms": [] }));
        server.join(&room, &bob).await;
        server.leave(&room, &alice).await;
        assert_eq!(rooms(&alice).await, json!({ "joined_rooms": [] }));
        assert_eq!(rooms(&bob).await, json!({ "joined_rooms": [room] }));
    }
}
