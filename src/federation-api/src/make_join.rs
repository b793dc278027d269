//! `GET /_matrix/federation/v1/make_join/{roomId}/{userId}`
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1make_joinroomiduserid>

use axum::extract::State;
use myelin_federation::Federation;
use myelin_rooms::remote::{MakeJoin, MakeJoinError};
use ruma::api::{
    error::ErrorKind,
    federation::membership::prepare_join_event::v1::{Request as Operation, Response},
};
use serde_json::value::to_raw_value;

use crate::{
    error::{Refusal, Result},
    extract::{Reply, Request},
    make_leave::room_version,
};

fn refuse(error: MakeJoinError) -> Refusal {
    let message = error.to_string();
    match error {
        MakeJoinError::RoomNotFound => Refusal::no_such_room(),
        MakeJoinError::IncompatibleVersion(version) => {
            Refusal::incompatible_version(room_version(version), message)
        }
        MakeJoinError::Forbidden(_) => Refusal::forbidden(message),
        MakeJoinError::UnableToAuthorise => {
            Refusal::bad_request(ErrorKind::UnableToAuthorizeJoin, message)
        }
        MakeJoinError::UnableToGrant => Refusal::bad_request(ErrorKind::UnableToGrantJoin, message),
        MakeJoinError::Failure(failure) => Refusal::internal(failure),
    }
}

/// The template of a join for a user of the calling server.
pub(crate) async fn get(
    State(federation): State<Federation>,
    request: Request<Operation>,
) -> Result<Reply<Response>> {
    let Request { body, origin } = request;
    let template = federation
        .rooms()
        .make_join(MakeJoin {
            room_id: body.room_id,
            user: body.user_id,
            origin,
            versions: body.ver.iter().map(ToString::to_string).collect(),
        })
        .await
        .map_err(refuse)?;
    let event = to_raw_value(&template.event).map_err(Refusal::internal)?;
    let mut response = Response::new(event);
    response.room_version = Some(room_version(template.room_version));
    Ok(Reply(response))
}

#[cfg(test)]
mod tests {
    use http::Method;

    use crate::testing::{CHARLIE, Here, there_path};

    #[tokio::test]
    async fn whoever_may_join_gets_a_template() {
        let here = Here::new().await;
        let room = here.public_room().await;
        let path = there_path("v1/make_join", &room, CHARLIE);
        let answer = here
            .signed(Method::GET, &format!("{path}?ver=10&ver=11"), None)
            .await
            .ok();
        assert_eq!(answer["room_version"], "11");
        let event = &answer["event"];
        assert_eq!(event["type"], "m.room.member");
        assert_eq!(event["room_id"], room.as_str());
        assert_eq!(event["sender"], CHARLIE);
        assert_eq!(event["state_key"], CHARLIE);
        assert_eq!(event["content"]["membership"], "join");
        assert!(event["signatures"].is_null());
    }

    #[tokio::test]
    async fn whoever_may_not_is_told_why() {
        let here = Here::new().await;
        let room = here.public_room().await;
        let closed = here.private_room().await;
        let get = |room: &str, user: &str, query: &str| {
            let path = format!("{}{query}", there_path("v1/make_join", room, user));
            let here = &here;
            async move { here.signed(Method::GET, &path, None).await }
        };
        let old = get(room.as_str(), CHARLIE, "?ver=1").await;
        let body = old.refused(400, "M_INCOMPATIBLE_ROOM_VERSION");
        assert_eq!(body["room_version"], "11");
        get(room.as_str(), CHARLIE, "")
            .await
            .refused(400, "M_INCOMPATIBLE_ROOM_VERSION");
        get("!none:here.example", CHARLIE, "?ver=11")
            .await
            .refused(404, "M_NOT_FOUND");
        get(room.as_str(), "@x:third.example", "?ver=11")
            .await
            .refused(403, "M_FORBIDDEN");
        get(closed.as_str(), CHARLIE, "?ver=11")
            .await
            .refused(403, "M_FORBIDDEN");
    }

    #[tokio::test]
    async fn a_server_that_the_room_denies_gets_none() {
        let here = Here::new().await;
        let room = here.public_room().await;
        here.deny_there(&room).await;
        let path = there_path("v1/make_join", &room, CHARLIE);
        let answer = here
            .signed(Method::GET, &format!("{path}?ver=11"), None)
            .await;
        answer.refused(403, "M_FORBIDDEN");
    }
}
