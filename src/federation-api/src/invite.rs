//! `PUT /_matrix/federation/v2/invite/{roomId}/{eventId}`
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv2inviteroomideventid>

use std::str::FromStr;

use axum::extract::State;
use myelin_federation::{Federation, ReceiveInviteError as ReceiveError};
use myelin_rooms::remote::{ReceiveInvite, ReceiveInviteError};
use myelin_rules::RoomVersion;
use ruma::{
    OwnedEventId, OwnedRoomId, OwnedServerName, RoomVersionId,
    api::{
        IncomingRequest,
        error::{DeserializationError, Error, ErrorKind},
        federation::{
            authentication::ServerSignatures,
            membership::{create_invite::v2::Response, create_leave_event::v2::Request as Parts},
        },
        metadata,
    },
};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    error::{Refusal, Result},
    extract::{Reply, Request as Received},
    reads::text,
};

metadata! {
    method: PUT,
    rate_limited: false,
    authentication: ServerSignatures,
    path: "/_matrix/federation/v2/invite/{room_id}/{event_id}",
}

/// An invitation. Whatever is told of the room stays as it came: it is verified as a whole.
#[derive(Debug)]
pub(crate) struct Request {
    room_id: OwnedRoomId,
    event_id: OwnedEventId,
    body: Body,
}

#[derive(Debug, Deserialize)]
struct Body {
    room_version: String,
    event: Box<RawValue>,
    #[serde(default)]
    invite_room_state: Vec<Box<RawValue>>,
}

impl IncomingRequest for Request {
    type EndpointError = Error;
    type OutgoingResponse = Response;

    fn try_from_http_request_inner(
        request: http::Request<&[u8]>,
        path_args: &[&str],
    ) -> std::result::Result<Self, DeserializationError> {
        let body = serde_json::from_slice(request.body())?;
        // The same path, with an event of another shape.
        let parts = Parts::try_from_http_request_inner(request, path_args)?;
        Ok(Self {
            room_id: parts.room_id,
            event_id: parts.event_id,
            body,
        })
    }
}

pub(crate) fn refuse(error: ReceiveError) -> Refusal {
    let message = error.to_string();
    match error {
        ReceiveError::IncompatibleVersion(version) => match RoomVersionId::try_from(version) {
            Ok(version) => Refusal::incompatible_version(version, message),
            Err(_) => Refusal::invalid(message),
        },
        ReceiveError::NoSuchUser | ReceiveError::Invite(ReceiveInviteError::Forbidden(_)) => {
            Refusal::forbidden(message)
        }
        ReceiveError::Blocked => Refusal::new(
            http::StatusCode::FORBIDDEN,
            ErrorKind::InviteBlocked,
            message,
        ),
        ReceiveError::Invite(ReceiveInviteError::Malformed(_)) => Refusal::invalid(message),
        ReceiveError::Invite(ReceiveInviteError::Failure(failure)) => Refusal::internal(failure),
    }
}

/// What the other server says of an invitation, by either version of the endpoint.
pub(crate) struct Told {
    pub(crate) room_id: OwnedRoomId,
    pub(crate) event_id: OwnedEventId,
    pub(crate) room_version: String,
    pub(crate) event: Box<RawValue>,
    pub(crate) invite_room_state: Vec<Box<RawValue>>,
    pub(crate) origin: OwnedServerName,
}

/// Takes an invitation of one of our users; answers it with our signature.
pub(crate) async fn accept(federation: &Federation, told: Told) -> Result<Box<RawValue>> {
    let version = RoomVersion::from_str(&told.room_version)
        .map_err(|_| refuse(ReceiveError::IncompatibleVersion(told.room_version)))?;
    let signed = federation
        .receive_invite(ReceiveInvite {
            room_id: told.room_id,
            event_id: told.event_id,
            version,
            event: told.event,
            told: told.invite_room_state,
            via: Vec::new(),
            origin: told.origin,
        })
        .await
        .map_err(refuse)?;
    text(&signed)
}

