//! `GET /_matrix/federation/v1/openid/userinfo`
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1openiduserinfo>

use axum::extract::State;
use myelin_federation::Federation;
use ruma::api::federation::openid::get_openid_userinfo::v1::{Request as Operation, Response};

use crate::{
    error::{Refusal, Result},
    extract::{Reply, Request},
};

/// Whose token it is.
pub(crate) async fn get(
    State(federation): State<Federation>,
    request: Request<Operation>,
) -> Result<Reply<Response>> {
    let user = federation
        .accounts()
        .openid_user(&request.body.access_token)
        .await
        .map_err(Refusal::internal)?
        .ok_or_else(Refusal::unknown_token)?;
    Ok(Reply(Response::new(user)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::Method;
    use serde_json::json;

    use crate::testing::Here;

    #[tokio::test]
    async fn a_token_says_whose_it_is_until_it_ends() {
        let here = Here::new().await;
        let alice = here.register("alice").await;
        let get = async |token: &str| {
            let path = format!("/_matrix/federation/v1/openid/userinfo?access_token={token}");
            here.send(Method::GET, &path, None, "").await
        };
        let accounts = here.accounts();
        let token = accounts.new_openid_token(alice).await.expect("made");
        let token = token.expose();
        for _ in 0..2 {
            let whose = get(token).await.ok();
            assert_eq!(whose, json!({ "sub": "@alice:here.example" }));
        }
        let longer = token.replacen("myo_1", "myo_2", 1);
        for wrong in ["", "x", "myo_1", &longer, &token[..token.len() - 1]] {
            get(wrong).await.refused(401, "M_UNKNOWN_TOKEN");
        }
        here.clock.advance(Duration::from_hours(1));
        get(token).await.refused(401, "M_UNKNOWN_TOKEN");
    }

    #[tokio::test]
    async fn tokens_of_users_who_are_gone_say_nothing() {
        let here = Here::new().await;
        let alice = here.register("alice").await;
        let accounts = here.accounts();
        let token = accounts.new_openid_token(alice).await.expect("made");
        accounts.deactivate(alice, false).await.expect("is done");
        let path = "/_matrix/federation/v1/openid/userinfo?access_token=";
        here.send(Method::GET, &format!("{path}{}", token.expose()), None, "")
            .await
            .refused(401, "M_UNKNOWN_TOKEN");
    }
}
