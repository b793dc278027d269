//! `POST /_matrix/client/v3/login`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3login>

use std::sync::Arc;

use axum::extract::State;
use myelin_accounts::{Accounts, Identifier, Login, LoginError, NewSession, Secret};
use ruma::api::{
    client::{
        session::login::v3::{
            DiscoveryInfo, HomeserverInfo, LoginInfo, Request as Operation, Response,
        },
    },
    error::ErrorKind,
};
use serde_json::{Map, Value};

use crate::{
    About,
    error::{Refusal, Result},
    extract::{Reply, Request},
};

fn refuse(error: LoginError) -> Refusal {
    match error {
        LoginError::Refused => Refusal::forbidden("The user name or the password is wrong."),
        LoginError::DeviceTooLong => Refusal::invalid("The device id or its name is too long."),
        LoginError::Failed(cause) => Refusal::internal(cause),
    }
}

/// Opens a session for whoever knows the password.
pub(crate) async fn login(
    State(accounts): State<Accounts>,
    State(about): State<Arc<About>>,
    request: Request<Operation>,
) -> Result<Reply<Response>> {
    let Request { body, raw, .. } = request;
    let LoginInfo::Password(password) = body.login_info else {
        return Err(Refusal::bad_request(
            ErrorKind::Unknown,
            "This server does not know that way to log in.",
        ));
    };
    let object: Map<String, Value> = serde_json::from_slice(&raw)
        .map_err(|_| Refusal::bad_request(ErrorKind::BadJson, "The body is not an object."))?;
    let identifier = Identifier::in_body(&object)
        .ok_or_else(|| Refusal::missing("The body does not say who logs in."))?;
    let session = accounts
        .login(Login {
            identifier,
            password: Secret::new(password.password),
            session: NewSession {
                device_id: body.device_id.map(|id| id.to_string()),
                device_display_name: body.initial_device_display_name,
                refreshable: body.refresh_token,
            },
        })
        .await
        .map_err(refuse)?;
    let mut response = Response::new(
        session.user_id,
        session.access_token.into_exposed(),
        session.device_id,
    );
    response.refresh_token = session.refresh_token.map(Secret::into_exposed);
    response.expires_in = session.expires_in;
    response.well_known = about
        .client_base_url
        .as_ref()
        .map(|url| DiscoveryInfo::new(HomeserverInfo::new(url.to_string())));
    Ok(Reply(response))
}
