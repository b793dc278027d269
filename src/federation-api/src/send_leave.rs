//! `PUT /_matrix/federation/v2/send_leave/{roomId}/{eventId}`
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv2send_leaveroomideventid>

use std::sync::Arc;

use axum::extract::State;
use myelin_federation::Federation;
use myelin_rooms::remote::{AcceptMembership, AcceptMembershipError, Step};
use ruma::{
    OwnedServerName,
    api::federation::membership::create_leave_event::v2::{Request as Operation, Response},
};

use crate::{
    error::{Refusal, Result},
    extract::{Reply, Request},
};

/// What membership events are refused with.
pub(crate) fn refuse(error: AcceptMembershipError) -> Refusal {
    let message = error.to_string();
    match error {
        AcceptMembershipError::RoomNotFound => Refusal::no_such_room(),
        AcceptMembershipError::Malformed(_) => Refusal::invalid(message),
        AcceptMembershipError::Forbidden(_) => Refusal::forbidden(message),
        AcceptMembershipError::Failure(failure) => Refusal::internal(failure),
    }
}

/// Takes in a leave, by either version of the endpoint.
pub(crate) async fn accept(
    federation: &Federation,
    leave: Operation,
    origin: OwnedServerName,
) -> Result<()> {
    let leave = AcceptMembership {
        room_id: leave.room_id,
        event_id: leave.event_id,
        step: Step::Leave,
        pdu: leave.pdu,
        origin,
    };
    let fetch = Arc::new(federation.clone());
    let accepted = federation.rooms().accept_membership(fetch, leave);
    accepted.await.map_err(refuse).map(drop)
}

/// Takes in the leave of a user of the calling server.
pub(crate) async fn put(
    State(federation): State<Federation>,
    request: Request<Operation>,
) -> Result<Reply<Response>> {
    let Request { body, origin, .. } = request;
    accept(&federation, body, origin).await?;
    Ok(Reply(Response::new()))
}

#[cfg(test)]
mod tests {
    use http::Method;
    use serde_json::{Value, json};

    use crate::testing::{CHARLIE, Here, there_path};

    #[tokio::test]
    async fn an_invitation_is_declined_once() {
        let here = Here::new().await;
        let room = here.private_room().await;
        here.invite_charlie(&room).await;
        let leave = here.filled_in("make_leave", &room, CHARLIE, "").await;
        for version in ["v2", "v1", "v2"] {
            let path = there_path(&format!("{version}/send_leave"), &room, leave.event_id());
            let body: Value = serde_json::from_str(leave.json()).expect("an event is JSON");
            let answer = here.signed(Method::PUT, &path, Some(body)).await.ok();
            let expected = if version == "v1" {
                json!([200, {}])
            } else {
                json!({})
            };
            assert_eq!(answer, expected);
        }
        assert_eq!(here.membership(&room, CHARLIE), "leave");
    }

    #[tokio::test]
    async fn whoever_joined_leaves() {
        let here = Here::new().await;
        let room = here.public_room().await;
        here.charlie_joins(&room).await;
        let leave = here.filled_in("make_leave", &room, CHARLIE, "").await;
        let path = there_path("v2/send_leave", &room, leave.event_id());
        let body: Value = serde_json::from_str(leave.json()).expect("an event is JSON");
        here.signed(Method::PUT, &path, Some(body)).await.ok();
        assert!(!here.is_joined(&room, CHARLIE).await);
    }

    #[tokio::test]
    async fn nothing_but_a_leave_is_taken() {
        let here = Here::new().await;
        let room = here.public_room().await;
        let join = here.charlie_joins(&room).await;
        let message = here.message_of_charlie(&room, &join, "hello");
        let leave = here.filled_in("make_leave", &room, CHARLIE, "").await;
        let mut changed: Value = serde_json::from_str(leave.json()).expect("an event is JSON");
        changed["content"]["reason"] = json!("changed");
        for event in [&join, &message] {
            for version in ["v1", "v2"] {
                let path = there_path(&format!("{version}/send_leave"), &room, event.event_id());
                let body = serde_json::from_str(event.json()).expect("an event is JSON");
                here.signed(Method::PUT, &path, Some(body))
                    .await
                    .refused(400, "M_INVALID_PARAM");
            }
        }
        let path = there_path("v2/send_leave", &room, leave.event_id());
        here.signed(Method::PUT, &path, Some(changed))
            .await
            .refused(400, "M_INVALID_PARAM");
        let path = there_path("v2/send_leave", "!none:here.example", leave.event_id());
        let body: Value = serde_json::from_str(leave.json()).expect("an event is JSON");
        here.signed(Method::PUT, &path, Some(body.clone()))
            .await
            .refused(404, "M_NOT_FOUND");
        here.deny_there(&room).await;
        let path = there_path("v2/send_leave", &room, leave.event_id());
        here.signed(Method::PUT, &path, Some(body))
            .await
            .refused(403, "M_FORBIDDEN");
        assert!(here.is_joined(&room, CHARLIE).await);
    }
}
