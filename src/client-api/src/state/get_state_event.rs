//! `GET /_matrix/client/v3/rooms/{roomId}/state/{eventType}/{stateKey}`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidstateeventtypestatekey>

use axum::{Json, extract::State};
use myelin_rooms::{
    Rooms,
    read::{ReadError, StateFormat},
};
use ruma::api::client::state::get_state_event_for_key::v3::{
    Request as Operation, StateEventFormat,
};
use serde_json::value::RawValue;

use crate::{
    error::{Refusal, Result},
    extract::Request,
    shared::{refuse_read, viewer},
};

fn refuse(error: ReadError) -> Refusal {
    match error {
        ReadError::NotFound => Refusal::not_found("The room's state has no such entry."),
        other => refuse_read(other),
    }
}

/// Answers with one entry of the room's state.
pub(crate) async fn get(
    State(rooms): State<Rooms>,
    request: Request<Operation>,
) -> Result<Json<Box<RawValue>>> {
    let query = request.body;
    let format = match query.format {
        StateEventFormat::Event => StateFormat::Event,
        _ => StateFormat::Content,
    };
    rooms
        .client_state_event(
            &viewer(&request.caller),
            &query.room_id,
            &query.event_type.to_string(),
            &query.state_key,
            format,
        )
        .await
        .map(Json)
        .map_err(refuse)
}

#[cfg(test)]
mod tests {
    use http::Method;
    use serde_json::json;

    use crate::testing::{Server, encode, in_room};

    #[tokio::test]
    async fn an_entry_is_shown_under_every_form_of_the_path() {
        let server = Server::new().await;
        let alice = server.register("alice").await;
        let request = json!({ "name": "here", "visibility": "public", "preset": "public_chat" });
        let room = server.room(&alice, &request).await;
        let own = format!("m.room.member/{}", encode(&alice.id));
        for (entry, content) in [
            ("m.room.name", json!({ "name": "here" })),
            ("m.room.name/", json!({ "name": "here" })),
            (own.as_str(), json!({ "membership": "join" })),
        ] {
            for version in ["v3", "r0"] {
                let path = format!("/_matrix/client/{version}{}", in_room(&room, "/state/"));
                let get = async |query: &str| {
                    let path = format!("{path}{entry}{query}");
                    server
                        .send(Method::GET, &path, Some(&alice.token), Vec::new())
                        .await
                };
                assert_eq!(get("").await.ok(), content);
                assert_eq!(get("?format=content").await.ok(), content);
                let event = get("?format=event").await.ok();
                assert_eq!(event["content"], content);
                assert_eq!(event["sender"], alice.id);
                assert_eq!(event["room_id"], room);
            }
        }
    }

    #[tokio::test]
    async fn what_is_not_there_or_not_shown_is_refused() {
        let (server, alice, bob) = Server::with_two_users().await;
        let room = server.room(&alice, &json!({})).await;
        server
            .state(&room, &alice, "m.room.name")
            .await
            .refused(404, "M_NOT_FOUND");
        server
            .state(&room, &alice, "never.seen/key")
            .await
            .refused(404, "M_NOT_FOUND");
        server
            .state(&room, &bob, "m.room.create")
            .await
            .refused(403, "M_FORBIDDEN");
        server
            .state("!nowhere:hs1", &alice, "m.room.create")
            .await
            .refused(403, "M_FORBIDDEN");
        let visibility = json!({ "history_visibility": "world_readable" });
        server
            .set_state(&room, &alice, "m.room.history_visibility", &visibility)
            .await
            .ok();
        server.state(&room, &bob, "m.room.create").await.ok();
    }
}