/// Takes an invitation of one of our users.
pub(crate) async fn put(
    State(federation): State<Federation>,
    request: Received<Request>,
) -> Result<Reply<Response>> {
    let Received { body, origin, .. } = request;
    let told = Told {
        room_id: body.room_id,
        event_id: body.event_id,
        room_version: body.body.room_version,
        event: body.body.event,
        invite_room_state: body.body.invite_room_state,
        origin,
    };
    Ok(Reply(Response::new(accept(&federation, told).await?)))
}

#[cfg(test)]
mod tests {
    use http::Method;
    use serde_json::{Value, json};

    use crate::{
        outsiders::{ALICE, Theirs},
        testing::{Here, OUR_NAME, there_path},
    };

    fn body(theirs: &Theirs<'_>, invite: &Value) -> Value {
        json!({
            "room_version": theirs.version.as_str(),
            "event": invite,
            "invite_room_state": theirs.state(),
        })
    }

    #[tokio::test]
    async fn an_invitation_is_signed_and_shown() {
        for version in ["1", "11", "12"] {
            let here = Here::new().await;
            here.register("alice").await;
            let theirs = Theirs::new(&here, version);
            let invite = theirs.invite(ALICE, json!({ "is_direct": true }));
            let path = there_path("v2/invite", &theirs.room, invite.event_id());
            let event: Value = serde_json::from_str(invite.json()).expect("an event is JSON");
            for _ in 0..2 {
                let put = here.signed(Method::PUT, &path, Some(body(&theirs, &event)));
                let answer = put.await.ok();
                let signatures = answer["event"]["signatures"].as_object();
                let signatures = signatures.expect("it is signed");
                assert!(signatures.contains_key(OUR_NAME), "{version}");
                assert_eq!(signatures.len(), 2, "{version}");
            }
            let shown = here.shown_to(ALICE, &theirs.room).await;
            let kinds: Vec<&str> = shown
                .iter()
                .filter_map(|event| event["type"].as_str())
                .collect();
            assert_eq!(kinds, ["m.room.create", "m.room.name", "m.room.member"]);
            assert_eq!(shown[2]["content"]["is_direct"], true);
            // The create event alone makes a room's id from version 12 on, and is shown whole there.
            let whole = shown[0].get("hashes").is_some();
            assert_eq!(whole, version == "12");
            assert!(shown[1].get("hashes").is_none());
        }
    }

    #[tokio::test]
    async fn what_is_no_invitation_of_ours_is_refused() {
        let here = Here::new().await;
        here.register("alice").await;
        let theirs = Theirs::new(&here, "11");
        let put = async |event: &myelin_rules::Pdu, change: &dyn Fn(&mut Value)| {
            let path = there_path("v2/invite", &theirs.room, event.event_id());
            let event: Value = serde_json::from_str(event.json()).expect("an event is JSON");
            let mut body = body(&theirs, &event);
            change(&mut body);
            here.signed(Method::PUT, &path, Some(body)).await
        };
        let keep = |_: &mut Value| {};
        let good = theirs.invite(ALICE, json!({}));
        let elsewhere = theirs.invite("@alice:third.example", json!({}));
        let nobody = theirs.invite("@nobody:here.example", json!({}));
        let join = theirs.member(ALICE, json!({ "membership": "join" }));
        let name = theirs.event("m.room.name", "", json!({ "name": "x" }));
        put(&elsewhere, &keep).await.refused(400, "M_INVALID_PARAM");
        put(&join, &keep).await.refused(400, "M_INVALID_PARAM");
        put(&name, &keep).await.refused(400, "M_INVALID_PARAM");
        put(&nobody, &keep).await.refused(403, "M_FORBIDDEN");
        put(&good, &|body| body["event"]["signatures"] = json!({}))
            .await
            .refused(400, "M_INVALID_PARAM");
        put(&good, &|body| body["event"]["content"]["x"] = json!(1))
            .await
            .refused(400, "M_INVALID_PARAM");
        put(&good, &|body| body["room_version"] = json!("0"))
            .await
            .refused(400, "M_INCOMPATIBLE_ROOM_VERSION");
        put(&good, &|body| body["room_version"] = json!("6"))
            .await
            .refused(400, "M_INVALID_PARAM");
        assert!(here.shown_to(ALICE, &theirs.room).await.is_empty());
        put(&good, &keep).await.ok();
        assert_eq!(here.shown_to(ALICE, &theirs.room).await.len(), 3);
    }

