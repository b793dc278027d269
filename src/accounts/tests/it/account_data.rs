//! Account data, tags, and the marker up to where a room was read.

use myelin_accounts::{AccountDataError, TagError, is_server_managed};
use myelin_data::{RawJson, accounts::AccountDataByPos};
use myelin_store::Scan;
use myelin_types::{Pos, RoomNum, UserNum};
use ruma::{event_id, user_id};
use serde_json::{Map, Value, json};

use crate::harness::{Server, server};

fn raw(value: &Value) -> RawJson {
    RawJson::of(value).expect("is JSON")
}

async fn set(server: &Server, user: UserNum, room: RoomNum, kind: &str, content: Value) {
    server
        .accounts
        .set_account_data(user, room, kind, raw(&content))
        .await
        .expect("is legal");
}

fn get(server: &Server, user: UserNum, room: RoomNum, kind: &str) -> Option<Value> {
    let content = server
        .accounts
        .account_data(&server.accounts.view(), user, room, kind)
        .expect("is read");
    content.map(|content| serde_json::from_str(content.get()).expect("is JSON"))
}

#[tokio::test]
async fn data_is_set_and_overwritten_globally_and_per_room() {
    let server = server().await;
    let user = server.register("alice").await.user;
    for room in [RoomNum::NONE, RoomNum(1), RoomNum(2)] {
        assert_eq!(get(&server, user, room, "test.key"), None);
        for value in ["first", "second"] {
            let content = json!({"value": value, "room": room.0});
            set(&server, user, room, "test.key", content.clone()).await;
            assert_eq!(get(&server, user, room, "test.key"), Some(content));
        }
    }
}

