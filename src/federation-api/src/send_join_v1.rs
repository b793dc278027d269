//! `PUT /_matrix/federation/v1/send_join/{roomId}/{eventId}`
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv1send_joinroomideventid>
//!
//! Deprecated: the answer is that of version 2, as the second element of a list whose first is the status.

use axum::{Json, extract::State};
use myelin_federation::Federation;
use myelin_rooms::remote::AcceptJoin;
use ruma::api::{
    federation::{
        authentication::ServerSignatures,
        membership::create_join_event::v2::{Request as Second, Response, RoomState},
    },
    metadata,
};

use crate::{
    error::Result,
    extract::{Request as Received, read_like},
    send_join::accept,
};

metadata! {
    method: PUT,
    rate_limited: false,
    authentication: ServerSignatures,
    path: "/_matrix/federation/v1/send_join/{room_id}/{event_id}",
}

read_like! {
    /// What is sent to version 2 of the endpoint, and means the same.
    Request(Second) => Response
}

/// Takes in the join of a user of the calling server, and answers with the room's state before it.
pub(crate) async fn put(
    State(federation): State<Federation>,
    request: Received<Request>,
) -> Result<Json<(u16, RoomState)>> {
    let Received { body, origin } = request;
    let Request(body) = body;
    let join = AcceptJoin {
        room_id: body.room_id,
        event_id: body.event_id,
        pdu: body.pdu,
        origin,
        omit_members: false,
    };
    let state = accept(&federation, join).await?;
    Ok(Json((200, state)))
}

#[cfg(test)]
mod tests {
    use http::Method;
    use serde_json::{Value, json};

    use crate::testing::{CHARLIE, Here, there_path};

    #[tokio::test]
    async fn the_answer_is_a_pair() {
        let here = Here::new().await;
        let room = here.public_room().await;
        let join = here.join_of_charlie(&room).await;
        let path = there_path("v1/send_join", &room, join.event_id());
        let body: Value = serde_json::from_str(join.json()).expect("an event is JSON");
        for _ in 0..2 {
            let put = here.signed(Method::PUT, &path, Some(body.clone())).await;
            let answer = put.ok();
            assert_eq!(answer[0], 200);
            assert_eq!(answer[1]["event"]["state_key"], CHARLIE);
            assert!(
                answer[1]["state"]
                    .as_array()
                    .is_some_and(|state| state.len() > 3)
            );
        }
        assert!(here.is_joined(&room, CHARLIE).await);
    }

    #[tokio::test]
    async fn what_is_no_join_is_refused() {
        let here = Here::new().await;
        let room = here.public_room().await;
        let join = here.join_of_charlie(&room).await;
        let mut body: Value = serde_json::from_str(join.json()).expect("an event is JSON");
        body["content"] = json!({ "membership": "leave" });
        let path = there_path("v1/send_join", &room, join.event_id());
        here.signed(Method::PUT, &path, Some(body))
            .await
            .refused(400, "M_INVALID_PARAM");
        assert!(!here.is_joined(&room, CHARLIE).await);
    }
}
