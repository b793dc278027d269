//! `GET /_matrix/client/v1/register/m.login.registration_token/validity`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1registermloginregistration_tokenvalidity>

use axum::extract::State;
use myelin_accounts::{Accounts, RegisterError, Secret};
use ruma::api::client::account::check_registration_token_validity::v1::{
    Request as Operation, Response,
};

use crate::{
    error::{Refusal, Result},
    extract::{Reply, Request},
};

fn refuse(error: RegisterError) -> Refusal {
    match error {
        RegisterError::Closed => Refusal::forbidden("Registration is closed on this server."),
        other => Refusal::internal(other),
    }
}

/// Answers whether a registration token would let somebody register now.
pub(crate) async fn get(
    State(accounts): State<Accounts>,
    request: Request<Operation>,
) -> Result<Reply<Response>> {
    let valid = accounts
        .registration_token_valid(&Secret::new(request.body.token))
        .await
        .map_err(refuse)?;
    Ok(Reply(Response::new(valid)))
}

#[cfg(test)]
mod tests {
    use http::Method;
    use myelin_config::RegistrationMode;

    use crate::testing::{Answer, Server};

    async fn ask(server: &Server, token: &str) -> Answer {
        let path = format!(
            "/_matrix/client/v1/register/m.login.registration_token/validity?token={token}"
        );
        server.send(Method::GET, &path, None, Vec::new()).await
    }

    #[tokio::test]
    async fn the_token_of_the_server_is_valid_and_others_are_not() {
        let server = Server::with(|config| {
            config.registration.mode = RegistrationMode::Token;
            config.registration.token = Some(myelin_config::Secret::new("letmein"));
        })
        .await;
        for _ in 0..2 {
            assert_eq!(ask(&server, "letmein").await.ok()["valid"], true);
        }
        assert_eq!(ask(&server, "wrong").await.ok()["valid"], false);
    }

    #[tokio::test]
    async fn a_closed_server_does_not_say() {
        let server =
            Server::with(|config| config.registration.mode = RegistrationMode::Closed).await;
        ask(&server, "letmein").await.refused(403, "M_FORBIDDEN");
    }
}
