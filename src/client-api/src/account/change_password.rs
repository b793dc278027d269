//! `POST /_matrix/client/v3/account/password`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3accountpassword>

use axum::extract::State;
use myelin_accounts::{
    Accounts, Flow, Operation as Confirmed, Secret, SetPasswordError, Stage,
};
use ruma::api::{
    auth_scheme::AccessToken, client::account::change_password::v3::Response,
};
use serde::Deserialize;

use super::register::refuse_password;
use crate::{
    error::{Refusal, Result},
    extract::{Call, Reply},
    uia,
};

fn refuse(error: SetPasswordError) -> Refusal {
    match error {
        SetPasswordError::Password(error) => refuse_password(&error),
        SetPasswordError::NoAccount => Refusal::forbidden("The account was deactivated."),
        SetPasswordError::Failed(cause) => Refusal::internal(cause),
    }
}

/// The body, without `auth`.
#[derive(Deserialize)]
struct Body {
    new_password: String,
    #[serde(default = "logout_devices")]
    logout_devices: bool,
}

fn logout_devices() -> bool {
    true
}

/// Gives the caller another password; his other sessions end unless he wants them kept.
pub(crate) async fn change(
    State(accounts): State<Accounts>,
    call: Call<AccessToken>,
) -> Result<Reply<Response>> {
    let body: Body = call.json()?;
    let Call { caller, raw, .. } = call;
    let operation = Confirmed {
        name: "POST /account/password",
        subject: b"",
        flows: &[Flow(vec![Stage::Password])],
        requester: Some(&caller),
    };
    uia::confirm(&accounts, &operation, &raw).await?;
    accounts
        .set_password(
            caller.user,
            Secret::new(body.new_password),
            body.logout_devices,
            Some(&caller.device_id),
        )
        .await
        .map_err(refuse)?;
    Ok(Reply(Response::new()))
}
