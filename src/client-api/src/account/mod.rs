//! Accounts: making them, their passwords, their end.

mod change_password;
mod deactivate;
mod openid;
mod register;
mod token_validity;
mod username_availability;
mod whoami;

pub use deactivate::{DeactivateError, end_account};

use ruma::api::client::account::{
    change_password as change_operation, check_registration_token_validity,
    deactivate as deactivate_operation, get_username_availability, register as register_operation,
    request_openid_token, whoami as whoami_operation,
};

use crate::{Access, Limit, routes::Routes};

/// The routes of this family.
pub(crate) fn routes(routes: Routes) -> Routes {
    routes
        .operation::<register_operation::v3::Request, _, _>(Limit::Registration, register::register)
        .operation::<get_username_availability::v3::Request, _, _>(
            Limit::Registration,
            username_availability::get,
        )
        .operation::<check_registration_token_validity::v1::Request, _, _>(
            Limit::Registration,
            token_validity::get,
        )
        .operation::<whoami_operation::v3::Request, _, _>(Limit::Read, whoami::get)
        .operation::<request_openid_token::v3::Request, _, _>(Limit::Send, openid::request)
        // Without a token these would need an e-mail address or a phone number as proof, which this server does not take.
        .operation_for::<change_operation::v3::Request, _, _>(
            Access::User,
            Limit::Login,
            change_password::change,
        )
        .operation_for::<deactivate_operation::v3::Request, _, _>(
            Access::User,
            Limit::Login,
            deactivate::deactivate,
        )
}
