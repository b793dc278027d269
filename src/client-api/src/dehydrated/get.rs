//! `GET /_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device`, of MSC3814

use axum::{Json, extract::State};
use myelin_e2ee::E2ee;
use myelin_rooms::Rooms;
use ruma::api::auth_scheme::AccessToken;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::{
    error::{Refusal, Result},
    extract::Call,
};

/// A dehydrated device.
#[derive(Serialize)]
pub(crate) struct Answer {
    device_id: String,
    device_data: Box<RawValue>,
}

/// Answers with the caller's dehydrated device.
pub(crate) async fn get(
    State(e2ee): State<E2ee>,
    State(rooms): State<Rooms>,
    call: Call<AccessToken>,
) -> Result<Json<Answer>> {
    let user = call.caller.user;
    let device = rooms
        .store()
        .read(move |view| e2ee.dehydrated_device(view, user))
        .await
        .map_err(Refusal::internal)?
        .ok_or_else(|| Refusal::not_found("You have no dehydrated device."))?;
    Ok(Json(Answer {
        device_id: device.device_id,
        device_data: device.data.0,
    }))
}

#[cfg(test)]
mod tests {
    use http::Method;
    use serde_json::Value;

    use super::super::testing::{body, dehydrated, request};
    use crate::{keys::testing::Pen, testing::Server};

    #[tokio::test]
    async fn a_device_is_shown_to_its_owner_as_it_was_made() {
        let (server, alice, bob) = Server::with_two_users().await;
        let get = async |user| request(&server, Method::GET, "", user, &Value::Null).await;
        get(&alice).await.refused(404, "M_NOT_FOUND");
        let device = dehydrated(&alice, "d");
        let body = body(&device, &Pen::of(&device, 1));
        request(&server, Method::PUT, "", &alice, &body).await.ok();
        for _ in 0..2 {
            let shown = get(&alice).await.ok();
            assert_eq!(shown["device_id"], "d");
            assert_eq!(shown["device_data"], body["device_data"]);
        }
        get(&bob).await.refused(404, "M_NOT_FOUND");
    }
}
