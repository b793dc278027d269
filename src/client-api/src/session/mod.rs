//! Logging in and out.

mod get_login_types;
mod login;
mod logout;
mod logout_all;
mod refresh;

use ruma::api::client::session::{
    get_login_types as types_operation, login as login_operation, logout as logout_operation,
    logout_all as logout_all_operation, refresh_token,
};

use crate::{Limit, routes::Routes};

/// The routes of this family.
pub(crate) fn routes(routes: Routes) -> Routes {
    routes
        .operation::<types_operation::v3::Request, _, _>(Limit::Read, get_login_types::get)
        .operation::<login_operation::v3::Request, _, _>(Limit::Login, login::login)
        .operation::<refresh_token::v3::Request, _, _>(Limit::Read, refresh::refresh)
        .operation::<logout_operation::v3::Request, _, _>(Limit::Read, logout::logout)
        .operation::<logout_all_operation::v3::Request, _, _>(Limit::Read, logout_all::logout)
}
