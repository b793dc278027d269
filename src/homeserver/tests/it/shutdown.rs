//! The end of a server: quick, in order, and nothing lost.

use std::time::{Duration, Instant};

use myelin_runtime::Cause;
use myelin_testkit::TestServer;
use serde_json::json;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_requests_are_answered_and_data_stay() {
    let mut server = TestServer::start().await;
    let alice = server.register("alice").await;
    let room = alice.create_room(&json!({})).await;
    let sent = alice.say(&room, "still here?").await;
    let since = alice.sync(None).await["next_batch"]
        .as_str()
        .expect("a token")
        .to_owned();

    let waiting = {
        let alice = server.reconnect(&alice);
        let since = since.clone();
        tokio::spawn(async move { alice.sync_with(Some(&since), "timeout=30000").await })
    };
    // The request must have arrived; there is nothing to see of that from outside.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let started = Instant::now();
    let ending = server.stop().await;
    assert_eq!(ending.cause, Cause::Requested);
    assert!(ending.clean);
    assert!(
        started.elapsed() < Duration::from_secs(4),
        "{:?}",
        started.elapsed()
    );
    let answer = waiting.await.expect("the request is answered");
    assert!(answer["next_batch"].is_string(), "{answer}");

    server.resume().await;
    let alice = server.reconnect(&alice);
    let synced = alice.sync(None).await;
    let events = synced["rooms"]["join"][&room]["timeline"]["events"]
        .as_array()
        .expect("a timeline");
    assert!(
        events.iter().any(|event| event["event_id"] == *sent),
        "{synced}"
    );
    let empty = alice.sync(Some(&since)).await;
    assert!(empty["rooms"]["join"].get(&room).is_none(), "{empty}");
}
