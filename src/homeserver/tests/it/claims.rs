//! Killing the server while many claim one-time keys of the same device: no key is given to two.
//!
//! Claimers that hear nothing ask again, as clients do, and the key that they were not told of is lost to everybody. The owner
//! repeats an upload whose answer it did not hear, and brings no key back by that.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use reqwest::{Client, Method};
use serde_json::{Value, json};

use crate::crash::{Victim, answers, kills, persist, register, text};

const CLAIMERS: usize = 16;
/// How many keys the device has, in uploads of 100.
const KEYS: usize = 500;
const UPLOAD: usize = 100;
/// How many of them are uploaded once more, after each kill.
const REPEATED: usize = 20;

/// What claimers were given, in the order in which they heard of it.
#[derive(Clone, Default)]
struct Given {
    keys: Arc<Mutex<Vec<String>>>,
    /// How many claimers are done.
    done: Arc<AtomicUsize>,
}

impl Given {
    fn count(&self) -> usize {
        self.keys
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
    }
}

/// Claims keys until there are none.
async fn claim_all(client: Client, base: String, token: String, wanted: Value, given: Given) {
    let url = format!("{base}/_matrix/client/v3/keys/claim");
    loop {
        let answer = persist(&client, Method::POST, &url, &token, &wanted).await;
        let users = answer["one_time_keys"].as_object().expect("an object");
        let Some(devices) = users.values().next() else {
            given.done.fetch_add(1, Ordering::SeqCst);
            return;
        };
        let keys = devices["PHONE"].as_object().expect("the device");
        let mut all = given.keys.lock().unwrap_or_else(PoisonError::into_inner);
        all.extend(keys.keys().cloned());
    }
}

fn upload(from: usize, count: usize) -> Value {
    let keys: serde_json::Map<String, Value> = (from..from + count)
        .map(|id| (format!("curve25519:{id:03}"), json!(format!("key {id}"))))
        .collect();
    json!({ "one_time_keys": keys })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_key_is_given_twice_when_the_server_is_killed() {
    let client = myelin_testkit::http_client();
    let mut victim = Victim::start();
    let base = victim.base();
    answers(&client, &base).await;
    let claimer = register(&client, &base, "claimer").await;
    register(&client, &base, "owner").await;
    let login = json!({
        "type": "m.login.password",
        "identifier": { "type": "m.id.user", "user": "owner" },
        "password": "a long enough password",
        "device_id": "PHONE",
    });
    let url = format!("{base}/_matrix/client/v3/login");
    let session = persist(&client, Method::POST, &url, &claimer, &login).await;
    let (owner, owner_id) = (text(&session["access_token"]), text(&session["user_id"]));
    let uploads = format!("{base}/_matrix/client/v3/keys/upload");
    for from in (0..KEYS).step_by(UPLOAD) {
        persist(
            &client,
            Method::POST,
            &uploads,
            &owner,
            &upload(from, UPLOAD),
        )
        .await;
    }

    let given = Given::default();
    let wanted = json!({ "one_time_keys": { owner_id: { "PHONE": "curve25519" } } });
    let claiming: Vec<_> = (0..CLAIMERS)
        .map(|_| {
            let (client, base) = (client.clone(), base.clone());
            let (token, wanted) = (claimer.clone(), wanted.clone());
            tokio::spawn(claim_all(client, base, token, wanted, given.clone()))
        })
        .collect();
    for kill in 1..=kills() {
        // In the middle of it, each time a part further.
        let mark = KEYS * kill / (kills() + 2);
        while given.count() < mark && given.done.load(Ordering::SeqCst) == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        victim.crash();
        answers(&client, &base).await;
        // The oldest keys are claimed first: what is repeated here was handed out lately, or is still there.
        let last = given.count() / REPEATED * REPEATED;
        let again = upload(last.min(KEYS - REPEATED), REPEATED);
        persist(&client, Method::POST, &uploads, &owner, &again).await;
    }
    for task in claiming {
        task.await.expect("a claimer ends well");
    }
    let keys = given.keys.lock().unwrap_or_else(PoisonError::into_inner);
    let distinct: HashSet<&String> = keys.iter().collect();
    assert_eq!(distinct.len(), keys.len(), "a key was given twice");
    // Each claimer loses at most the one that it was waiting for, at each kill.
    assert!(keys.len() + CLAIMERS * kills() >= KEYS, "keys are lost");
}
