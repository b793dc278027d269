//! `PUT /_matrix/client/v3/user/{userId}/account_data/{type}` and
//! `PUT /_matrix/client/v3/user/{userId}/rooms/{roomId}/account_data/{type}`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3useruseridaccount_datatype>

use axum::{Json, extract::State};
use http::StatusCode;
use myelin_accounts::{AccountDataError, Accounts};
use myelin_data::RawJson;
use myelin_rooms::Rooms;
use myelin_types::RoomNum;
use ruma::{
    OwnedRoomId, OwnedUserId,
    api::{auth_scheme::AccessToken, error::ErrorKind},
};
use serde_json::{Map, Value, value::RawValue};

use super::{own, room};
use crate::{
    error::{Refusal, Result},
    extract::Call,
};

fn refuse(error: AccountDataError) -> Refusal {
    match error {
        AccountDataError::NotAnObject => {
            Refusal::bad_request(ErrorKind::BadJson, "Account data is an object.")
        }
        AccountDataError::InvalidType => Refusal::invalid("The type cannot be kept."),
        AccountDataError::ServerManaged(kind) => Refusal::new(
            StatusCode::METHOD_NOT_ALLOWED,
            ErrorKind::BadJson,
            format!("{kind} is changed through an endpoint of its own."),
        ),
        AccountDataError::Failed(cause) => Refusal::internal(cause),
    }
}

/// Sets global account data of the caller.
pub(crate) async fn global(
    State(accounts): State<Accounts>,
    call: Call<AccessToken>,
) -> Result<Json<Map<String, Value>>> {
    let user_id: OwnedUserId = call.id(0)?;
    own(&call.caller, &user_id)?;
    set(&accounts, &call, RoomNum::NONE, call.arg(1)).await
}

/// Sets the caller's account data for a room.
pub(crate) async fn of_room(
    State(rooms): State<Rooms>,
    State(accounts): State<Accounts>,
    call: Call<AccessToken>,
) -> Result<Json<Map<String, Value>>> {
    let user_id: OwnedUserId = call.id(0)?;
    let room_id: OwnedRoomId = call.id(1)?;
    own(&call.caller, &user_id)?;
    let room = room(&rooms, room_id).await?;
    set(&accounts, &call, room, call.arg(2)).await
}

async fn set(
    accounts: &Accounts,
    call: &Call<AccessToken>,
    room: RoomNum,
    kind: &str,
) -> Result<Json<Map<String, Value>>> {
    let content = RawJson(call.json::<Box<RawValue>>()?);
    accounts
        .set_account_data(call.caller.user, room, kind, content)
        .await
        .map_err(refuse)?;
    Ok(Json(Map::new()))
}

#[cfg(test)]
mod tests {
    use http::Method;
    use serde_json::json;

    use crate::testing::{Server, encode, text};

    #[tokio::test]
    async fn the_last_content_counts_and_syncs_bring_it() {
        let server = Server::new().await;
        let alice = server.register("alice").await;
        let room = server.room(&alice, &json!({})).await;
        let since = text(&server.sync(&alice, "").await["next_batch"]);
        let query = format!("since={since}");
        let of_room = format!(
            "/user/@alice:hs1/rooms/{}/account_data/test.key",
            encode(&room)
        );
        for path in ["/user/@alice:hs1/account_data/test.key", of_room.as_str()] {
            for value in ["first", "second", "second"] {
                let content = json!({ "value": value });
                assert_eq!(server.put(path, &alice, &content).await.ok(), json!({}));
                assert_eq!(server.get(path, &alice).await.ok(), content);
            }
        }
        let sync = server.sync(&alice, &query).await;
        let event = json!([{ "type": "test.key", "content": { "value": "second" } }]);
        assert_eq!(sync["account_data"]["events"], event);
        assert_eq!(
            sync["rooms"]["join"][&room]["account_data"]["events"],
            event
        );
    }

    #[tokio::test]
    async fn what_cannot_be_set_is_refused() {
        let (server, alice, bob) = Server::with_two_users().await;
        let room = server.room(&alice, &json!({})).await;
        let of_room = format!("rooms/{}/account_data", encode(&room));
        for base in ["account_data", of_room.as_str()] {
            let path = |kind: &str| format!("/user/@alice:hs1/{base}/{kind}");
            for (user, kind, body, status, errcode) in [
                (&bob, "a.b", json!({}), 403, "M_FORBIDDEN"),
                (&alice, "m.push_rules", json!({}), 405, "M_BAD_JSON"),
                (&alice, "m.fully_read", json!({}), 405, "M_BAD_JSON"),
                (&alice, "a.b", json!([]), 400, "M_BAD_JSON"),
                (&alice, "a.b", json!("x"), 400, "M_BAD_JSON"),
            ] {
                server
                    .put(&path(kind), user, &body)
                    .await
                    .refused(status, errcode);
            }
            let whole = format!("/_matrix/client/v3{}", path("a.b"));
            server
                .send(Method::PUT, &whole, Some(&alice.token), b"{".to_vec())
                .await
                .refused(400, "M_NOT_JSON");
            server
                .get(&path("a.b"), &alice)
                .await
                .refused(404, "M_NOT_FOUND");
        }
        let nowhere = "/user/@alice:hs1/rooms/!nowhere:hs1/account_data/a.b";
        server
            .put(nowhere, &alice, &json!({}))
            .await
            .refused(404, "M_NOT_FOUND");
    }
}
