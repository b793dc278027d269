//! `GET /_matrix/client/v1/rooms/{roomId}/timestamp_to_event`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1roomsroomidtimestamp_to_event>

use axum::{Json, extract::State};
use myelin_federation::Federation;
use myelin_rooms::read::{EventAt, ReadError};
use myelin_types::Millis;
use ruma::api::client::room::get_event_by_timestamp::v1::Request as Operation;

use crate::{
    error::{Refusal, Result},
    extract::Request,
    shared::{refuse_read, viewer},
};

fn refuse(error: ReadError) -> Refusal {
    match error {
        ReadError::NotFound => {
            Refusal::not_found("You may see no event on that side of that time.")
        }
        other => refuse_read(other),
    }
}

/// Answers with the event that is nearest to a time, on the side of it that the caller names.
pub(crate) async fn get(
    State(federation): State<Federation>,
    request: Request<Operation>,
) -> Result<Json<EventAt>> {
    let query = request.body;
    federation
        .timestamp_to_event(
            &viewer(&request.caller),
            &query.room_id,
            Millis(query.ts.0.into()),
            query.dir,
        )
        .await
        .map(Json)
        .map_err(refuse)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::Method;
    use serde_json::json;

    use crate::testing::{Answer, Server, User, in_room};

    async fn nearest(server: &Server, room: &str, user: &User, query: &str) -> Answer {
        let path = in_room(room, &format!("/timestamp_to_event?{query}"));
        let path = format!("/_matrix/client/v1{path}");
        server
            .send(Method::GET, &path, Some(&user.token), Vec::new())
            .await
    }

    #[tokio::test]
    async fn the_nearest_event_on_the_named_side_is_found() {
        let (server, alice, bob) = Server::with_two_users().await;
        let room = server.room(&alice, &json!({})).await;
        server.clock.advance(Duration::from_secs(10));
        let first = server.say(&room, &alice, "first").await;
        server.clock.advance(Duration::from_secs(10));
        let second = server.say(&room, &alice, "second").await;
        // Between the two.
        let at = 1_700_000_015_000_u64;
        for (direction, event) in [("f", &second), ("b", &first), ("f", &second)] {
            let query = format!("dir={direction}&ts={at}");
            let found = nearest(&server, &room, &alice, &query).await.ok();
            assert_eq!(found["event_id"], *event);
            assert!(found["origin_server_ts"].is_number());
        }
        for (user, query, status, errcode) in [
            (&alice, "dir=f&ts=1800000000000", 404, "M_NOT_FOUND"),
            (&alice, "dir=b&ts=1000", 404, "M_NOT_FOUND"),
            (&bob, "dir=b&ts=1800000000000", 403, "M_FORBIDDEN"),
            (&alice, "dir=b", 400, "M_INVALID_PARAM"),
            (&alice, "dir=x&ts=1000", 400, "M_INVALID_PARAM"),
        ] {
            nearest(&server, &room, user, query)
                .await
                .refused(status, errcode);
        }
    }
}
