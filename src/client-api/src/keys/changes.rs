//! `GET /_matrix/client/v3/keys/changes`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3keyschanges>

use axum::{Json, extract::State};
use myelin_rooms::token::Token;
use myelin_sync::{DeviceLists, Sync};
use ruma::api::client::keys::get_key_changes::v3::Request as Operation;

use crate::{
    error::{Refusal, Result},
    extract::Request,
    shared::{token, viewer},
};

/// Lists whose devices changed since `from`. What changed since `to` is among it: the client hears of that once more with its
/// next sync, which does no harm.
pub(crate) async fn changes(
    State(sync): State<Sync>,
    request: Request<Operation>,
) -> Result<Json<DeviceLists>> {
    let Request { body, caller, .. } = request;
    token(Some(&body.to))?;
    let from = match token(Some(&body.from))? {
        Some(Token::Sync(from)) => from.pos,
        Some(Token::Timeline(from)) => from.pos,
        None => return Err(Refusal::missing("from is missing.")),
    };
    let lists = sync
        .device_lists(viewer(&caller), from)
        .await
        .map_err(Refusal::internal)?;
    Ok(Json(lists))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::testing::{Server, User, text};

    async fn token(server: &Server, user: &User) -> String {
        text(&server.sync(user, "").await["next_batch"])
    }

    /// What a sync and `/keys/changes` say, which is the same.
    async fn lists(server: &Server, user: &User, since: &str) -> Value {
        let (lists, next) = server.lists_since(user, since).await;
        let path = format!("/keys/changes?from={since}&to={next}");
        assert_eq!(server.get(&path, user).await.ok(), lists);
        lists
    }

    fn of(changed: &[&User], left: &[&User]) -> Value {
        let ids = |users: &[&User]| users.iter().map(|user| user.id.clone()).collect::<Vec<_>>();
        json!({ "changed": ids(changed), "left": ids(left) })
    }

    #[tokio::test]
    async fn changes_are_told_to_oneself_and_to_those_who_share_a_room() {
        let (server, alice, bob) = Server::with_two_users().await;
        let carol = server.register("carol").await;
        let room = server
            .room(&alice, &json!({ "preset": "public_chat" }))
            .await;
        server.join(&room, &bob).await;
        let since = token(&server, &alice).await;
        assert_eq!(lists(&server, &alice, &since).await, of(&[], &[]));

        server.publish_keys(&bob, 1).await;
        assert_eq!(lists(&server, &alice, &since).await, of(&[&bob], &[]));
        assert_eq!(lists(&server, &bob, &since).await, of(&[&bob], &[]));
        assert_eq!(lists(&server, &carol, &since).await, of(&[], &[]));

        let since = token(&server, &alice).await;
        let name = json!({ "display_name": "another" });
        let path = format!("/devices/{}", bob.device);
        server.put(&path, &bob, &name).await.ok();
        assert_eq!(lists(&server, &alice, &since).await, of(&[&bob], &[]));
        // Nobody is told of a device without keys.
        let path = format!("/devices/{}", carol.device);
        server.put(&path, &carol, &name).await.ok();
        assert_eq!(lists(&server, &carol, &since).await, of(&[], &[]));

        let since = token(&server, &alice).await;
        server.post("/logout", &bob, &json!({})).await.ok();
        assert_eq!(lists(&server, &alice, &since).await, of(&[&bob], &[]));
        let query = json!({ "device_keys": { &bob.id: [] } });
        let answer = server.post("/keys/query", &alice, &query).await.ok();
        assert_eq!(answer["device_keys"], json!({ &bob.id: {} }));
    }

    #[tokio::test]
    async fn who_comes_is_changed_and_who_goes_has_left() {
        let (server, alice, bob) = Server::with_two_users().await;
        let public = json!({ "preset": "public_chat" });
        let (room, other) = (
            server.room(&alice, &public).await,
            server.room(&bob, &public).await,
        );
        let since = token(&server, &alice).await;
        server.join(&room, &bob).await;
        assert_eq!(lists(&server, &alice, &since).await, of(&[&bob], &[]));
        // He meets her with all of his devices.
        let both = of(&[&alice, &bob], &[]);
        assert_eq!(lists(&server, &bob, &since).await, both);
        // Another room is no news.
        let since = token(&server, &alice).await;
        server.join(&other, &alice).await;
        for user in [&alice, &bob] {
            assert_eq!(lists(&server, user, &since).await, of(&[], &[]));
        }
        let since = token(&server, &alice).await;
        server.leave(&room, &bob).await;
        for user in [&alice, &bob] {
            assert_eq!(lists(&server, user, &since).await, of(&[], &[]));
        }
        // The last one is: to him who is banned and to who stays.
        let since = token(&server, &alice).await;
        server.act("ban", &other, &bob, &alice).await.ok();
        assert_eq!(lists(&server, &alice, &since).await, of(&[], &[&bob]));
        assert_eq!(lists(&server, &bob, &since).await, of(&[], &[&alice]));
        let later = token(&server, &alice).await;
        server.publish_keys(&bob, 1).await;
        assert_eq!(lists(&server, &alice, &later).await, of(&[], &[]));
        // He comes back, before the client has synced: what happened meanwhile is not lost.
        server.join(&room, &bob).await;
        assert_eq!(lists(&server, &alice, &since).await, of(&[&bob], &[]));
    }

    #[tokio::test]
    async fn what_happened_before_a_restart_is_told_as_well() {
        let (server, alice, bob) = Server::with_two_users().await;
        let (carol, dave) = (
            server.register("carol").await,
            server.register("dave").await,
        );
        let room = server
            .room(&alice, &json!({ "preset": "public_chat" }))
            .await;
        server.join(&room, &bob).await;
        server.join(&room, &carol).await;
        let since = token(&server, &alice).await;
        server.publish_keys(&bob, 1).await;
        server.leave(&room, &carol).await;
        server.join(&room, &dave).await;
        let expected = of(&[&bob, &dave], &[&carol]);
        assert_eq!(lists(&server, &alice, &since).await, expected);
        let server = server.restart().await;
        assert_eq!(lists(&server, &alice, &since).await, expected);
        assert_eq!(
            lists(&server, &carol, &since).await["left"]
                .as_array()
                .map(Vec::len),
            Some(2)
        );
    }

    #[tokio::test]
    async fn who_waits_is_woken_by_the_keys_of_another() {
        let (server, alice, bob) = Server::with_two_users().await;
        let room = server
            .room(&alice, &json!({ "preset": "public_chat" }))
            .await;
        server.join(&room, &bob).await;
        let since = token(&server, &alice).await;
        let path = format!("/sync?timeout=60000&since={since}");
        let (sync, ()) = tokio::join!(server.get(&path, &alice), async {
            tokio::task::yield_now().await;
            server.publish_keys(&bob, 1).await;
        });
        assert_eq!(sync.ok()["device_lists"]["changed"], json!([bob.id]));
    }

    #[tokio::test]
    async fn a_device_is_renamed_by_as_many_writes_in_many_rooms_as_in_one() {
        let (server, alice, bob) = Server::with_two_users().await;
        for (user, rooms) in [(&alice, 1), (&bob, 40)] {
            server.publish_keys(user, 1).await;
            for _ in 0..rooms {
                server.room(user, &json!({})).await;
            }
        }
        let mut costs = Vec::new();
        for user in [&alice, &bob] {
            let before = server.store.counters();
            let path = format!("/devices/{}", user.device);
            let name = json!({ "display_name": "another" });
            server.put(&path, user, &name).await.ok();
            let after = server.store.counters();
            costs.push([
                after.batches - before.batches,
                after.puts - before.puts,
                after.deletes - before.deletes,
            ]);
        }
        assert_eq!(costs, [[1, 3, 1], [1, 3, 1]]);
    }

    #[tokio::test]
    async fn tokens_that_are_none_are_refused() {
        let server = Server::new().await;
        let alice = server.register("alice").await;
        let since = token(&server, &alice).await;
        for query in [
            "from=x&to=y".to_owned(),
            format!("from={since}&to=y"),
            format!("from={since}"),
        ] {
            let path = format!("/keys/changes?{query}");
            let answer = server.get(&path, &alice).await;
            answer.refused(400, "M_INVALID_PARAM");
        }
    }
}