#[tokio::test]
async fn changes_are_told_once_in_their_order() {
    let server = server().await;
    let user = server.register("alice").await.user;
    let bob = server.register("bob").await.user;
    let accounts = &server.accounts;
    let start = accounts.view().pos();
    set(&server, user, RoomNum(1), "a", json!({"n": 1})).await;
    set(&server, user, RoomNum::NONE, "b", json!({"n": 2})).await;
    set(&server, bob, RoomNum::NONE, "b", json!({"n": 3})).await;
    let between = accounts.view().pos();
    set(&server, user, RoomNum(1), "a", json!({"n": 4})).await;
    // Setting what is there is no change.
    let before = accounts.view().pos();
    set(&server, user, RoomNum(1), "a", json!({"n": 4})).await;
    assert_eq!(accounts.view().pos(), before);

    let view = accounts.view();
    let since = |pos: Pos| {
        let changes = accounts.account_data_since(&view, user, pos);
        changes
            .expect("are read")
            .into_iter()
            .map(|change| (change.room.0, change.kind, change.content.get().to_owned()))
            .collect::<Vec<_>>()
    };
    let a = (1, "a".to_owned(), r#"{"n":4}"#.to_owned());
    let b = (0, "b".to_owned(), r#"{"n":2}"#.to_owned());
    assert_eq!(since(start), [b, a.clone()]);
    assert_eq!(since(between), [a]);
    assert!(since(view.pos()).is_empty());
    let rows = view.keys::<AccountDataByPos>(Scan::prefix(&user)).count();
    assert_eq!(rows, 2, "one for each");
}

#[tokio::test]
async fn everybody_has_push_rules() {
    let server = server().await;
    let user = server.register("alice").await.user;
    set(&server, user, RoomNum::NONE, "b", json!({})).await;
    let view = server.accounts.view();
    let all = server.accounts.account_data_of(&view, user, RoomNum::NONE);
    let kinds: Vec<String> = all
        .expect("are read")
        .into_iter()
        .map(|change| change.kind)
        .collect();
    assert_eq!(kinds, ["b", "m.push_rules"]);
    let rules = get(&server, user, RoomNum::NONE, "m.push_rules").expect("are there");
    assert!(rules["global"]["override"].is_array());
    let in_room = server.accounts.account_data_of(&view, user, RoomNum(1));
    assert!(in_room.expect("are read").is_empty());
}

#[tokio::test]
async fn what_the_server_manages_is_refused() {
    let server = server().await;
    let user = server.register("alice").await.user;
    let try_set = |room: RoomNum, kind: &'static str, content: Value| {
        server
            .accounts
            .set_account_data(user, room, kind, raw(&content))
    };
    for room in [RoomNum::NONE, RoomNum(1)] {
        for kind in ["m.fully_read", "m.push_rules"] {
            assert!(is_server_managed(kind));
            assert!(matches!(
                try_set(room, kind, json!({})).await,
                Err(AccountDataError::ServerManaged(managed)) if managed == kind
            ));
        }
    }
    assert!(matches!(
        try_set(RoomNum::NONE, "a", json!([1])).await,
        Err(AccountDataError::NotAnObject)
    ));
    assert!(matches!(
        try_set(RoomNum::NONE, "", json!({})).await,
        Err(AccountDataError::InvalidType)
    ));
}

#[tokio::test]
async fn the_fully_read_marker_is_account_data() {
    let server = server().await;
    let user = server.register("alice").await.user;
    server
        .accounts
        .set_fully_read(user, RoomNum(1), event_id!("$one"))
        .await
        .expect("is set");
    assert_eq!(
        get(&server, user, RoomNum(1), "m.fully_read"),
        Some(json!({"event_id": "$one"}))
    );
}

#[tokio::test]
async fn ignored_users_are_read_leniently() {
    let server = server().await;
    let user = server.register("alice").await.user;
    let ignored = || {
        let view = server.accounts.view();
        server
            .accounts
            .ignored_users(&view, user)
            .expect("are read")
    };
    assert!(ignored().is_empty());
    let list = json!({"ignored_users": {"@bob:hs1": {}, "nonsense": {}}});
    set(&server, user, RoomNum::NONE, "m.ignored_user_list", list).await;
    assert_eq!(
        ignored().into_iter().collect::<Vec<_>>(),
        [user_id!("@bob:hs1")]
    );
    let broken = json!({"ignored_users": ["@bob:hs1"]});
    set(&server, user, RoomNum::NONE, "m.ignored_user_list", broken).await;
    assert!(ignored().is_empty());
}

#[tokio::test]
async fn tags_come_and_go() {
    let server = server().await;
    let user = server.register("alice").await.user;
    let room = RoomNum(1);
    let accounts = &server.accounts;
    let tags = || {
        Value::Object(
            accounts
                .tags(&accounts.view(), user, room)
                .expect("are read"),
        )
    };
    let info = |order: Value| Map::from_iter([("order".to_owned(), order)]);
    assert_eq!(tags(), json!({}));
    accounts
        .set_tag(user, room, "u.work", info(json!(0.5)))
        .await
        .expect("is legal");
    accounts
        .set_tag(user, room, "m.favourite", Map::new())
        .await
        .expect("is legal");
    assert_eq!(tags(), json!({"u.work": {"order": 0.5}, "m.favourite": {}}));
    assert!(get(&server, user, room, "m.tag").expect("is there")["tags"].is_object());
    for _ in 0..2 {
        accounts
            .delete_tag(user, room, "u.work")
            .await
            .expect("is gone or goes");
    }
    assert_eq!(tags(), json!({"m.favourite": {}}));
    assert!(matches!(
        accounts
            .set_tag(user, room, &"x".repeat(256), Map::new())
            .await,
        Err(TagError::InvalidName)
    ));
    assert!(matches!(
        accounts
            .set_tag(user, room, "u.x", info(json!("0.5")))
            .await,
        Err(TagError::InvalidOrder)
    ));
}

#[tokio::test]
async fn tags_set_at_once_are_all_kept() {
    let server = server().await;
    let user = server.register("alice").await.user;
    let tasks: Vec<_> = (0..8)
        .map(|number| {
            let accounts = server.accounts.clone();
            tokio::spawn(async move {
                accounts
                    .set_tag(user, RoomNum(1), &format!("u.{number}"), Map::new())
                    .await
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("does not panic").expect("is legal");
    }
    let view = server.accounts.view();
    let tags = server.accounts.tags(&view, user, RoomNum(1));
    assert_eq!(tags.expect("are read").len(), 8);
    let rows = view.keys::<AccountDataByPos>(Scan::all()).count();
    assert_eq!(rows, 1);
}
