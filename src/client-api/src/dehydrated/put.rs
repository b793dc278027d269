//! `PUT /_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device`, of MSC3814

use axum::{Json, extract::State};
use myelin_data::RawJson;
use myelin_e2ee::{DehydrateError, Dehydration, E2ee, Owner};
use ruma::{
    OwnedDeviceId,
    api::{auth_scheme::AccessToken, error::ErrorKind},
};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::Named;
use crate::{
    error::{Refusal, Result},
    extract::Call,
    keys::upload,
};

fn refuse(error: DehydrateError) -> Refusal {
    match error {
        DehydrateError::IdInUse => Refusal::invalid("You have an ordinary device of this id."),
        DehydrateError::NoKeys => Refusal::missing("A dehydrated device needs device_keys."),
        DehydrateError::BadData => Refusal::bad_request(
            ErrorKind::BadJson,
            "device_data is an object with an algorithm.",
        ),
        DehydrateError::TooLarge => Refusal::too_large("This is too large to be kept."),
        DehydrateError::Keys(error) => upload::refuse(error),
        DehydrateError::Failed(cause) => Refusal::internal(cause),
    }
}

/// The body, without the public keys, which it has as an upload of keys does.
#[derive(Deserialize)]
struct Body {
    device_id: OwnedDeviceId,
    device_data: Box<RawValue>,
    initial_device_display_name: Option<String>,
}

