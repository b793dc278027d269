//! `POST /_matrix/client/v3/user/{userId}/filter`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3useruseridfilter>

use axum::{Json, extract::State};
use myelin_accounts::{Accounts, FilterError};
use ruma::{
    OwnedUserId,
    api::{auth_scheme::AccessToken, error::ErrorKind},
};
use serde_json::{Value, json};

use crate::{
    error::{Refusal, Result},
    extract::Call,
};

fn refuse(error: FilterError) -> Refusal {
    match error {
        FilterError::Invalid(what) => {
            Refusal::bad_request(ErrorKind::BadJson, format!("This is no filter: {what}."))
        }
        FilterError::TooLarge => Refusal::too_large("The filter is too large to be kept."),
        FilterError::TooMany => Refusal::bad_request(
            ErrorKind::Unknown,
            "You have as many filters as this server keeps for one user.",
        ),
        FilterError::Failed(cause) => Refusal::internal(cause),
    }
}

/// Stores a filter of the caller.
pub(crate) async fn define(
    State(accounts): State<Accounts>,
    call: Call<AccessToken>,
) -> Result<Json<Value>> {
    let user_id: OwnedUserId = call.id(0)?;
    if call.caller.user_id != user_id {
        return Err(Refusal::forbidden(
            "You can store filters for yourself alone.",
        ));
    }
    let filter_id = accounts
        .define_filter(call.caller.user, &call.json()?)
        .await
        .map_err(refuse)?;
    Ok(Json(json!({ "filter_id": filter_id })))
}

#[cfg(test)]
mod tests {
    use http::Method;
    use serde_json::json;

    use crate::testing::Server;

    const PATH: &str = "/user/@alice:hs1/filter";

    #[tokio::test]
    async fn a_filter_is_stored_once() {
        let server = Server::new().await;
        let alice = server.register("alice").await;
        let filter = json!({ "room": { "timeline": { "limit": 10 } } });
        let first = server.post(PATH, &alice, &filter).await.ok();
        assert!(first["filter_id"].is_string());
        assert_eq!(server.post(PATH, &alice, &filter).await.ok(), first);
        let other = server.post(PATH, &alice, &json!({})).await.ok();
        assert_ne!(other, first);
    }

    #[tokio::test]
    async fn what_is_no_filter_is_refused() {
        let (server, alice, bob) = Server::with_two_users().await;
        let timeline = |key: &str, value| json!({ "room": { "timeline": { key: value } } });
        let mut bad = vec![json!({ "presence": "not_an_object" }), json!([])];
        for key in ["timeline", "state", "ephemeral", "account_data"] {
            bad.push(json!({ "room": { key: "not_an_object" } }));
        }
        for key in [
            "rooms",
            "not_rooms",
            "senders",
            "not_senders",
            "types",
            "not_types",
        ] {
            bad.push(timeline(key, json!("not_a_list")));
        }
        bad.push(timeline("types", json!([1])));
        bad.push(timeline("rooms", json!(["not_a_room_id"])));
        bad.push(timeline("senders", json!(["not_a_sender_id"])));
        for filter in bad {
            server
                .post(PATH, &alice, &filter)
                .await
                .refused(400, "M_BAD_JSON");
        }
        let large = timeline("types", json!(["x".repeat(70_000)]));
        server
            .post(PATH, &alice, &large)
            .await
            .refused(413, "M_TOO_LARGE");
        server
            .post(PATH, &bob, &json!({}))
            .await
            .refused(403, "M_FORBIDDEN");
        let whole = format!("/_matrix/client/v3{PATH}");
        server
            .send(Method::POST, &whole, Some(&alice.token), b"{".to_vec())
            .await
            .refused(400, "M_NOT_JSON");
    }
}
