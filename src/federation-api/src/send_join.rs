//! `PUT /_matrix/federation/v2/send_join/{roomId}/{eventId}`
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv2send_joinroomideventid>

use std::sync::Arc;

use axum::extract::State;
use myelin_federation::Federation;
use myelin_rooms::remote::{AcceptJoin, AcceptJoinError};
use ruma::api::{
    error::ErrorKind,
    federation::membership::create_join_event::v2::{Request as Operation, Response, RoomState},
};

use crate::{
    error::{Refusal, Result},
    extract::{Reply, Request},
    reads::{text, texts},
};

fn refuse(error: AcceptJoinError) -> Refusal {
    let message = error.to_string();
    match error {
        AcceptJoinError::RoomNotFound => Refusal::no_such_room(),
        AcceptJoinError::Malformed(_) => Refusal::invalid(message),
        AcceptJoinError::Forbidden(_) => Refusal::forbidden(message),
        AcceptJoinError::UnableToAuthorise => {
            Refusal::bad_request(ErrorKind::UnableToAuthorizeJoin, message)
        }
        AcceptJoinError::UnableToGrant => {
            Refusal::bad_request(ErrorKind::UnableToGrantJoin, message)
        }
        AcceptJoinError::Failure(failure) => Refusal::internal(failure),
    }
}

/// Takes in the join of a user of the calling server, and answers with the room's state before it.
pub(crate) async fn put(
    State(federation): State<Federation>,
    request: Request<Operation>,
) -> Result<Reply<Response>> {
    let Request { body, origin } = request;
    let join = AcceptJoin {
        room_id: body.room_id,
        event_id: body.event_id,
        pdu: body.pdu,
        origin,
        omit_members: body.omit_members,
    };
    let state = accept(&federation, join).await?;
    Ok(Reply(Response::new(state)))
}

/// The same for every version of the endpoint.
pub(crate) async fn accept(federation: &Federation, join: AcceptJoin) -> Result<RoomState> {
    let accepted = federation
        .rooms()
        .accept_join(Arc::new(federation.clone()), join)
        .await
        .map_err(refuse)?;
    let mut state = RoomState::new();
    state.event = Some(text(&accepted.event.pdu)?);
    state.state = texts(accepted.state.iter().map(|event| &event.pdu))?;
    state.auth_chain = texts(accepted.auth_chain.iter().map(|event| &event.pdu))?;
    state.members_omitted = accepted.members_omitted;
    state.servers_in_room = Some(accepted.servers.iter().map(ToString::to_string).collect());
    Ok(state)
}

#[cfg(test)]
mod tests {
    use http::Method;
    use serde_json::{Value, json};

    use crate::testing::{CHARLIE, Here, there_path};

    fn types(events: &Value) -> Vec<&str> {
        let events = events.as_array().expect("a list of events");
        let types = events.iter().map(|event| event["type"].as_str());
        types
            .map(|name| name.expect("an event has a type"))
            .collect()
    }

    #[tokio::test]
    async fn a_join_is_answered_with_the_state_before_it() {
        let here = Here::new().await;
        let room = here.public_room().await;
        let join = here.join_of_charlie(&room).await;
        let path = there_path("v2/send_join", &room, join.event_id());
        let body: Value = serde_json::from_str(join.json()).expect("an event is JSON");
        for _ in 0..2 {
            let put = here.signed(Method::PUT, &path, Some(body.clone())).await;
            let answer = put.ok();
            for name in [
                "m.room.create",
                "m.room.power_levels",
                "m.room.join_rules",
                "m.room.member",
            ] {
                assert!(types(&answer["state"]).contains(&name), "{name}");
            }
            assert!(types(&answer["auth_chain"]).contains(&"m.room.create"));
            assert_eq!(answer["event"]["state_key"], CHARLIE);
            assert!(
                answer["servers_in_room"]
                    .as_array()
                    .is_some_and(|servers| servers.contains(&json!("here.example")))
            );
        }
        assert!(here.is_joined(&room, CHARLIE).await);
    }

    #[tokio::test]
    async fn memberships_are_left_out_when_they_may_be() {
        let here = Here::new().await;
        let room = here.public_room().await;
        let join = here.join_of_charlie(&room).await;
        let path = there_path("v2/send_join", &room, join.event_id());
        let path = format!("{path}?omit_members=true");
        let body: Value = serde_json::from_str(join.json()).expect("an event is JSON");
        let answer = here.signed(Method::PUT, &path, Some(body)).await.ok();
        assert_eq!(answer["members_omitted"], true);
        assert_eq!(answer["servers_in_room"], json!(["here.example"]));
        // The room has no name, so those stay after whom it is named.
        let members = types(&answer["state"]);
        let members = members.iter().filter(|name| **name == "m.room.member");
        assert_eq!(members.count(), 1);
        assert_eq!(answer["auth_chain"], json!([]));
    }

    #[tokio::test]
    async fn what_is_no_such_join_is_refused() {
        let here = Here::new().await;
        let room = here.public_room().await;
        let join = here.join_of_charlie(&room).await;
        let body: Value = serde_json::from_str(join.json()).expect("an event is JSON");
        let put = |room: &str, event_id: &str, body: &Value| {
            let (path, body) = (there_path("v2/send_join", room, event_id), body.clone());
            let here = &here;
            async move { here.signed(Method::PUT, &path, Some(body)).await }
        };
        let other_id = "$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
        put(room.as_str(), other_id, &body)
            .await
            .refused(400, "M_INVALID_PARAM");
        put("!none:here.example", join.event_id(), &body)
            .await
            .refused(404, "M_NOT_FOUND");
        let mut unsigned = body.clone();
        unsigned["signatures"] = json!({});
        let status = put(room.as_str(), join.event_id(), &unsigned)
            .await
            .status
            .as_u16();
        assert!(status == 400 || status == 403, "{status}");
        here.deny_there(&room).await;
        put(room.as_str(), join.event_id(), &body)
            .await
            .refused(403, "M_FORBIDDEN");
        assert!(!here.is_joined(&room, CHARLIE).await);
    }
}
