//! `GET /_matrix/federation/v1/make_knock/{roomId}/{userId}`
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1make_knockroomiduserid>

use axum::extract::State;
use myelin_federation::Federation;
use myelin_rooms::remote::{MakeMembership, Step};
use ruma::api::federation::membership::prepare_knock_event::v1::{Request as Operation, Response};
use serde_json::value::to_raw_value;

use crate::{
    error::{Refusal, Result},
    extract::{Reply, Request},
    make_leave::{refuse, room_version},
};

/// The template of a knock of a user of the calling server.
pub(crate) async fn get(
    State(federation): State<Federation>,
    request: Request<Operation>,
) -> Result<Reply<Response>> {
    let Request { body, origin, .. } = request;
    let template = federation
        .rooms()
        .make_membership(MakeMembership {
            room_id: body.room_id,
            user: body.user_id,
            step: Step::Knock,
            origin,
            versions: Some(body.ver.iter().map(ToString::to_string).collect()),
        })
        .await
        .map_err(refuse)?;
    let event = to_raw_value(&template.event).map_err(Refusal::internal)?;
    Ok(Reply(Response::new(
        room_version(template.room_version),
        event,
    )))
}

#[cfg(test)]
mod tests {
    use http::Method;

    use crate::testing::{CHARLIE, Here, there_path};

    #[tokio::test]
    async fn whoever_may_knock_gets_a_template() {
        let here = Here::new().await;
        let room = here.private_room().await;
        let path = there_path("v1/make_knock", &room, CHARLIE);
        let get = async |query: &str| {
            here.signed(Method::GET, &format!("{path}{query}"), None)
                .await
        };
        // The room is one for invited users.
        get("?ver=11").await.refused(403, "M_FORBIDDEN");
        here.let_knock(&room).await;
        let answer = get("?ver=10&ver=11").await.ok();
        assert_eq!(answer["room_version"], "11");
        assert_eq!(answer["event"]["content"]["membership"], "knock");
        assert_eq!(answer["event"]["sender"], CHARLIE);
        let old = get("?ver=7").await;
        let body = old.refused(400, "M_INCOMPATIBLE_ROOM_VERSION");
        assert_eq!(body["room_version"], "11");
        let nowhere = there_path("v1/make_knock", "!none:here.example", CHARLIE);
        here.signed(Method::GET, &format!("{nowhere}?ver=11"), None)
            .await
            .refused(404, "M_NOT_FOUND");
        here.invite_charlie(&room).await;
        get("?ver=11").await.refused(403, "M_FORBIDDEN");
    }
}
