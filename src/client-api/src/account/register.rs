//! `POST /_matrix/client/v3/register`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3register>

use axum::extract::State;
use http::StatusCode;
use myelin_accounts::{
    Accounts, NameError, NewSession, Operation as Confirmed, PasswordRefused, RegisterError,
    Registering, Secret,
};
use ruma::api::{
    client::account::register::{
        LoginType, RegistrationKind,
        v3::{Request as Operation, Response},
    },
    error::ErrorKind,
};

use crate::{
    error::{Refusal, Result},
    extract::{Reply, Request},
    uia,
};

fn refuse(error: RegisterError) -> Refusal {
    match error {
        RegisterError::Closed => closed(),
        RegisterError::Name(error) => refuse_name(error),
        RegisterError::PasswordMissing => Refusal::missing("A password is required."),
        RegisterError::Password(error) => refuse_password(&error),
        RegisterError::TokenSpent => {
            Refusal::forbidden("The registration token is no longer valid.")
        }
        RegisterError::DeviceTooLong => Refusal::invalid("The device id or its name is too long."),
        RegisterError::Failed(cause) => Refusal::internal(cause),
    }
}

/// What a name that cannot be had is refused with.
pub(super) fn refuse_name(error: NameError) -> Refusal {
    match error {
        NameError::Invalid => Refusal::bad_request(
            ErrorKind::InvalidUsername,
            "User names consist of the characters a-z, 0-9, and . _ = - / +.",
        ),
        NameError::InUse => Refusal::bad_request(ErrorKind::UserInUse, "The name is taken."),
        NameError::Failed(cause) => Refusal::internal(cause),
    }
}

/// What a password that cannot be chosen is refused with.
pub(super) fn refuse_password(error: &PasswordRefused) -> Refusal {
    match error {
        PasswordRefused::TooShort(least) => Refusal::new(
            StatusCode::BAD_REQUEST,
            ErrorKind::InvalidParam,
            format!("The password needs at least {least} characters."),
        ),
        PasswordRefused::TooLong => Refusal::invalid("The password is too long."),
    }
}

fn closed() -> Refusal {
    Refusal::forbidden("Registration is closed on this server.")
}

/// Makes an account.
pub(crate) async fn register(
    State(accounts): State<Accounts>,
    request: Request<Operation>,
) -> Result<Reply<Response>> {
    let Request { body, raw, .. } = request;
    if body.kind == RegistrationKind::Guest {
        return Err(Refusal::new(
            StatusCode::FORBIDDEN,
            ErrorKind::GuestAccessForbidden,
            "This server has no guests.",
        ));
    }
    if body.login_type == Some(LoginType::ApplicationService) {
        return Err(Refusal::forbidden(
            "Application services cannot register users here.",
        ));
    }
    let flows = accounts.registration_flows().ok_or_else(closed)?;
    if let Some(name) = &body.username {
        accounts.check_username(name).await.map_err(refuse_name)?;
    }
    let operation = Confirmed {
        name: "POST /register",
        subject: b"",
        flows: &flows,
        requester: None,
    };
    let passed = uia::confirm(&accounts, &operation, &raw).await?;
    let session = (!body.inhibit_login).then(|| NewSession {
        device_id: body.device_id.map(|id| id.to_string()),
        device_display_name: body.initial_device_display_name,
        refreshable: body.refresh_token,
    });
    let registered = accounts
        .register(
            Registering {
                username: body.username,
                password: body.password.map(Secret::new),
                session,
            },
            passed,
        )
        .await
        .map_err(refuse)?;
    let mut response = Response::new(registered.user_id);
    if let Some(session) = registered.session {
        response.access_token = Some(session.access_token.into_exposed());
        response.device_id = Some(session.device_id);
        response.refresh_token = session.refresh_token.map(Secret::into_exposed);
        response.expires_in = session.expires_in;
    }
    Ok(Reply(response))
}