/// Makes a dehydrated device of the caller, in the place of the one that he has.
pub(crate) async fn put(State(e2ee): State<E2ee>, call: Call<AccessToken>) -> Result<Json<Named>> {
    let body: Body = call.json()?;
    let keys = upload::parse(&call)?;
    let device_id = body.device_id.to_string();
    let owner = Owner {
        user_id: call.caller.user_id.clone(),
        user: call.caller.user,
        device_id: body.device_id,
    };
    let dehydration = Dehydration {
        display_name: body.initial_device_display_name,
        data: RawJson(body.device_data),
        keys,
    };
    e2ee.dehydrate(owner, dehydration).await.map_err(refuse)?;
    Ok(Json(Named { device_id }))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::testing::{body, dehydrated, request};
    use crate::{
        keys::testing::{Pen, one_time_key},
        testing::{PASSWORD, Server, encode, proof},
    };
    use http::Method;

    #[tokio::test]
    async fn others_see_a_device_with_all_its_keys() {
        let (server, alice, bob) = Server::with_two_users().await;
        let device = dehydrated(&alice, "a+/b");
        let pen = Pen::of(&device, 7);
        let mut body = body(&device, &pen);
        body["initial_device_display_name"] = json!("Dehydrated");
        body["one_time_keys"] = json!({ "signed_curve25519:a": one_time_key(&device, &pen, "a") });
        body["fallback_keys"] = json!({ "signed_curve25519:f": one_time_key(&device, &pen, "f") });
        // Done twice, it is the same device, as new.
        for _ in 0..2 {
            let answer = request(&server, Method::PUT, "", &alice, &body).await.ok();
            assert_eq!(answer, json!({ "device_id": "a+/b" }));
            let query = json!({ "device_keys": { &alice.id: [] } });
            let keys = server.post("/keys/query", &bob, &query).await.ok();
            let keys = &keys["device_keys"][&alice.id]["a+/b"];
            assert_eq!(keys["keys"], body["device_keys"]["keys"]);
            let claim = json!({ "one_time_keys": { &alice.id: { "a+/b": "signed_curve25519" } } });
            for expected in ["a", "f", "f"] {
                let claimed = server.post("/keys/claim", &bob, &claim).await.ok();
                let keys = &claimed["one_time_keys"][&alice.id]["a+/b"];
                let id = format!("signed_curve25519:{expected}");
                assert_eq!(keys[&id]["key"], expected, "{keys}");
            }
        }
        let path = format!("/devices/{}", encode("a+/b"));
        let shown = server.get(&path, &alice).await.ok();
        assert_eq!(shown["display_name"], "Dehydrated");
    }

    #[tokio::test]
    async fn a_new_device_takes_the_place_of_the_old() {
        let (server, alice, bob) = Server::with_two_users().await;
        let ids = async || {
            let query = json!({ "device_keys": { &alice.id: [] } });
            let keys = server.post("/keys/query", &bob, &query).await.ok();
            let keys = keys["device_keys"][&alice.id].as_object().cloned();
            let keys: Vec<String> = keys.unwrap_or_default().keys().cloned().collect();
            keys
        };
        for (id, seed) in [("first", 1), ("second", 2)] {
            let device = dehydrated(&alice, id);
            let body = body(&device, &Pen::of(&device, seed));
            request(&server, Method::PUT, "", &alice, &body).await.ok();
            assert_eq!(ids().await, [id]);
            let devices = server.get("/devices", &alice).await.ok();
            assert_eq!(devices["devices"].as_array().map(Vec::len), Some(2));
            let found = request(&server, Method::GET, "", &alice, &Value::Null).await;
            assert_eq!(found.ok()["device_id"], id);
        }
        // One that is refused leaves it where it is.
        let third = dehydrated(&alice, "third");
        let mut forged = body(&third, &Pen::of(&third, 3));
        forged["device_keys"]["algorithms"] = json!(["other"]);
        request(&server, Method::PUT, "", &alice, &forged)
            .await
            .refused(400, "M_INVALID_SIGNATURE");
        assert_eq!(ids().await, ["second"]);
    }

    #[tokio::test]
    async fn what_is_no_device_is_refused() {
        let (server, alice, bob) = Server::with_two_users().await;
        let device = dehydrated(&alice, "d");
        let good = body(&device, &Pen::of(&device, 1));
        let with = |field: &str, value: Value| {
            let mut body = good.clone();
            body[field] = value;
            body
        };
        let own = body(&alice, &Pen::of(&alice, 1));
        for (user, body, status, errcode) in [
            (&alice, with("device_id", json!(1)), 400, "M_BAD_JSON"),
            (
                &alice,
                with("device_id", json!("e")),
                400,
                "M_INVALID_PARAM",
            ),
            (&alice, with("device_data", json!({})), 400, "M_BAD_JSON"),
            (&alice, with("device_data", json!("a")), 400, "M_BAD_JSON"),
            (
                &alice,
                with("device_keys", Value::Null),
                400,
                "M_MISSING_PARAM",
            ),
            (
                &alice,
                with(
                    "device_data",
                    json!({ "algorithm": "a", "b": "x".repeat(300_000) }),
                ),
                413,
                "M_TOO_LARGE",
            ),
            // Not even one's own session can be made a device without one.
            (&alice, own, 400, "M_INVALID_PARAM"),
            (&bob, good.clone(), 400, "M_INVALID_PARAM"),
        ] {
            request(&server, Method::PUT, "", user, &body)
                .await
                .refused(status, errcode);
        }
        request(&server, Method::GET, "", &alice, &Value::Null)
            .await
            .refused(404, "M_NOT_FOUND");
        server.get("/account/whoami", &alice).await.ok();
    }

    #[tokio::test]
    async fn it_goes_as_other_devices_do_and_comes_to_life_with_a_login() {
        let server = Server::new().await;
        let alice = server.register("alice").await;
        let device = dehydrated(&alice, "d");
        let good = body(&device, &Pen::of(&device, 1));
        let gone = async || {
            request(&server, Method::GET, "", &alice, &Value::Null)
                .await
                .refused(404, "M_NOT_FOUND");
        };
        request(&server, Method::PUT, "", &alice, &good).await.ok();
        let asked = server.delete("/devices/d", &alice, &json!({})).await;
        let mut confirmed = json!({ "auth": proof(&alice, PASSWORD) });
        confirmed["auth"]["session"] = asked.body["session"].clone();
        server.delete("/devices/d", &alice, &confirmed).await.ok();
        gone().await;

        request(&server, Method::PUT, "", &alice, &good).await.ok();
        let mut login = proof(&alice, PASSWORD);
        login["device_id"] = json!("d");
        let login = server.stranger(Method::POST, "/login", &login).await.ok();
        assert_eq!(login["device_id"], "d");
        gone().await;
        server.get("/devices/d", &alice).await.ok();
    }
}
