//! `GET /_matrix/federation/v1/make_leave/{roomId}/{userId}`
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1make_leaveroomiduserid>

use axum::extract::State;
use myelin_federation::Federation;
use myelin_rooms::remote::{MakeMembership, MakeMembershipError, Step};
use ruma::{
    RoomVersionId,
    api::federation::membership::prepare_leave_event::v1::{Request as Operation, Response},
};
use serde_json::value::to_raw_value;

use crate::{
    error::{Refusal, Result},
    extract::{Reply, Request},
};

/// What templates are refused with.
pub(crate) fn refuse(error: MakeMembershipError) -> Refusal {
    let message = error.to_string();
    match error {
        MakeMembershipError::RoomNotFound => Refusal::no_such_room(),
        MakeMembershipError::IncompatibleVersion(version) => {
            Refusal::incompatible_version(room_version(version), message)
        }
        MakeMembershipError::Forbidden(_) => Refusal::forbidden(message),
        MakeMembershipError::Failure(failure) => Refusal::internal(failure),
    }
}

pub(crate) fn room_version(version: myelin_rules::RoomVersion) -> RoomVersionId {
    RoomVersionId::try_from(version.as_str()).expect("every version of ours has a valid name")
}

/// The template of a leave of a user of the calling server.
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
            step: Step::Leave,
            origin,
            versions: None,
        })
        .await
        .map_err(refuse)?;
    let event = to_raw_value(&template.event).map_err(Refusal::internal)?;
    let version = room_version(template.room_version);
    Ok(Reply(Response::new(Some(version), event)))
}

#[cfg(test)]
mod tests {
    use http::Method;

    use crate::testing::{CHARLIE, Here, there_path};

    #[tokio::test]
    async fn whoever_is_invited_gets_a_template() {
        let here = Here::new().await;
        let room = here.private_room().await;
        let path = there_path("v1/make_leave", &room, CHARLIE);
        // He is a stranger, and has nothing to leave.
        here.signed(Method::GET, &path, None)
            .await
            .refused(403, "M_FORBIDDEN");
        here.invite_charlie(&room).await;
        let answer = here.signed(Method::GET, &path, None).await.ok();
        assert_eq!(answer["room_version"], "11");
        let event = &answer["event"];
        assert_eq!(event["type"], "m.room.member");
        assert_eq!(event["room_id"], room.as_str());
        assert_eq!(event["sender"], CHARLIE);
        assert_eq!(event["state_key"], CHARLIE);
        assert_eq!(event["content"]["membership"], "leave");
        assert!(event["signatures"].is_null());
    }

    #[tokio::test]
    async fn others_get_none() {
        let here = Here::new().await;
        let room = here.private_room().await;
        here.invite_charlie(&room).await;
        let get = async |room: &str, user: &str| {
            let path = there_path("v1/make_leave", room, user);
            here.signed(Method::GET, &path, None).await
        };
        get("!none:here.example", CHARLIE)
            .await
            .refused(404, "M_NOT_FOUND");
        get(room.as_str(), "@x:third.example")
            .await
            .refused(403, "M_FORBIDDEN");
        here.deny_there(&room).await;
        get(room.as_str(), CHARLIE)
            .await
            .refused(403, "M_FORBIDDEN");
    }
}
