//! `POST /_matrix/client/v3/keys/signatures/upload`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keyssignaturesupload>

use std::collections::BTreeMap;

use axum::{Json, extract::State};
use myelin_data::RawJson;
use myelin_e2ee::{E2ee, MAX_SIGNED, SignatureFailure, SignaturesError, SignedKey};
use ruma::{OwnedUserId, api::auth_scheme::AccessToken};
use serde_json::{Value, json, value::RawValue};

use super::owner;
use crate::{
    error::{Refusal, Result},
    extract::Call,
};

/// Keys by their users and ids.
type Body = BTreeMap<OwnedUserId, BTreeMap<String, Box<RawValue>>>;

fn refuse(error: SignaturesError) -> Refusal {
    match error {
        SignaturesError::TooMany => {
            Refusal::too_large(format!("At most {MAX_SIGNED} keys are signed at once."))
        }
        SignaturesError::Failed(cause) => Refusal::internal(cause),
    }
}

/// What is said of one key whose signatures were not taken.
fn describe(failure: SignatureFailure) -> Value {
    let errcode = match failure {
        SignatureFailure::NoKey => "M_NOT_FOUND",
        SignatureFailure::OtherObject => "M_BAD_JSON",
        SignatureFailure::Invalid => "M_INVALID_SIGNATURE",
    };
    json!({ "errcode": errcode, "error": failure.to_string() })
}

/// Keeps signatures that the caller made.
pub(crate) async fn upload(
    State(e2ee): State<E2ee>,
    call: Call<AccessToken>,
) -> Result<Json<Value>> {
    let body: Body = call.json()?;
    let mut keys = Vec::new();
    for (user_id, of) in body {
        keys.extend(of.into_iter().map(|(key_id, json)| SignedKey {
            user_id: user_id.clone(),
            key_id,
            json: RawJson(json),
        }));
    }
    let failures = e2ee
        .upload_signatures(owner(&call.caller), keys)
        .await
        .map_err(refuse)?;
    let failures: BTreeMap<OwnedUserId, BTreeMap<String, Value>> = failures
        .into_iter()
        .map(|(user_id, of)| {
            let of = of.into_iter();
            (
                user_id,
                of.map(|(id, failure)| (id, describe(failure))).collect(),
            )
        })
        .collect();
    Ok(Json(json!({ "failures": failures })))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::{
        keys::testing::{Pen, signing_key},
        testing::{Server, text},
    };

    const PATH: &str = "/keys/signatures/upload";

    #[tokio::test]
    async fn right_signatures_are_kept_and_wrong_ones_named() {
        let (server, alice, bob) = Server::with_two_users().await;
        let mut keys = server.publish_keys(&alice, 1).await;
        let (master, signing) = (Pen::identity(10), Pen::identity(11));
        let body = json!({
            "master_key": signing_key(&alice, "master", &master),
            "self_signing_key": master.sign(&alice, signing_key(&alice, "self_signing", &signing)),
        });
        server
            .post("/keys/device_signing/upload", &alice, &body)
            .await
            .ok();
        let since = text(&server.sync(&alice, "").await["next_batch"]);

        let wrong = json!({
            &alice.id: { &alice.device: keys, "UNKNOWN": keys },
            &bob.id: { "key": {} },
        });
        let answer = server.post(PATH, &alice, &wrong).await.ok();
        let errcode = |user: &str, key: &str| answer["failures"][user][key]["errcode"].clone();
        assert_eq!(errcode(&alice.id, &alice.device), "M_INVALID_SIGNATURE");
        assert_eq!(errcode(&alice.id, "UNKNOWN"), "M_NOT_FOUND");
        assert_eq!(errcode(&bob.id, "key"), "M_NOT_FOUND");

        keys = signing.sign(&alice, keys);
        let right = json!({ &alice.id: { &alice.device: keys } });
        for _ in 0..2 {
            let answer = server.post(PATH, &alice, &right).await.ok();
            assert_eq!(answer, json!({ "failures": {} }));
        }
        let query = json!({ "device_keys": { &alice.id: [] } });
        let answer = server.post("/keys/query", &bob, &query).await.ok();
        let shown = &answer["device_keys"][&alice.id][&alice.device];
        assert_eq!(shown["signatures"], keys["signatures"]);
        let (lists, _) = server.lists_since(&alice, &since).await;
        assert_eq!(lists["changed"], json!([alice.id]));
    }

    #[tokio::test]
    async fn who_signs_anothers_identity_is_told_to_look_again() {
        let (server, alice, bob) = Server::with_two_users().await;
        let other = server.login("alice").await;
        let (ours, user_signing, theirs) =
            (Pen::identity(10), Pen::identity(11), Pen::identity(20));
        let signed = |key| ours.sign(&alice, key);
        let body = json!({
            "master_key": signing_key(&alice, "master", &ours),
            "user_signing_key": signed(signing_key(&alice, "user_signing", &user_signing)),
        });
        server
            .post("/keys/device_signing/upload", &alice, &body)
            .await
            .ok();
        let key = signing_key(&bob, "master", &theirs);
        server
            .post(
                "/keys/device_signing/upload",
                &bob,
                &json!({ "master_key": key }),
            )
            .await
            .ok();
        let since = text(&server.sync(&other, "").await["next_batch"]);
        let key = user_signing.sign(&alice, key);
        let body = json!({ &bob.id: { &theirs.id: key } });
        let answer = server.post(PATH, &alice, &body).await.ok();
        assert_eq!(answer["failures"], json!({}));
        let (lists, _) = server.lists_since(&other, &since).await;
        assert_eq!(lists["changed"], json!([bob.id]));
        let (lists, _) = server.lists_since(&bob, &since).await;
        assert_eq!(lists, json!({ "changed": [], "left": [] }));
    }
}
