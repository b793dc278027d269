//! Servers that could not reach each other and said different things meanwhile.

use std::{sync::Arc, time::Duration};

use myelin_testkit::{Federated, encoded};
use myelin_types::{Millis, MockClock};
use serde_json::json;

/// What lost when a room's state was resolved happened all the same: whoever watches the room sees it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_lost_against_an_earlier_one_is_shown() {
    let clock = Arc::new(MockClock::new(Millis(1_700_000_000_000)));
    let mut servers = Federated::builder(2)
        .clock(Arc::clone(&clock))
        .start()
        .await;
    let alice = servers[0].register("alice").await;
    let bob = servers[1].register("bob").await;
    let room = alice
        .create_room(&json!({
            "preset": "public_chat",
            "power_level_content_override": { "events": { "m.room.topic": 0 } },
        }))
        .await;
    let via = encoded(servers[0].name().as_str());
    let join = format!("/_matrix/client/v3/join/{}?via={via}", encoded(&room));
    bob.post(&join, &json!({})).await.ok();
    let since = alice.sync(None).await["next_batch"]
        .as_str()
        .map(str::to_owned);

    // Bob says his while nobody hears it, and is gone when Alice says hers, later.
    assert!(servers[0].stop().await.clean);
    let his = json!({ "topic": "His" });
    let lost = bob.set_state(&room, "m.room.topic", "", &his).await;
    assert!(servers[1].stop().await.clean);
    servers[0].resume().await;
    clock.advance(Duration::from_hours(1));
    let hers = json!({ "topic": "Hers" });
    alice.set_state(&room, "m.room.topic", "", &hers).await;
    servers[1].resume().await;

    alice
        .sync_until(since, |sync| {
            let events = sync["rooms"]["join"][&room]["timeline"]["events"].as_array();
            events.is_some_and(|events| events.iter().any(|event| event["event_id"] == lost))
        })
        .await;
    let path = format!(
        "/_matrix/client/v3/rooms/{}/state/m.room.topic",
        encoded(&room)
    );
    assert_eq!(alice.get(&path).await.ok()["topic"], "Hers");
}
