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
