//! What a user keeps with the server, for himself or for a room, and the tags of his rooms.

mod delete_tag;
mod get;
mod get_tags;
mod set;
mod set_tag;

use myelin_accounts::Requester;
use myelin_rooms::Rooms;
use myelin_types::RoomNum;
use ruma::{
    OwnedRoomId, UserId,
    api::client::{
        config::{
            get_global_account_data, get_room_account_data, set_global_account_data,
            set_room_account_data,
        },
        tag::{create_tag, delete_tag as delete_operation, get_tags as tags_operation},
    },
};

use crate::{
    Limit,
    error::{Refusal, Result},
    routes::Routes,
    shared::no_such_room,
};

/// The routes of this family.
pub(crate) fn routes(routes: Routes) -> Routes {
    routes
        .operation::<get_global_account_data::v3::Request, _, _>(Limit::Read, get::global)
        .operation::<set_global_account_data::v3::Request, _, _>(Limit::Send, set::global)
        .operation::<get_room_account_data::v3::Request, _, _>(Limit::Read, get::of_room)
        .operation::<set_room_account_data::v3::Request, _, _>(Limit::Send, set::of_room)
        .operation::<tags_operation::v3::Request, _, _>(Limit::Read, get_tags::list)
        .operation::<create_tag::v3::Request, _, _>(Limit::Send, set_tag::set)
        .operation::<delete_operation::v3::Request, _, _>(Limit::Send, delete_tag::delete)
}

/// Refuses whatever belongs to another user.
fn own(caller: &Requester, user_id: &UserId) -> Result<()> {
    if caller.user_id == user_id {
        Ok(())
    } else {
        Err(Refusal::forbidden("This belongs to another user."))
    }
}

/// The number of a room that this server knows.
async fn room(rooms: &Rooms, room_id: OwnedRoomId) -> Result<RoomNum> {
    let reader = rooms.clone();
    rooms
        .store()
        .read(move |view| reader.find(view, &room_id))
        .await
        .map_err(Refusal::internal)?
        .map(|room| room.num)
        .ok_or_else(no_such_room)
}