    #[tokio::test]
    async fn what_is_told_of_the_room_must_hold() {
        for (version, strict) in [("11", false), ("12", true)] {
            let here = Here::new().await;
            here.register("alice").await;
            let theirs = Theirs::new(&here, version);
            let put = async |state: Vec<Value>| {
                let invite = theirs.invite(ALICE, json!({}));
                let path = there_path("v2/invite", &theirs.room, invite.event_id());
                let event: Value = serde_json::from_str(invite.json()).expect("an event is JSON");
                let mut body = body(&theirs, &event);
                body["invite_room_state"] = Value::Array(state);
                here.signed(Method::PUT, &path, Some(body)).await
            };
            let names = async || {
                let shown = here.shown_to(ALICE, &theirs.room).await;
                let names = shown
                    .into_iter()
                    .map(|event| event["content"]["name"].clone());
                names.filter(Value::is_string).collect::<Vec<_>>()
            };
            // Forged, of another room, without the create event, in the old form.
            let mut forged = theirs.state();
            forged[1]["content"]["name"] = json!("forged");
            forged[1]["hashes"] = json!({ "sha256": "AAAA" });
            let mut other = theirs.state();
            other[1]["room_id"] = json!("!other:there.example");
            let old = vec![json!({
                "type": "m.room.name", "state_key": "", "sender": "@charlie:there.example",
                "content": { "name": "old form" },
            })];
            for state in [forged, other, Vec::new(), old] {
                let answer = put(state).await;
                if strict {
                    answer.refused(400, "M_INVALID_PARAM");
                } else {
                    answer.ok();
                    let names = names().await;
                    assert!(names.iter().all(|name| name == "old form"), "{names:?}");
                }
            }
            // A create event that names another version is a lie in every version.
            let mut lie = theirs.state();
            lie[0] = theirs.create_of_version("9");
            put(lie).await.refused(400, "M_INVALID_PARAM");
        }
    }

    #[tokio::test]
    async fn a_lie_about_the_version_keeps_nobody_out() {
        let here = Here::new().await;
        here.register("alice").await;
        let send = async |theirs: &Theirs<'_>, state: bool| {
            let invite = theirs.invite(ALICE, json!({}));
            let path = there_path("v2/invite", &theirs.room, invite.event_id());
            let event: Value = serde_json::from_str(invite.json()).expect("an event is JSON");
            let mut body = body(theirs, &event);
            if !state {
                body["invite_room_state"] = json!([]);
            }
            here.signed(Method::PUT, &path, Some(body)).await
        };
        let (lie, truth) = (Theirs::new(&here, "6"), Theirs::new(&here, "11"));
        assert_eq!(lie.room, truth.room);
        send(&lie, false).await.ok();
        assert_eq!(here.shown_to(ALICE, &truth.room).await.len(), 1);
        // Which of two invitations lies cannot be told; a server that lets somebody in can prove it.
        send(&truth, true).await.refused(400, "M_INVALID_PARAM");
        let met = here.rooms.meet(&truth.room, truth.version).await;
        assert_eq!(met.expect("the store works").version, truth.version);
        assert!(here.shown_to(ALICE, &truth.room).await.is_empty());
        send(&truth, true).await.ok();
        assert_eq!(here.shown_to(ALICE, &truth.room).await.len(), 3);
    }

    #[tokio::test]
    async fn whoever_wants_no_invitations_gets_none() {
        let here = Here::new().await;
        here.register("alice").await;
        here.block_invitations(ALICE).await;
        let theirs = Theirs::new(&here, "11");
        let invite = theirs.invite(ALICE, json!({}));
        let path = there_path("v2/invite", &theirs.room, invite.event_id());
        let event: Value = serde_json::from_str(invite.json()).expect("an event is JSON");
        here.signed(Method::PUT, &path, Some(body(&theirs, &event)))
            .await
            .refused(403, "M_INVITE_BLOCKED");
    }
}
