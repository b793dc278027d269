//! `POST /_matrix/client/v3/rooms/{roomId}/read_markers`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidread_markers>

use axum::extract::State;
use myelin_accounts::{Accounts, Requester};
use myelin_data::rooms::ReceiptKind;
use myelin_rooms::{NewReceipt, Rooms, Thread};
use ruma::{
    EventId, RoomId,
    api::client::read_marker::set_read_marker::v3::{Request as Operation, Response},
};

use super::refuse_receipt;
use crate::{
    error::{Refusal, Result},
    extract::{Reply, Request},
    shared::not_in_room,
};

/// Moves the caller's fully-read marker and his receipts.
pub(crate) async fn set(
    State(rooms): State<Rooms>,
    State(accounts): State<Accounts>,
    request: Request<Operation>,
) -> Result<Reply<Response>> {
    let Request { body, caller, .. } = request;
    if let Some(event_id) = &body.fully_read {
        set_fully_read(&rooms, &accounts, &caller, &body.room_id, event_id).await?;
    }
    let receipts: Vec<NewReceipt> = [
        (ReceiptKind::Read, body.read_receipt),
        (ReceiptKind::ReadPrivate, body.private_read_receipt),
    ]
    .into_iter()
    .filter_map(|(kind, event_id)| {
        event_id.map(|event_id| NewReceipt {
            kind,
            thread: Thread::Unthreaded,
            event_id,
        })
    })
    .collect();
    if !receipts.is_empty() {
        rooms
            .set_receipts(&body.room_id, &caller.user_id, receipts)
            .await
            .map_err(refuse_receipt)?;
    }
    Ok(Reply(Response::new()))
}

/// Moves the fully-read marker, which is account data of the room, to an event of that room.
pub(super) async fn set_fully_read(
    rooms: &Rooms,
    accounts: &Accounts,
    caller: &Requester,
    room_id: &RoomId,
    event_id: &EventId,
) -> Result<()> {
    let known = rooms
        .event_in_room(room_id, &caller.user_id, event_id)
        .await
        .map_err(refuse_receipt)?;
    if !known {
        return Err(Refusal::not_found("The room has no such event."));
    }
    let (reader, room_id) = (rooms.clone(), room_id.to_owned());
    let room = rooms
        .store()
        .read(move |view| reader.find(view, &room_id))
        .await
        .map_err(Refusal::internal)?
        .ok_or_else(not_in_room)?;
    accounts
        .set_fully_read(caller.user, room.num, event_id)
        .await
        .map_err(Refusal::internal)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::testing::{Server, in_room};

    #[tokio::test]
    async fn the_marker_and_the_receipts_move() {
        let server = Server::new().await;
        let alice = server.register("alice").await;
        let room = server
            .room(&alice, &json!({ "preset": "public_chat" }))
            .await;
        let path = in_room(&room, "/read_markers");
        for _ in 0..2 {
            let event = server.say(&room, &alice, "Hello world!").await;
            let body = json!({ "m.fully_read": event, "m.read": event, "m.read.private": event });
            for _ in 0..2 {
                assert_eq!(server.post(&path, &alice, &body).await.ok(), json!({}));
            }
            let sync = server.sync(&alice, "").await;
            let joined = &sync["rooms"]["join"][&room];
            let receipts = &joined["ephemeral"]["events"][0]["content"][&event];
            for kind in ["m.read", "m.read.private"] {
                assert!(receipts[kind][&alice.id]["ts"].is_number(), "{joined}");
            }
            let marker = json!([{ "type": "m.fully_read", "content": { "event_id": event } }]);
            assert_eq!(joined["account_data"]["events"], marker);
        }
        server.post(&path, &alice, &json!({})).await.ok();
    }

    #[tokio::test]
    async fn strangers_and_nonsense_are_refused() {
        let (server, alice, bob) = Server::with_two_users().await;
        let room = server.room(&alice, &json!({})).await;
        let event = server.say(&room, &alice, "mine").await;
        let fully = json!({ "m.fully_read": event });
        let read = json!({ "m.read": event });
        let post = async |room: &str, user, body: &Value| {
            server
                .post(&in_room(room, "/read_markers"), user, body)
                .await
        };
        for body in [&fully, &read] {
            post(&room, &bob, body).await.refused(403, "M_FORBIDDEN");
            post("!nowhere:hs1", &alice, body)
                .await
                .refused(403, "M_FORBIDDEN");
        }
        let unknown = json!({ "m.fully_read": "$nothing" });
        post(&room, &alice, &unknown)
            .await
            .refused(404, "M_NOT_FOUND");
        let nonsense = json!({ "m.fully_read": 5 });
        post(&room, &alice, &nonsense)
            .await
            .refused(400, "M_BAD_JSON");
    }
}
