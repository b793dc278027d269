//! `POST /_matrix/client/v3/account/deactivate`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3accountdeactivate>

use axum::extract::State;
use myelin_accounts::{Accounts, Deactivation, Flow, Operation as Confirmed, Stage};
use myelin_federation::Federation;
use myelin_rooms::{Failure, Rooms};
use myelin_types::UserNum;
use ruma::{
    UserId,
    api::{
        auth_scheme::AccessToken,
        client::account::{ThirdPartyIdRemovalStatus, deactivate::v3::Response},
    },
};
use serde::Deserialize;

use crate::{
    error::{Refusal, Result},
    extract::{Call, Reply},
    shared::refuse_failure,
    uia,
};

/// Why an account was not deactivated.
#[derive(Debug, thiserror::Error)]
pub enum DeactivateError {
    /// The account itself could not be ended.
    #[error("end the account")]
    Account(#[from] Deactivation),
    /// It was ended, but its rooms could not all be left. Doing it again leaves the rest.
    #[error("leave the account's rooms")]
    Rooms(#[from] Failure),
}

fn refuse(error: DeactivateError) -> Refusal {
    match error {
        DeactivateError::Account(Deactivation::NoAccount) => {
            Refusal::not_found("There is no such account.")
        }
        DeactivateError::Account(Deactivation::Failed(cause)) => Refusal::internal(cause),
        DeactivateError::Rooms(failure) => refuse_failure(failure),
    }
}

/// The body, without `auth`.
#[derive(Deserialize)]
struct Body {
    #[serde(default)]
    erase: bool,
}

/// Ends the caller's account: his sessions end, and he leaves all rooms.
pub(crate) async fn deactivate(
    State(accounts): State<Accounts>,
    State(rooms): State<Rooms>,
    State(federation): State<Federation>,
    call: Call<AccessToken>,
) -> Result<Reply<Response>> {
    let body: Body = call.json()?;
    let Call { caller, raw, .. } = call;
    let operation = Confirmed {
        name: "POST /account/deactivate",
        subject: b"",
        flows: &[Flow(vec![Stage::Password])],
        requester: Some(&caller),
    };
    uia::confirm(&accounts, &operation, &raw).await?;
    end_account(&accounts, &rooms, caller.user, &caller.user_id, body.erase)
        .await
        .map_err(refuse)?;
    let declined = federation.decline_all(&caller.user_id).await;
    declined.map_err(|failure| refuse(failure.into()))?;
    // Nothing was ever bound at an identity server from here, so that there is nothing to unbind.
    Ok(Reply(Response::new(ThirdPartyIdRemovalStatus::Success)))
}

/// Ends an account for good: its sessions end, its profile goes, and it leaves all rooms. With `erase` what it kept with
/// the server goes too.
pub async fn end_account(
    accounts: &Accounts,
    rooms: &Rooms,
    user: UserNum,
    user_id: &UserId,
    erase: bool,
) -> std::result::Result<(), DeactivateError> {
    // First the rooms: if that fails, or the client goes away, the account is still there to try again with.
    rooms.leave_all(user_id).await?;
    accounts.deactivate(user, erase).await?;
    // And what was joined in the meantime.
    rooms.leave_all(user_id).await?;
    rooms.end_presence(user).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use http::Method;
    use myelin_data::backups::{BackupKeys, BackupVersions, UserBackups};
    use myelin_store::Scan;
    use serde_json::{Value, json};

    use crate::testing::{PASSWORD, Server, encode, in_room, proof};

    const PATH: &str = "/account/deactivate";

    #[tokio::test]
    async fn the_account_ends_and_leaves_its_rooms() {
        let (server, alice, bob) = Server::with_two_users().await;
        let room = server.room(&bob, &json!({ "preset": "public_chat" })).await;
        server.join(&room, &alice).await;
        let body = json!({ "auth": proof(&alice, PASSWORD) });
        let answer = server.post(PATH, &alice, &body).await.ok();
        assert_eq!(answer["id_server_unbind_result"], "success");
        // Its session is over, so that it does not end twice.
        server
            .post(PATH, &alice, &body)
            .await
            .refused(401, "M_UNKNOWN_TOKEN");
        server
            .stranger(Method::POST, "/login", &proof(&alice, PASSWORD))
            .await
            .refused(403, "M_FORBIDDEN");
        let entry = format!("m.room.member/{}", encode(&alice.id));
        let member = server.state(&room, &bob, &entry).await.ok();
        assert_eq!(member["membership"], "leave");
        // Nobody is given the name again.
        let body = json!({
            "username": "alice",
            "password": PASSWORD,
            "auth": { "type": "m.login.dummy" },
        });
        server
            .stranger(Method::POST, "/register", &body)
            .await
            .refused(400, "M_USER_IN_USE");
    }

    #[tokio::test]
    async fn only_whoever_knows_the_password_ends_an_account() {
        let (server, alice, bob) = Server::with_two_users().await;
        let asked = server.post(PATH, &alice, &json!({})).await;
        assert_eq!(asked.status, 401);
        assert_eq!(
            asked.body["flows"],
            json!([{ "stages": ["m.login.password"] }])
        );
        let attempt = async |auth: Value| server.post(PATH, &alice, &json!({ "auth": auth })).await;
        attempt(proof(&alice, "wrong_password"))
            .await
            .refused(401, "M_FORBIDDEN");
        attempt(proof(&bob, PASSWORD))
            .await
            .refused(403, "M_FORBIDDEN");
        let room = server.room(&alice, &json!({})).await;
        server
            .get(&in_room(&room, "/joined_members"), &alice)
            .await
            .ok();
    }
    #[tokio::test]
    async fn nobody_keeps_the_keys_of_an_account_that_has_ended() {
        let (server, alice, bob) = Server::with_two_users().await;
        let backup = json!({ "algorithm": "a", "auth_data": {} });
        let key = json!({
            "first_message_index": 0,
            "forwarded_count": 0,
            "is_verified": false,
            "session_data": {},
        });
        for user in [&alice, &bob] {
            server.post("/room_keys/version", user, &backup).await.ok();
            let path = "/room_keys/keys/!a:hs1/session?version=1";
            server.put(path, user, &key).await.ok();
        }
        let body = json!({ "auth": proof(&alice, PASSWORD) });
        server.post(PATH, &alice, &body).await.ok();
        let view = server.store.view();
        assert_eq!(view.keys::<UserBackups>(Scan::all()).count(), 1);
        assert_eq!(view.keys::<BackupVersions>(Scan::all()).count(), 1);
        assert_eq!(view.keys::<BackupKeys>(Scan::all()).count(), 1);
    }
}
