//! `PUT /_matrix/client/v3/directory/list/room/{roomId}`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3directorylistroomroomid>

use axum::extract::State;
use myelin_rooms::{Rooms, SetVisibilityError, Visibility};
use ruma::api::{
    client::{
        directory::set_room_visibility::v3::{Request as Operation, Response},
        room::Visibility as WireVisibility,
    },
    error::ErrorKind,
};

use crate::{
    error::{Refusal, Result},
    extract::{Reply, Request},
    shared::{no_such_room, refuse_failure},
};

fn refuse(error: SetVisibilityError) -> Refusal {
    match error {
        SetVisibilityError::RoomNotFound => no_such_room(),
        SetVisibilityError::NotAllowed => {
            Refusal::forbidden("You may not change whether this room is listed.")
        }
        SetVisibilityError::Failure(failure) => refuse_failure(failure),
    }
}

/// Lists a room in the public directory, or takes it off.
pub(crate) async fn set(
    State(rooms): State<Rooms>,
    request: Request<Operation>,
) -> Result<Reply<Response>> {
    let Request { body, caller, .. } = request;
    let visibility = match body.visibility {
        WireVisibility::Public => Visibility::Public,
        WireVisibility::Private => Visibility::Private,
        other => {
            return Err(Refusal::bad_request(
                ErrorKind::BadJson,
                format!("There is no visibility {:?}.", other.as_str()),
            ));
        }
    };
    rooms
        .set_visibility(&body.room_id, &caller.user_id, visibility, caller.admin)
        .await
        .map_err(refuse)?;
    Ok(Reply(Response::new()))
}
