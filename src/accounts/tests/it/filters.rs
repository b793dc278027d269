//! Stored filters.

use myelin_accounts::{FilterError, MAX_FILTERS};
use serde_json::{Map, Value, json};

use crate::harness::server;

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object) => object,
        other => panic!("not an object: {other}"),
    }
}

#[tokio::test]
async fn a_filter_is_kept_for_its_user() {
    let server = server().await;
    let alice = server.register("alice").await.user;
    let bob = server.register("bob").await.user;
    let accounts = &server.accounts;
    let filter = object(json!({"room": {"timeline": {"limit": 10}}}));
    let id = accounts
        .define_filter(alice, &filter)
        .await
        .expect("is legal");
    assert!(!id.starts_with('{'));
    let again = accounts
        .define_filter(alice, &filter)
        .await
        .expect("is legal");
    assert_eq!(again, id);
    let other = object(json!({"room": {"timeline": {"limit": 11}}}));
    let other = accounts
        .define_filter(alice, &other)
        .await
        .expect("is legal");
    assert_ne!(other, id);

    let view = accounts.view();
    let text = accounts.filter(&view, alice, &id).expect("is read");
    let text: Value = serde_json::from_str(text.expect("is there").get()).expect("is JSON");
    assert_eq!(text["room"]["timeline"]["limit"], 10);
    let ready = accounts
        .filter_definition(&view, alice, &id)
        .expect("is read");
    assert!(ready.is_some());
    assert!(accounts.filter(&view, bob, &id).expect("is read").is_none());
    assert!(
        accounts
            .filter(&view, alice, "nonsense")
            .expect("is read")
            .is_none()
    );
}

#[tokio::test]
async fn what_is_no_filter_is_refused() {
    let server = server().await;
    let alice = server.register("alice").await.user;
    let timeline = |part: Value| json!({"room": {"timeline": part}});
    for nonsense in [
        json!({"presence": "not_an_object"}),
        json!({"room": {"timeline": "not_an_object"}}),
        json!({"room": {"state": "not_an_object"}}),
        json!({"room": {"ephemeral": "not_an_object"}}),
        json!({"room": {"account_data": "not_an_object"}}),
        timeline(json!({"rooms": "not_a_list"})),
        timeline(json!({"not_rooms": "not_a_list"})),
        timeline(json!({"senders": "not_a_list"})),
        timeline(json!({"not_senders": "not_a_list"})),
        timeline(json!({"types": "not_a_list"})),
        timeline(json!({"not_types": "not_a_list"})),
        timeline(json!({"types": [1]})),
        timeline(json!({"rooms": ["not_a_room_id"]})),
        timeline(json!({"senders": ["not_a_sender_id"]})),
    ] {
        let refused = server
            .accounts
            .define_filter(alice, &object(nonsense.clone()))
            .await;
        assert!(
            matches!(refused, Err(FilterError::Invalid(_))),
            "{nonsense}"
        );
    }
    let large = object(json!({"event_fields": ["x".repeat(70_000)]}));
    assert!(matches!(
        server.accounts.define_filter(alice, &large).await,
        Err(FilterError::TooLarge)
    ));
}

#[tokio::test]
async fn a_user_has_a_thousand_filters_at_most() {
    let server = server().await;
    let alice = server.register("alice").await.user;
    let filter = |limit: usize| object(json!({"room": {"timeline": {"limit": limit}}}));
    let mut first = String::new();
    for limit in 1..=MAX_FILTERS {
        first = server
            .accounts
            .define_filter(alice, &filter(limit))
            .await
            .expect("there is room");
    }
    assert!(matches!(
        server
            .accounts
            .define_filter(alice, &filter(MAX_FILTERS + 1))
            .await,
        Err(FilterError::TooMany)
    ));
    let again = server
        .accounts
        .define_filter(alice, &filter(MAX_FILTERS))
        .await;
    assert_eq!(again.expect("is there already"), first);
}
