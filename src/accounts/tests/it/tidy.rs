//! What is thrown away.

use std::time::Duration;

use myelin_data::{
    Present,
    accounts::{OpenIdTokens, Transaction, Transactions, TransactionsByTime},
};
use myelin_store::{Batch, Scan};
use myelin_types::{Clock, Millis};

use crate::harness::{Server, server};

async fn transaction(server: &Server, at: Millis, id: &str) {
    let user = myelin_types::UserNum(1);
    let (device, path) = ("PHONE".to_owned(), "PUT /send".to_owned());
    let mut batch = Batch::new();
    let row = Transaction {
        at,
        event: None,
        event_id: None,
    };
    let key = (user, device.clone(), path.clone(), id.to_owned());
    batch.put::<Transactions>(&key, &row);
    batch.put::<TransactionsByTime>(&(at.0, user, device, path, id.to_owned()), &Present);
    server.store.commit(batch).await.expect("is written");
}

#[tokio::test]
async fn transactions_are_forgotten_after_a_day() {
    let server = server().await;
    let start = server.clock.now();
    transaction(&server, start, "old").await;
    transaction(&server, start, "made again").await;
    server.clock.advance(Duration::from_hours(20));
    // As after the deletion of the device, which leaves the rows by time to the janitor.
    transaction(&server, server.clock.now(), "made again").await;
    transaction(&server, server.clock.now(), "new").await;
    assert!(!server.accounts.tidy().await.expect("is tidy"));
    server.clock.advance(Duration::from_hours(5));
    assert!(!server.accounts.tidy().await.expect("is tidy"));
    let view = server.store.view();
    let left: Vec<String> = view
        .keys::<Transactions>(Scan::all())
        .map(|key| key.expect("is read").3)
        .collect();
    assert_eq!(left, ["made again", "new"]);
    assert_eq!(view.keys::<TransactionsByTime>(Scan::all()).count(), 2);
}

#[tokio::test]
async fn openid_tokens_that_have_ended_are_deleted() {
    let server = server().await;
    let user = myelin_types::UserNum(1);
    let count = || {
        server
            .store
            .view()
            .keys::<OpenIdTokens>(Scan::all())
            .count()
    };
    server.accounts.new_openid_token(user).await.expect("made");
    server.clock.advance(Duration::from_mins(40));
    server.accounts.new_openid_token(user).await.expect("made");
    server.accounts.tidy().await.expect("is tidy");
    assert_eq!(count(), 2);
    server.clock.advance(Duration::from_mins(40));
    assert!(!server.accounts.tidy().await.expect("is tidy"));
    assert_eq!(count(), 1);
}
