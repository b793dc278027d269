//! `DELETE /_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device`, of MSC3814

use axum::{Json, extract::State};
use myelin_e2ee::E2ee;
use ruma::api::auth_scheme::AccessToken;

use super::Named;
use crate::{
    error::{Refusal, Result},
    extract::Call,
};

/// Deletes the caller's dehydrated device. Unlike for other devices nobody has to confirm it: no session ends by that.
pub(crate) async fn delete(
    State(e2ee): State<E2ee>,
    call: Call<AccessToken>,
) -> Result<Json<Named>> {
    let device_id = e2ee
        .delete_dehydrated_device(call.caller.user)
        .await
        .map_err(Refusal::internal)?
        .ok_or_else(|| Refusal::not_found("You have no dehydrated device."))?;
    Ok(Json(Named { device_id }))
}

#[cfg(test)]
mod tests {
    use http::Method;
    use serde_json::{Value, json};

    use super::super::testing::{body, dehydrated, request};
    use crate::{keys::testing::Pen, testing::Server};

    #[tokio::test]
    async fn a_device_goes_with_its_keys_and_others_stay() {
        let (server, alice, bob) = Server::with_two_users().await;
        let delete = async |user| request(&server, Method::DELETE, "", user, &Value::Null).await;
        delete(&alice).await.refused(404, "M_NOT_FOUND");
        server.publish_keys(&alice, 1).await;
        let device = dehydrated(&alice, "d");
        let body = body(&device, &Pen::of(&device, 2));
        request(&server, Method::PUT, "", &alice, &body).await.ok();
        delete(&bob).await.refused(404, "M_NOT_FOUND");
        assert_eq!(delete(&alice).await.ok(), json!({ "device_id": "d" }));
        delete(&alice).await.refused(404, "M_NOT_FOUND");
        let query = json!({ "device_keys": { &alice.id: [] } });
        let keys = server.post("/keys/query", &bob, &query).await.ok();
        let keys = keys["device_keys"][&alice.id].as_object().cloned();
        let keys = keys.expect("she has a device");
        assert_eq!(keys.keys().collect::<Vec<_>>(), [&alice.device]);
        let devices = server.get("/devices", &alice).await.ok();
        assert_eq!(devices["devices"].as_array().map(Vec::len), Some(1));
    }
}
