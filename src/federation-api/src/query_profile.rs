//! `GET /_matrix/federation/v1/query/profile`
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1queryprofile>

use axum::extract::State;
use myelin_federation::{Federation, LookUpProfileError};
use ruma::api::federation::query::get_profile_information::v1::{Request as Operation, Response};

use crate::{
    error::{Refusal, Result},
    extract::{Reply, Request},
};

/// The profile of a user of this server, or one field of it.
pub(crate) async fn get(
    State(federation): State<Federation>,
    request: Request<Operation>,
) -> Result<Reply<Response>> {
    let Operation { user_id, field, .. } = request.body;
    if user_id.server_name() != federation.server_name() {
        return Err(Refusal::invalid("The user is not of this server."));
    }
    let mut profile = federation
        .own_profile(&user_id)
        .await
        .map_err(|error| match error {
            LookUpProfileError::NotFound | LookUpProfileError::Forbidden => {
                Refusal::not_found("There is no such user.")
            }
            LookUpProfileError::Query(cause) => Refusal::internal(cause),
            LookUpProfileError::Store(cause) => Refusal::internal(cause),
        })?;
    if let Some(field) = field {
        profile.retain(|name, _| name == field.as_str());
        if profile.is_empty() {
            return Err(Refusal::not_found("The profile has no such field."));
        }
    }
    Ok(Reply(profile.into_iter().collect()))
}

#[cfg(test)]
mod tests {
    use http::Method;
    use serde_json::{Value, json};

    use crate::testing::Here;

    #[tokio::test]
    async fn profiles_of_users_of_this_server_are_told() {
        let here = Here::new().await;
        here.register("alice").await;
        let get = async |query: &str| {
            let path = format!("/_matrix/federation/v1/query/profile?{query}");
            here.signed(Method::GET, &path, None).await
        };
        assert_eq!(get("user_id=@alice:here.example").await.ok(), json!({}));
        here.set_profile("alice", "displayname", "Alice".into())
            .await;
        here.set_profile("alice", "org.example.job", json!({ "a": 1 }))
            .await;
        for (query, expected) in [
            (
                "",
                json!({ "displayname": "Alice", "org.example.job": { "a": 1 } }),
            ),
            ("&field=displayname", json!({ "displayname": "Alice" })),
            (
                "&field=org.example.job",
                json!({ "org.example.job": { "a": 1 } }),
            ),
        ] {
            let query = format!("user_id=@alice:here.example{query}");
            let found: Value = get(&query).await.ok();
            assert_eq!(found, expected, "{query}");
        }
        for (query, status, errcode) in [
            ("user_id=@alice:here.example&field=m.tz", 404, "M_NOT_FOUND"),
            ("user_id=@nobody:here.example", 404, "M_NOT_FOUND"),
            ("user_id=@alice:elsewhere.example", 400, "M_INVALID_PARAM"),
            ("user_id=@alice:localhost:http", 400, "M_INVALID_PARAM"),
            ("", 400, "M_INVALID_PARAM"),
        ] {
            get(query).await.refused(status, errcode);
        }
    }
}
