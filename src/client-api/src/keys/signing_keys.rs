//! `POST /_matrix/client/v3/keys/device_signing/upload`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysdevice_signingupload>

use axum::{Json, extract::State};
use myelin_accounts::{Accounts, Flow, Operation as Confirmed, Stage};
use myelin_data::RawJson;
use myelin_e2ee::{E2ee, SigningKeys, SigningKeysError};
use ruma::api::{auth_scheme::AccessToken, error::ErrorKind};
use serde::Deserialize;
use serde_json::{Map, Value, value::RawValue};

use super::{invalid_signature, owner};
use crate::{
    error::{Refusal, Result},
    extract::Call,
    uia,
};

/// The body, without `auth`.
#[derive(Deserialize)]
struct Body {
    #[serde(default, rename = "master_key")]
    master: Option<Box<RawValue>>,
    #[serde(default, rename = "self_signing_key")]
    self_signing: Option<Box<RawValue>>,
    #[serde(default, rename = "user_signing_key")]
    user_signing: Option<Box<RawValue>>,
}

fn refuse(error: SigningKeysError) -> Refusal {
    match error {
        SigningKeysError::NoDevice => Refusal::unknown_token(false),
        SigningKeysError::Malformed(what) => Refusal::bad_request(
            ErrorKind::BadJson,
            format!("The keys were not taken: {what}."),
        ),
        SigningKeysError::OtherKey => {
            Refusal::invalid("A key is that of another user, or for another use.")
        }
        SigningKeysError::NoMaster => Refusal::missing("There is no master key yet."),
        SigningKeysError::BadSignature => invalid_signature(),
        SigningKeysError::IdInUse => {
            Refusal::forbidden("One of your devices has the id of such a key.")
        }
        // They were confirmed when this is said.
        SigningKeysError::Unconfirmed => Refusal::forbidden("The change was not confirmed."),
        SigningKeysError::Failed(cause) => Refusal::internal(cause),
    }
}

/// Keeps the caller's cross-signing keys. Who replaces or adds to those that are there has to confirm it with his password.
pub(crate) async fn upload(
    State(e2ee): State<E2ee>,
    State(accounts): State<Accounts>,
    call: Call<AccessToken>,
) -> Result<Json<Map<String, Value>>> {
    let body: Body = call.json()?;
    let keys = SigningKeys {
        master: body.master.map(RawJson),
        self_signing: body.self_signing.map(RawJson),
        user_signing: body.user_signing.map(RawJson),
    };
    let owner = owner(&call.caller);
    let mut done = e2ee
        .upload_signing_keys(owner.clone(), keys.clone(), false)
        .await;
    if let Err(SigningKeysError::Unconfirmed) = done {
        let given = [&keys.master, &keys.self_signing, &keys.user_signing];
        let given = given.map(|key| key.as_ref().map_or("", RawJson::get));
        let subject = given.join("\0");
        let operation = Confirmed {
            name: "POST /keys/device_signing/upload",
            subject: subject.as_bytes(),
            flows: &[Flow(vec![Stage::Password])],
            requester: Some(&call.caller),
        };
        uia::confirm(&accounts, &operation, &call.raw).await?;
        done = e2ee.upload_signing_keys(owner, keys, true).await;
    }
    done.map_err(refuse)?;
    Ok(Json(Map::new()))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::{
        keys::testing::{Pen, signing_key},
        testing::{PASSWORD, Server, User, proof},
    };

    const PATH: &str = "/keys/device_signing/upload";

    fn keys(user: &User, seed: u8) -> Value {
        let master = Pen::identity(seed);
        let minor = |usage: &str, seed: u8| {
            master.sign(user, signing_key(user, usage, &Pen::identity(seed)))
        };
        json!({
            "master_key": signing_key(user, "master", &master),
            "self_signing_key": minor("self_signing", seed + 1),
            "user_signing_key": minor("user_signing", seed + 2),
        })
    }

    #[tokio::test]
    async fn the_first_keys_are_taken_and_others_only_with_the_password() {
        let (server, alice, bob) = Server::with_two_users().await;
        let first = keys(&alice, 10);
        for _ in 0..2 {
            assert_eq!(server.post(PATH, &alice, &first).await.ok(), json!({}));
        }
        let mut second = keys(&alice, 20);
        let asked = server.post(PATH, &alice, &second).await;
        assert_eq!(asked.status, 401);
        assert_eq!(
            asked.body["flows"],
            json!([{ "stages": ["m.login.password"] }])
        );
        let query = json!({ "device_keys": { &alice.id: [] } });
        let answer = server.post("/keys/query", &bob, &query).await.ok();
        assert_eq!(
            answer["master_keys"][&alice.id]["keys"],
            first["master_key"]["keys"]
        );
        assert_eq!(
            answer["self_signing_keys"][&alice.id],
            first["self_signing_key"]
        );
        assert_eq!(answer["user_signing_keys"], json!({}));

        second["auth"] = proof(&bob, PASSWORD);
        server
            .post(PATH, &alice, &second)
            .await
            .refused(403, "M_FORBIDDEN");
        second["auth"] = proof(&alice, PASSWORD);
        second["auth"]["session"] = asked.body["session"].clone();
        server.post(PATH, &alice, &second).await.ok();
        let answer = server.post("/keys/query", &alice, &query).await.ok();
        assert_eq!(
            answer["user_signing_keys"][&alice.id],
            second["user_signing_key"]
        );
    }

    #[tokio::test]
    async fn a_part_of_the_keys_needs_a_master_key_and_its_signature() {
        let server = Server::new().await;
        let alice = server.register("alice").await;
        let first = keys(&alice, 10);
        let minor = json!({ "self_signing_key": first["self_signing_key"] });
        server
            .post(PATH, &alice, &minor)
            .await
            .refused(400, "M_MISSING_PARAM");
        let master = json!({ "master_key": first["master_key"] });
        server.post(PATH, &alice, &master).await.ok();
        // To add a key is a change too.
        assert_eq!(server.post(PATH, &alice, &minor).await.status, 401);
        let forged = json!({ "self_signing_key": keys(&alice, 20)["self_signing_key"] });
        server
            .post(PATH, &alice, &forged)
            .await
            .refused(400, "M_INVALID_SIGNATURE");
        let wrong = json!({ "master_key": first["self_signing_key"] });
        server
            .post(PATH, &alice, &wrong)
            .await
            .refused(400, "M_INVALID_PARAM");
        let malformed =
            json!({ "master_key": { "user_id": alice.id, "usage": ["master"], "keys": {} } });
        server
            .post(PATH, &alice, &malformed)
            .await
            .refused(400, "M_BAD_JSON");
    }
}
