//! `POST /_matrix/client/v3/keys/upload`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysupload>

use std::collections::BTreeMap;

use axum::{Json, extract::State};
use myelin_data::RawJson;
use myelin_e2ee::{E2ee, KeyUpload, UploadError};
use ruma::api::{auth_scheme::AccessToken, error::ErrorKind};
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};

use super::owner;
use crate::{
    error::{Refusal, Result},
    extract::Call,
};

/// The body. Nothing of it has to be there.
#[derive(Deserialize)]
struct Body {
    #[serde(default, rename = "device_keys")]
    identity: Option<Box<RawValue>>,
    #[serde(default, rename = "one_time_keys")]
    one_time: Option<BTreeMap<String, Box<RawValue>>>,
    #[serde(default, rename = "fallback_keys")]
    fallback: Option<BTreeMap<String, Box<RawValue>>>,
}

pub(crate) fn refuse(error: UploadError) -> Refusal {
    match error {
        UploadError::NoDevice => Refusal::unknown_token(false),
        UploadError::Malformed(what) => Refusal::bad_request(
            ErrorKind::BadJson,
            format!("The keys were not taken: {what}."),
        ),
        UploadError::OtherDevice => {
            Refusal::invalid("The identity keys are those of another user or device.")
        }
        UploadError::DeviceIdTaken => Refusal::forbidden(
            "The device has the id of one of your cross-signing keys; log in to another one.",
        ),
        UploadError::BadSignature => super::invalid_signature(),
        // matrix-rust-sdk knows by these words what has happened, and reports the two keys.
        UploadError::KeyExists { key_id, old, new } => Refusal::bad_request(
            ErrorKind::Unknown,
            format!(
                "One time key {key_id} already exists. Old key: {}; new key: {}",
                old.get(),
                new.get()
            ),
        ),
        UploadError::TooMany => Refusal::too_large("These are too many keys."),
        UploadError::TooLarge => Refusal::too_large("A key or its id is too long."),
        UploadError::Failed(cause) => Refusal::internal(cause),
    }
}

/// Keeps keys of the caller's device.
pub(crate) async fn upload(
    State(e2ee): State<E2ee>,
    call: Call<AccessToken>,
) -> Result<Json<Value>> {
    let counts = e2ee
        .upload_keys(owner(&call.caller), parse(&call)?)
        .await
        .map_err(refuse)?;
    let counts: BTreeMap<String, u64> = counts.into_iter().collect();
    Ok(Json(json!({ "one_time_key_counts": counts })))
}

/// The keys that a body has.
pub(crate) fn parse(call: &Call<AccessToken>) -> Result<KeyUpload> {
    let body: Body = call.json()?;
    let keys = |keys: Option<BTreeMap<String, Box<RawValue>>>| {
        let keys = keys.unwrap_or_default().into_iter();
        keys.map(|(id, key)| (id, RawJson(key))).collect()
    };
    Ok(KeyUpload {
        device_keys: body.identity.map(RawJson),
        one_time_keys: keys(body.one_time),
        fallback_keys: keys(body.fallback),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::{
        keys::testing::{Pen, device_keys, one_time_key},
        testing::Server,
    };

    const PATH: &str = "/keys/upload";

    #[tokio::test]
    async fn keys_are_counted_however_often_they_come() {
        let server = Server::new().await;
        let alice = server.register("alice").await;
        let pen = Pen::of(&alice, 1);
        let body = json!({
            "device_keys": device_keys(&alice, &pen),
            "one_time_keys": {
                "signed_curve25519:a": one_time_key(&alice, &pen, "a"),
                "signed_curve25519:b": one_time_key(&alice, &pen, "b"),
            },
            "fallback_keys": { "signed_curve25519:f": one_time_key(&alice, &pen, "f") },
        });
        for _ in 0..2 {
            let counts = server.post(PATH, &alice, &body).await.ok();
            assert_eq!(
                counts["one_time_key_counts"],
                json!({ "signed_curve25519": 2 })
            );
        }
        let nothing = server.post(PATH, &alice, &json!({})).await.ok();
        assert_eq!(nothing["one_time_key_counts"]["signed_curve25519"], 2);
        let sync = server.sync(&alice, "").await;
        assert_eq!(sync["device_one_time_keys_count"]["signed_curve25519"], 2);
        assert_eq!(
            sync["device_unused_fallback_key_types"],
            json!(["signed_curve25519"])
        );
        let other = server.login("alice").await;
        let sync = server.sync(&other, "").await;
        assert_eq!(sync["device_one_time_keys_count"]["signed_curve25519"], 0);
        assert_eq!(sync["device_unused_fallback_key_types"], json!([]));
    }

    #[tokio::test]
    async fn keys_of_others_and_second_keys_of_an_id_are_refused() {
        let (server, alice, bob) = Server::with_two_users().await;
        let pen = Pen::of(&alice, 1);
        let foreign = json!({ "device_keys": device_keys(&alice, &pen) });
        server
            .post(PATH, &bob, &foreign)
            .await
            .refused(400, "M_INVALID_PARAM");
        let lacking = json!({ "device_keys": { "user_id": bob.id, "device_id": bob.device } });
        server
            .post(PATH, &bob, &lacking)
            .await
            .refused(400, "M_BAD_JSON");
        let mut forged = device_keys(&alice, &pen);
        forged["algorithms"] = json!([]);
        server
            .post(PATH, &alice, &json!({ "device_keys": forged }))
            .await
            .refused(400, "M_INVALID_SIGNATURE");
        let upload = async |text: &str| {
            let key = one_time_key(&alice, &pen, text);
            let body = json!({ "one_time_keys": { "signed_curve25519:a": key } });
            server.post(PATH, &alice, &body).await
        };
        upload("a").await.ok();
        let refused = upload("b").await.refused(400, "M_UNKNOWN");
        let error = crate::testing::text(&refused["error"]);
        assert!(error.starts_with("One time key signed_curve25519:a already exists. Old key: {"));
    }
}
