//! Aliases of rooms, and whether the public directory lists them.

mod create_alias;
mod delete_alias;
mod get_alias;
mod get_visibility;
mod list_aliases;
mod list_public;
mod search_public;
mod set_visibility;

use ruma::api::client::{
    alias::{
        create_alias as create_operation, delete_alias as delete_operation,
        get_alias as get_operation,
    },
    directory::{
        get_public_rooms, get_public_rooms_filtered, get_room_visibility, set_room_visibility,
    },
    room::aliases,
};

use crate::{Limit, routes::Routes};

/// The routes of this family.
pub(crate) fn routes(routes: Routes) -> Routes {
    routes
        .operation::<create_operation::v3::Request, _, _>(Limit::Send, create_alias::create)
        .operation::<get_operation::v3::Request, _, _>(Limit::Read, get_alias::get)
        .operation::<delete_operation::v3::Request, _, _>(Limit::Send, delete_alias::delete)
        .operation::<aliases::v3::Request, _, _>(Limit::Read, list_aliases::list)
        .operation::<get_public_rooms::v3::Request, _, _>(Limit::Read, list_public::list)
        .operation::<get_public_rooms_filtered::v3::Request, _, _>(
            Limit::Read,
            search_public::search,
        )
        .operation::<get_room_visibility::v3::Request, _, _>(Limit::Read, get_visibility::get)
        .operation::<set_room_visibility::v3::Request, _, _>(Limit::Send, set_visibility::set)
}
