//! A room's past, read through a server that was not there.

use myelin_testkit::{Client, Federated, encoded};
use serde_json::{Value, json};

/// A server with a room of Alice's, and another one from which Bob comes.
struct Two {
    servers: Federated,
    alice: Client,
    bob: Client,
    room: String,
}

impl Two {
    async fn start() -> Two {
        let servers = Federated::start(2).await;
        let alice = servers[0].register("alice").await;
        let bob = servers[1].register("bob").await;
        let room = alice.create_room(&json!({ "preset": "public_chat" })).await;
        Two {
            servers,
            alice,
            bob,
            room,
        }
    }

    async fn say(&self, texts: std::ops::Range<usize>) -> Vec<String> {
        let mut events = Vec::new();
        for text in texts {
            events.push(self.alice.say(&self.room, &text.to_string()).await);
        }
        events
    }

    async fn bob_joins(&self) {
        let via = encoded(self.servers[0].name().as_str());
        let path = format!(
            "/_matrix/client/v3/join/{}?via={via}&server_name={via}",
            encoded(&self.room)
        );
        self.bob.post(&path, &json!({})).await.ok();
    }

    async fn get(&self, rest: &str) -> Value {
        let path = format!("/_matrix/client/v3/rooms/{}/{rest}", encoded(&self.room));
        self.bob.get(&path).await.ok()
    }

    /// All that Bob sees, from the newest event backwards.
    async fn all(&self, limit: usize) -> Vec<Value> {
        let mut events = Vec::new();
        let mut from = String::new();
        // Pages may be empty, but not for ever.
        for _ in 0..100 {
            let page = self
                .get(&format!("messages?dir=b&limit={limit}{from}"))
                .await;
            events.extend(page["chunk"].as_array().expect("a chunk").iter().cloned());
            match page["end"].as_str() {
                Some(end) => from = format!("&from={end}"),
                None => return events,
            }
        }
        panic!("the pages do not end");
    }
}

fn messages(events: &[Value]) -> Vec<&str> {
    let messages = events
        .iter()
        .filter(|event| event["type"] == "m.room.message");
    messages
        .map(|event| event["event_id"].as_str().expect("an id"))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_joins_through_another_server_reads_back_to_the_beginning() {
    let two = Two::start().await;
    let said = two.say(0..150).await;
    two.bob_joins().await;
    let first = two.bob.sync(None).await;
    let timeline = &first["rooms"]["join"][&two.room]["timeline"];
    let from = timeline["prev_batch"].as_str().expect("a token");
    // The sync leads to the past.
    let page = two
        .get(&format!("messages?dir=b&limit=20&from={from}"))
        .await;
    let newest: Vec<&str> = said[130..].iter().rev().map(String::as_str).collect();
    assert_eq!(messages(page["chunk"].as_array().expect("a chunk")), newest);

    let events = two.all(40).await;
    let expected: Vec<&str> = said.iter().rev().map(String::as_str).collect();
    assert_eq!(messages(&events), expected);
    let types: Vec<&str> = events
        .iter()
        .rev()
        .take(3)
        .map(|event| event["type"].as_str().expect("a type"))
        .collect();
    assert_eq!(
        types,
        ["m.room.create", "m.room.member", "m.room.power_levels"]
    );
    // Nothing of it is news to Bob.
    let since = first["next_batch"].as_str().expect("a token");
    let second = two.bob.sync_with(Some(since), "&timeout=0").await;
    let news = &second["rooms"]["join"][&two.room]["timeline"]["events"];
    assert!(news.as_array().is_none_or(Vec::is_empty), "{news}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_happened_between_two_stays_is_read_in_its_place() {
    let two = Two::start().await;
    let mut said = two.say(0..5).await;
    two.bob_joins().await;
    two.bob.leave(&two.room).await.ok();
    said.extend(two.say(5..30).await);
    two.bob_joins().await;
    let events = two.all(7).await;
    let expected: Vec<&str> = said.iter().rev().map(String::as_str).collect();
    assert_eq!(messages(&events), expected);
    let mut ids: Vec<&str> = events
        .iter()
        .map(|event| event["event_id"].as_str().expect("an id"))
        .collect();
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), count, "nothing comes twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn single_events_and_times_of_the_past_are_found() {
    let two = Two::start().await;
    let said = two.say(0..10).await;
    two.bob_joins().await;
    let event = two.get(&format!("event/{}", encoded(&said[4]))).await;
    assert_eq!(event["content"]["body"], "4");
    let context = two
        .get(&format!("context/{}?limit=4", encoded(&said[4])))
        .await;
    let before = context["events_before"].as_array().expect("events");
    assert_eq!(messages(before), [&*said[3], &*said[2]]);
    let at = event["origin_server_ts"].as_u64().expect("a time");
    let path = format!(
        "/_matrix/client/v1/rooms/{}/timestamp_to_event?dir=f&ts={at}",
        encoded(&two.room)
    );
    let nearest = two.bob.get(&path).await.ok();
    assert_eq!(nearest["origin_server_ts"], at);
    let nowhere = format!(
        "/_matrix/client/v3/rooms/{}/event/%24nothing",
        encoded(&two.room)
    );
    two.bob.get(&nowhere).await.refused(404, "M_NOT_FOUND");
}
