//! `GET /_matrix/client/v3/user/{userId}/account_data/{type}` and
//! `GET /_matrix/client/v3/user/{userId}/rooms/{roomId}/account_data/{type}`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3useruseridaccount_datatype>

use axum::{Json, extract::State};
use myelin_accounts::{Accounts, Requester};
use myelin_rooms::Rooms;
use myelin_types::RoomNum;
use ruma::{OwnedRoomId, OwnedUserId, api::auth_scheme::AccessToken};
use serde_json::value::RawValue;

use super::{own, room};
use crate::{
    error::{Refusal, Result},
    extract::Call,
};

/// Answers with global account data of the caller.
pub(crate) async fn global(
    State(rooms): State<Rooms>,
    State(accounts): State<Accounts>,
    call: Call<AccessToken>,
) -> Result<Json<Box<RawValue>>> {
    let user_id: OwnedUserId = call.id(0)?;
    own(&call.caller, &user_id)?;
    get(&rooms, accounts, &call.caller, RoomNum::NONE, call.arg(1)).await
}

/// Answers with the caller's account data for a room.
pub(crate) async fn of_room(
    State(rooms): State<Rooms>,
    State(accounts): State<Accounts>,
    call: Call<AccessToken>,
) -> Result<Json<Box<RawValue>>> {
    let user_id: OwnedUserId = call.id(0)?;
    let room_id: OwnedRoomId = call.id(1)?;
    own(&call.caller, &user_id)?;
    let room = room(&rooms, room_id).await?;
    get(&rooms, accounts, &call.caller, room, call.arg(2)).await
}

async fn get(
    rooms: &Rooms,
    accounts: Accounts,
    caller: &Requester,
    room: RoomNum,
    kind: &str,
) -> Result<Json<Box<RawValue>>> {
    let (user, kind) = (caller.user, kind.to_owned());
    rooms
        .store()
        .read(move |view| accounts.account_data(view, user, room, &kind))
        .await
        .map_err(Refusal::internal)?
        .map(|data| Json(data.0))
        .ok_or_else(|| Refusal::not_found("There is no such account data."))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::testing::{Server, encode};

    #[tokio::test]
    async fn only_its_owner_sees_what_was_set() {
        let (server, alice, bob) = Server::with_two_users().await;
        let room = server.room(&alice, &json!({})).await;
        let global = "/user/@alice:hs1/account_data".to_owned();
        let of_room = format!("/user/@alice:hs1/rooms/{}/account_data", encode(&room));
        for (base, value) in [(&global, "first"), (&of_room, "room first")] {
            let path = format!("{base}/test.key");
            let content = json!({ "value": value });
            server.put(&path, &alice, &content).await.ok();
            for _ in 0..2 {
                assert_eq!(server.get(&path, &alice).await.ok(), content);
            }
            server.get(&path, &bob).await.refused(403, "M_FORBIDDEN");
            let missing = format!("{base}/other.key");
            server
                .get(&missing, &alice)
                .await
                .refused(404, "M_NOT_FOUND");
        }
        let rules = server
            .get(&format!("{global}/m.push_rules"), &alice)
            .await
            .ok();
        assert!(rules["global"]["override"].is_array());
    }

    #[tokio::test]
    async fn rooms_that_are_none_have_none() {
        let server = Server::new().await;
        let alice = server.register("alice").await;
        for (room, status, errcode) in [
            ("!nowhere:hs1", 404, "M_NOT_FOUND"),
            ("nonsense", 400, "M_INVALID_PARAM"),
        ] {
            let path = format!("/user/@alice:hs1/rooms/{}/account_data/a.b", encode(room));
            server.get(&path, &alice).await.refused(status, errcode);
        }
    }
}
