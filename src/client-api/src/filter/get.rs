//! `GET /_matrix/client/v3/user/{userId}/filter/{filterId}`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3useruseridfilterfilterid>

use axum::{Json, extract::State};
use myelin_accounts::Accounts;
use myelin_rooms::Rooms;
use ruma::{OwnedUserId, api::auth_scheme::AccessToken};
use serde_json::value::RawValue;

use crate::{
    error::{Refusal, Result},
    extract::Call,
};

/// Answers with a filter that the caller stored, as he stored it.
pub(crate) async fn get(
    State(rooms): State<Rooms>,
    State(accounts): State<Accounts>,
    call: Call<AccessToken>,
) -> Result<Json<Box<RawValue>>> {
    let user_id: OwnedUserId = call.id(0)?;
    if call.caller.user_id != user_id {
        return Err(Refusal::forbidden("This belongs to another user."));
    }
    let (user, id) = (call.caller.user, call.arg(1).to_owned());
    rooms
        .store()
        .read(move |view| accounts.filter(view, user, &id))
        .await
        .map_err(Refusal::internal)?
        .map(|filter| Json(filter.0))
        .ok_or_else(|| Refusal::not_found("There is no such filter."))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::testing::{Server, text};

    #[tokio::test]
    async fn a_filter_comes_back_as_it_was_stored() {
        let (server, alice, bob) = Server::with_two_users().await;
        let filter = json!({ "room": { "timeline": { "limit": 10 } }, "org.example": 1 });
        let base = "/user/@alice:hs1/filter";
        let id = text(&server.post(base, &alice, &filter).await.ok()["filter_id"]);
        let path = format!("{base}/{id}");
        for _ in 0..2 {
            assert_eq!(server.get(&path, &alice).await.ok(), filter);
        }
        server.get(&path, &bob).await.refused(403, "M_FORBIDDEN");
        let other = format!("/user/@bob:hs1/filter/{id}");
        server.get(&other, &bob).await.refused(404, "M_NOT_FOUND");
        for id in ["0", "nonsense"] {
            server
                .get(&format!("{base}/{id}"), &alice)
                .await
                .refused(404, "M_NOT_FOUND");
        }
    }
}
