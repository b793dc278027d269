//! `PUT /_matrix/federation/v1/send_knock/{roomId}/{eventId}`
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv1send_knockroomideventid>

use std::sync::Arc;

use axum::extract::State;
use myelin_federation::Federation;
use myelin_rooms::remote::{AcceptMembership, Step};
use ruma::api::federation::membership::{
    RawStrippedState,
    create_knock_event::v1::{Request as Operation, Response},
};

use crate::{
    error::Result,
    extract::{Reply, Request},
    reads::texts,
    send_leave::refuse,
};

/// Takes in the knock of a user of the calling server; answers what he is shown of the room.
pub(crate) async fn put(
    State(federation): State<Federation>,
    request: Request<Operation>,
) -> Result<Reply<Response>> {
    let Request { body, origin, .. } = request;
    let knock = AcceptMembership {
        room_id: body.room_id,
        event_id: body.event_id,
        step: Step::Knock,
        pdu: body.pdu,
        origin,
    };
    let fetch = Arc::new(federation.clone());
    let accepted = federation.rooms().accept_membership(fetch, knock);
    let told = accepted.await.map_err(refuse)?;
    let told = texts(&told)?.into_iter().map(RawStrippedState::Pdu);
    Ok(Reply(Response::new(told.collect())))
}

#[cfg(test)]
mod tests {
    use http::Method;
    use serde_json::{Value, json};

    use crate::testing::{CHARLIE, Here, there_path};

    #[tokio::test]
    async fn a_knock_is_answered_with_whole_events() {
        let here = Here::new().await;
        let room = here.private_room().await;
        here.let_knock(&room).await;
        let knock = here
            .filled_in("make_knock", &room, CHARLIE, "?ver=11")
            .await;
        let path = there_path("v1/send_knock", &room, knock.event_id());
        let body: Value = serde_json::from_str(knock.json()).expect("an event is JSON");
        for _ in 0..2 {
            let answer = here
                .signed(Method::PUT, &path, Some(body.clone()))
                .await
                .ok();
            let told = answer["knock_room_state"].as_array();
            let told = told.expect("a list of events");
            assert_eq!(told[0]["type"], "m.room.create");
            assert!(told.iter().all(|event| event["signatures"].is_object()));
        }
        assert_eq!(here.membership(&room, CHARLIE), "knock");
    }

    #[tokio::test]
    async fn nothing_but_a_knock_is_taken() {
        let here = Here::new().await;
        let room = here.public_room().await;
        let join = here.join_of_charlie(&room).await;
        let path = there_path("v1/send_knock", &room, join.event_id());
        let body: Value = serde_json::from_str(join.json()).expect("an event is JSON");
        here.signed(Method::PUT, &path, Some(body))
            .await
            .refused(400, "M_INVALID_PARAM");
        here.let_knock(&room).await;
        let knock = here
            .filled_in("make_knock", &room, CHARLIE, "?ver=11")
            .await;
        let path = there_path("v1/send_knock", &room, knock.event_id());
        let mut body: Value = serde_json::from_str(knock.json()).expect("an event is JSON");
        body["state_key"] = json!("@doris:there.example");
        here.signed(Method::PUT, &path, Some(body))
            .await
            .refused(400, "M_INVALID_PARAM");
        assert_eq!(here.membership(&room, CHARLIE), "leave");
    }
}
