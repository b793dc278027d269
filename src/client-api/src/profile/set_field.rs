//! `PUT /_matrix/client/v3/profile/{userId}/{keyName}`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3profileuseridkeyname>

use axum::{Json, extract::State};
use myelin_accounts::Accounts;
use myelin_rooms::Rooms;
use ruma::{OwnedUserId, api::auth_scheme::AccessToken};
use serde_json::{Map, Value};

use super::{own_profile, refuse, tell_rooms};
use crate::{
    error::{Refusal, Result},
    extract::Call,
};

/// Sets one field of the caller's profile. A change of name or avatar is sent to all of his rooms.
pub(crate) async fn set(
    State(rooms): State<Rooms>,
    State(accounts): State<Accounts>,
    call: Call<AccessToken>,
) -> Result<Json<Map<String, Value>>> {
    let user_id: OwnedUserId = call.id(0)?;
    own_profile(&call.caller.user_id, &user_id)?;
    let key = call.arg(1);
    let value = call
        .json::<Map<String, Value>>()?
        .remove(key)
        .ok_or_else(|| Refusal::missing(format!("The body lacks {key}.")))?;
    let changed = accounts
        .set_profile_field(call.caller.user, key, value)
        .await
        .map_err(refuse)?;
    tell_rooms(&rooms, &user_id, changed).await?;
    Ok(Json(Map::new()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::testing::{Server, encode};

    #[tokio::test]
    async fn rooms_are_told_of_a_new_name_and_a_new_picture() {
        for (key, value) in [
            ("displayname", "LemurLover"),
            ("avatar_url", "mxc://hs1/lemur"),
        ] {
            let (server, alice, bob) = Server::with_two_users().await;
            let room = server
                .room(&alice, &json!({ "preset": "public_chat" }))
                .await;
            server.join(&room, &bob).await;
            let since = server.sync(&bob, "").await["next_batch"].clone();
            let path = format!("/profile/{}/{key}", encode(&alice.id));
            for _ in 0..2 {
                let body = json!({ key: value });
                assert_eq!(server.put(&path, &alice, &body).await.ok(), json!({}));
                assert_eq!(server.get(&path, &bob).await.ok(), body);
            }
            let query = format!("since={}", since.as_str().expect("a token"));
            let sync = server.sync(&bob, &query).await;
            let events = &sync["rooms"]["join"][&room]["timeline"]["events"];
            assert_eq!(events.as_array().map(Vec::len), Some(1), "{events}");
            assert_eq!(events[0]["content"][key], value);
            assert_eq!(events[0]["content"]["membership"], "join");
            // A later join shows it too.
            let other = server.room(&alice, &json!({})).await;
            let entry = format!("m.room.member/{}", encode(&alice.id));
            assert_eq!(server.state(&other, &alice, &entry).await.ok()[key], value);
        }
    }

    #[tokio::test]
    async fn what_cannot_be_set_is_refused() {
        let (server, alice, bob) = Server::with_two_users().await;
        let own = |key: &str| format!("/profile/@alice:hs1/{key}");
        let long = "a.".to_owned() + &"b".repeat(255);
        for (user, path, body, status, errcode) in [
            (
                &bob,
                own("displayname"),
                json!({ "displayname": "x" }),
                403,
                "M_FORBIDDEN",
            ),
            (
                &alice,
                own("displayname"),
                json!({}),
                400,
                "M_MISSING_PARAM",
            ),
            (
                &alice,
                own("displayname"),
                json!({ "displayname": 5 }),
                400,
                "M_BAD_JSON",
            ),
            (&alice, own("displayname"), json!([]), 400, "M_BAD_JSON"),
            (&alice, own("m.tz"), json!({ "m.tz": 5 }), 400, "M_BAD_JSON"),
            (
                &alice,
                own("nonsense"),
                json!({ "nonsense": 5 }),
                400,
                "M_INVALID_PARAM",
            ),
            (
                &alice,
                own(&long),
                json!({ &long: 5 }),
                400,
                "M_KEY_TOO_LARGE",
            ),
            (
                &alice,
                own("a.b"),
                json!({ "a.b": "x".repeat(70_000) }),
                400,
                "M_PROFILE_TOO_LARGE",
            ),
        ] {
            server
                .put(&path, user, &body)
                .await
                .refused(status, errcode);
        }
        let profile = server.get("/profile/@alice:hs1", &alice).await.ok();
        assert_eq!(profile, json!({}));
    }

    #[tokio::test]
    async fn an_empty_name_is_none() {
        let server = Server::new().await;
        let alice = server.register("alice").await;
        let path = "/profile/@alice:hs1/displayname";
        for empty in ["", ""] {
            server
                .put(path, &alice, &json!({ "displayname": "Alice" }))
                .await
                .ok();
            server
                .put(path, &alice, &json!({ "displayname": empty }))
                .await
                .ok();
            server.get(path, &alice).await.refused(404, "M_NOT_FOUND");
        }
    }
}
