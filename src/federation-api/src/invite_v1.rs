//! `PUT /_matrix/federation/v1/invite/{roomId}/{eventId}`
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv1inviteroomideventid>
//!
//! Deprecated: for rooms of versions 1 and 2 only. The answer is a list of the status and the event.

use axum::{Json, extract::State};
use myelin_federation::Federation;
use myelin_rules::RoomVersion;
use ruma::api::{
    federation::{
        authentication::ServerSignatures,
        membership::{create_invite::v1::Response, create_leave_event::v2::Request as Parts},
    },
    metadata,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{
    error::{Refusal, Result},
    extract::{Request as Received, read_like},
    invite::{Told, accept},
};

metadata! {
    method: PUT,
    rate_limited: false,
    authentication: ServerSignatures,
    path: "/_matrix/federation/v1/invite/{room_id}/{event_id}",
}

read_like! {
    /// An invitation, which is the whole of the body: it has the path and the shape of a membership event that is handed in.
    Request(Parts) => Response
}

/// What is told of the room, inside the event.
#[derive(Deserialize)]
struct Event {
    #[serde(default)]
    unsigned: Unsigned,
}

#[derive(Default, Deserialize)]
struct Unsigned {
    #[serde(default)]
    invite_room_state: Vec<Box<RawValue>>,
}

/// Which of the two versions the room has: its create event says so.
#[derive(Deserialize)]
struct Create {
    r#type: String,
    content: CreateContent,
}

#[derive(Deserialize)]
struct CreateContent {
    #[serde(default)]
    room_version: Option<String>,
}

fn version(told: &[Box<RawValue>]) -> RoomVersion {
    let mut creates = told
        .iter()
        .filter_map(|event| serde_json::from_str::<Create>(event.get()).ok())
        .filter(|event| event.r#type == "m.room.create");
    let named = creates.find_map(|create| create.content.room_version);
    match named.as_deref() {
        Some("2") => RoomVersion::V2,
        _ => RoomVersion::V1,
    }
}

/// The answer's second element.
#[derive(Serialize)]
pub(crate) struct Signed {
    event: Box<RawValue>,
}

/// Takes an invitation of one of our users.
pub(crate) async fn put(
    State(federation): State<Federation>,
    request: Received<Request>,
) -> Result<Json<(u16, Signed)>> {
    let Received { body, origin, .. } = request;
    let Request(body) = body;
    let Event { unsigned } = serde_json::from_str(body.pdu.get())
        .map_err(|error| Refusal::invalid(format!("The event is malformed: {error}.")))?;
    let told = Told {
        room_id: body.room_id,
        event_id: body.event_id,
        room_version: version(&unsigned.invite_room_state).to_string(),
        event: body.pdu,
        invite_room_state: unsigned.invite_room_state,
        origin,
    };
    let event = accept(&federation, told).await?;
    Ok(Json((200, Signed { event })))
}

#[cfg(test)]
mod tests {
    use http::Method;
    use serde_json::{Value, json};

    use crate::{
        outsiders::{ALICE, Theirs},
        testing::{Here, OUR_NAME, there_path},
    };

    #[tokio::test]
    async fn the_answer_is_a_pair() {
        for version in ["1", "2"] {
            let here = Here::new().await;
            here.register("alice").await;
            let theirs = Theirs::new(&here, version);
            let invite = theirs.invite(ALICE, json!({}));
            let path = there_path("v1/invite", &theirs.room, invite.event_id());
            let mut event: Value = serde_json::from_str(invite.json()).expect("an event is JSON");
            event["unsigned"] = json!({ "invite_room_state": theirs.state() });
            let answer = here.signed(Method::PUT, &path, Some(event)).await.ok();
            assert_eq!(answer[0], 200);
            assert!(answer[1]["event"]["signatures"][OUR_NAME].is_object());
            assert_eq!(here.shown_to(ALICE, &theirs.room).await.len(), 3);
        }
    }

    #[tokio::test]
    async fn rooms_of_later_versions_do_not_come_this_way() {
        let here = Here::new().await;
        here.register("alice").await;
        let theirs = Theirs::new(&here, "11");
        let invite = theirs.invite(ALICE, json!({}));
        let path = there_path("v1/invite", &theirs.room, invite.event_id());
        let event: Value = serde_json::from_str(invite.json()).expect("an event is JSON");
        here.signed(Method::PUT, &path, Some(event))
            .await
            .refused(400, "M_INVALID_PARAM");
    }
}
