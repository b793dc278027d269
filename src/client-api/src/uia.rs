//! User-interactive authentication: the answer with status 401 that says what a client is to do next.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#user-interactive-authentication-api>

use http::StatusCode;
use myelin_accounts::{Accounts, Challenge, Flow, Operation, Passed, StageFailure, UiaError};
use ruma::api::error::{ErrorCode, ErrorKind};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::{Refusal, Result};

/// The part of a body that authenticates its sender.
#[derive(Deserialize)]
struct Body {
    #[serde(default)]
    auth: Option<Value>,
}

/// Lets a request through whose `auth` completes one of the operation's flows. `body` is its body, or empty.
pub(crate) async fn confirm(
    accounts: &Accounts,
    operation: &Operation<'_>,
    body: &[u8],
) -> Result<Passed> {
    let auth = if body.is_empty() {
        None
    } else {
        serde_json::from_slice::<Body>(body)
            .map_err(|error| {
                Refusal::bad_request(ErrorKind::BadJson, format!("auth is malformed: {error}."))
            })?
            .auth
    };
    accounts
        .interact(operation, auth.as_ref())
        .await
        .map_err(refuse)
}

fn refuse(error: UiaError) -> Refusal {
    match error {
        UiaError::Challenge(challenge) => {
            Refusal::with_body(StatusCode::UNAUTHORIZED, describe(&challenge))
        }
        UiaError::WrongUser => Refusal::forbidden("You authenticated as another user."),
        UiaError::OtherOperation => {
            Refusal::forbidden("The request has changed since the authentication began.")
        }
        UiaError::Missing(what) => Refusal::missing(format!("auth lacks {what}.")),
        UiaError::Malformed => Refusal::bad_request(ErrorKind::BadJson, "auth is malformed."),
        UiaError::Failed(cause) => Refusal::internal(cause),
    }
}

fn describe(challenge: &Challenge) -> Value {
    let names = |stages: &[myelin_accounts::Stage]| {
        stages
            .iter()
            .map(|stage| stage.as_str())
            .collect::<Vec<_>>()
    };
    let flows: Vec<Value> = challenge
        .flows
        .iter()
        .map(|Flow(stages)| json!({ "stages": names(stages) }))
        .collect();
    let mut body = json!({
        "session": challenge.session,
        "flows": flows,
        "params": {},
        "completed": names(&challenge.completed),
    });
    if let Some(failure) = challenge.failure {
        let errcode = match failure {
            StageFailure::WrongPassword
            | StageFailure::WrongToken
            | StageFailure::NotNext
            | StageFailure::UnknownSession => ErrorCode::Forbidden,
            StageFailure::NotOffered => ErrorCode::Unrecognized,
        };
        body["errcode"] = errcode.to_string().into();
        body["error"] = failure.to_string().into();
    }
    body
}
